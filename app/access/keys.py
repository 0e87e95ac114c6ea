"""Keys: create, list, revoke, rotate. `/admin/keys` and `filemux keys` call the same functions."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from app import ids
from app.access import queries
from app.access.audit import Actor
from app.access.authenticate import Role, secret_sha256
from app.access.bodies import answer, parsed
from app.access.teams import admin, check_targets, existing_team
from app.db.session import Database, Row
from app.errors import BadRequest, NotFound
from app.gateway import gateway_of


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must lie in the years 1 to 9999") from None


class KeyCreate(BaseModel):
    """POST /admin/keys. `models` left out allows every model name; `expires_at` is Unix seconds or RFC 3339."""

    model_config = ConfigDict(extra="forbid")

    team: str
    role: Role = "member"
    name: str = Field(default="", max_length=200)
    models: list[str] | None = None
    permissions: list[Literal["provider_files"]] = []
    expires_at: Annotated[AwareDatetime, AfterValidator(_in_utc)] | None = None


async def create_endpoint(request: Request) -> Response:
    """POST /admin/keys: the only answer that ever holds the secret."""
    actor = await admin(request)
    gateway = gateway_of(request)
    body = await parsed(request, KeyCreate)
    check_targets(gateway, body.models or [], "models")
    row, secret = await create_key(gateway.database, actor, body)
    return answer({**shown(row), "key": secret})


async def list_endpoint(request: Request) -> Response:
    """GET /admin/keys, of one team with `?team=`."""
    await admin(request)
    rows = await list_keys(gateway_of(request).database, request.query_params.get("team"))
    return answer({"object": "list", "data": [shown(row) for row in rows]})


async def revoke_endpoint(request: Request) -> Response:
    """DELETE /admin/keys/{id}."""
    actor = await admin(request)
    key_id = request.path_params["key_id"]
    await revoke_key(gateway_of(request).database, actor, key_id)
    return answer({"id": key_id, "object": "key", "deleted": True})


async def rotate_endpoint(request: Request) -> Response:
    """POST /admin/keys/{id}/rotate: the old secret stops, the new one is in this answer only."""
    actor = await admin(request)
    row, secret = await rotate_key(gateway_of(request).database, actor, request.path_params["key_id"])
    return answer({**shown(row), "key": secret})


async def create_key(database: Database, actor: Actor, wanted: KeyCreate) -> tuple[Row, str]:
    """Make a key and return it with its secret. Raises NotFound for the team, BadRequest for a past expiry."""
    if wanted.expires_at is not None and wanted.expires_at.timestamp() <= time.time():
        raise BadRequest("expires_at is in the past", param="expires_at")
    secret = ids.new_key_secret()
    async with database.write() as writer:
        team = await existing_team(writer, wanted.team)
        row = await queries.insert_key(
            writer,
            {
                "team_id": team["id"],
                "name": wanted.name,
                "role": wanted.role,
                "secret_sha256": secret_sha256(secret.encode()),
                "secret_hint": secret[-4:],
                "models": wanted.models,
                "permissions": wanted.permissions,
                "expires_at": wanted.expires_at,
            },
        )
        await actor.did(writer, "key.create", row["id"], {"team": team["id"], "role": wanted.role})
    return row, secret


async def list_keys(database: Database, team: str | None) -> list[Row]:
    """The keys of one team, or all. Raises NotFound for the team."""
    async with database.read() as reader:
        team_id = None if team is None else (await existing_team(reader, team))["id"]
        return list(await queries.list_keys(reader, team_id))


async def revoke_key(database: Database, actor: Actor, key_id: str) -> None:
    """Revoke a key; every process refuses it from now on. Raises NotFound."""
    async with database.write() as writer:
        if not await queries.revoke_key(writer, key_id):
            raise _no_such_key(key_id)
        await actor.did(writer, "key.revoke", key_id)


async def rotate_key(database: Database, actor: Actor, key_id: str) -> tuple[Row, str]:
    """Replace a key's secret and return the new one. Raises NotFound."""
    secret = ids.new_key_secret()
    async with database.write() as writer:
        if not await queries.rotate_key(writer, key_id, secret_sha256(secret.encode()), secret[-4:]):
            raise _no_such_key(key_id)
        await actor.did(writer, "key.rotate", key_id)
        row = await queries.key_by_id(writer, key_id)
    assert row is not None
    return row, secret


def _no_such_key(key_id: str) -> NotFound:
    return NotFound(f"there is no key {key_id!r} that is not revoked", param="id")


def shown(row: Row) -> dict[str, Any]:
    """A key as the API shows it: never its secret."""
    return {
        "id": row["id"],
        "object": "key",
        "name": row["name"],
        "team": row["team"],
        "role": row["role"],
        "models": row["models"],
        "permissions": row["permissions"],
        "hint": f"sk-…{row['secret_hint']}",
        "created_at": _seconds(row["created_at"]),
        "expires_at": _seconds(row["expires_at"]),
        "revoked_at": _seconds(row["revoked_at"]),
    }


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
