"""Teams: create, list, update. `/admin/teams` and `filemux teams` call the same functions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from app.access import queries
from app.access.audit import Actor
from app.access.authenticate import Caller
from app.access.bodies import answer, parsed
from app.db.session import Database, Reader, Row
from app.errors import BadRequest, Forbidden, NotFound
from app.gateway import Gateway, caller_of, gateway_of
from app.settings import ALL_MODEL_NAMES

TeamName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class TeamCreate(BaseModel):
    """POST /admin/teams."""

    model_config = ConfigDict(extra="forbid")

    name: TeamName
    default_target_model_names: list[str] = []


class TeamUpdate(BaseModel):
    """POST /admin/teams/{id}: what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    name: TeamName | None = None
    default_target_model_names: list[str] | None = None


async def create_endpoint(request: Request) -> Response:
    """POST /admin/teams."""
    actor = await admin(request)
    gateway = gateway_of(request)
    body = await parsed(request, TeamCreate)
    check_targets(gateway, body.default_target_model_names, "default_target_model_names")
    row = await create_team(gateway.database, actor, body.name, body.default_target_model_names)
    return answer(shown(row))


async def list_endpoint(request: Request) -> Response:
    """GET /admin/teams."""
    await admin(request)
    async with gateway_of(request).database.read() as reader:
        rows = await queries.list_teams(reader)
    return answer({"object": "list", "data": [shown(row) for row in rows]})


async def update_endpoint(request: Request) -> Response:
    """POST /admin/teams/{id}."""
    actor = await admin(request)
    gateway = gateway_of(request)
    body = await parsed(request, TeamUpdate)
    check_targets(gateway, body.default_target_model_names or [], "default_target_model_names")
    changes = body.model_dump(exclude_none=True)
    return answer(shown(await update_team(gateway.database, actor, request.path_params["team_id"], changes)))


async def create_team(database: Database, actor: Actor, name: str, targets: list[str]) -> Row:
    """Make a team. Raises BadRequest when the name is taken."""
    async with database.write() as writer:
        row = await queries.insert_team(writer, name, targets)
        if row is None:
            raise BadRequest(f"there is already a team named {name!r}", param="name", code="team_exists")
        await actor.did(writer, "team.create", row["id"], {"name": name})
    return row


async def update_team(database: Database, actor: Actor, name_or_id: str, changes: dict[str, Any]) -> Row:
    """Rename a team or change its default targets. Raises NotFound, or BadRequest when the name is taken."""
    async with database.write() as writer:
        team = await existing_team(writer, name_or_id)
        if not changes:
            return team
        taken = await queries.find_team(writer, changes["name"]) if "name" in changes else None
        if taken is not None and taken["id"] != team["id"]:
            raise BadRequest(f"there is already a team named {changes['name']!r}", param="name", code="team_exists")
        row = await queries.update_team(writer, team["id"], changes)
        await actor.did(writer, "team.update", team["id"], changes)
    return row


async def existing_team(reader: Reader, name_or_id: str) -> Row:
    """A team by name or id. Raises NotFound."""
    team = await queries.find_team(reader, name_or_id)
    if team is None:
        raise NotFound(f"there is no team {name_or_id!r}", param="team")
    return team


async def admin(request: Request) -> Actor:
    """The admin behind a request. Raises Unauthenticated or Forbidden."""
    caller = await caller_of(request)
    caller.require("admin", "managing teams and keys")
    return Actor.of(caller)


def check_targets(gateway: Gateway, names: list[str], field: str) -> None:
    """Raise BadRequest for a model name that is not configured."""
    known = gateway.deployments.names()
    if names == [ALL_MODEL_NAMES]:
        return
    for index, name in enumerate(names):
        if name not in known:
            reason = (
                f"there is no model name {name!r}; there are {', '.join(known)}, or {ALL_MODEL_NAMES} alone for all"
            )
            raise BadRequest(reason, param=f"{field}[{index}]")


def shown(row: Row) -> dict[str, Any]:
    """A team as the API shows it."""
    return {
        "id": row["id"],
        "object": "team",
        "name": row["name"],
        "default_target_model_names": row["default_target_model_names"],
        "created_at": int(row["created_at"].timestamp()),
    }


async def listed_team(gateway: Gateway, caller: Caller, team: str | None) -> str:
    """The id of the team whose things are listed: the caller's own, or for an admin the one that is named.

    Raises Forbidden or NotFound.
    """
    if team is None or team in (caller.team_name, caller.team_id):
        return caller.team_id
    if caller.role != "admin":
        raise Forbidden("only an admin key lists what is another team's", param="team")
    async with gateway.database.read() as reader:
        return str((await existing_team(reader, team))["id"])
