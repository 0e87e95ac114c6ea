"""Replicas of all ready files for a model name, such as one that is new in the configuration: POST /admin/files/sync
orders them, GET tells how far they are. The worker makes them, as it does all that is wanted."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.access.audit import Actor
from app.access.bodies import answer, bad_field, parsed
from app.access.teams import existing_team
from app.db.session import Rows
from app.deployments import Account
from app.errors import BadRequest
from app.files.backfill import queries
from app.gateway import Gateway, caller_of, gateway_of

# Of one transaction.
FILES_AT_ONCE = 1000


class Sync(BaseModel):
    """What is to be in step: the files of one team, or of all, with the accounts behind a model name."""

    model_config = ConfigDict(extra="forbid")

    model: str
    team: str | None = None


async def endpoint(request: Request) -> Response:
    """POST /admin/files/sync."""
    actor, gateway = await _admin(request), gateway_of(request)
    wanted = await parsed(request, Sync)
    await order(gateway, actor, wanted)
    return answer(await progress(gateway, wanted))


async def progress_endpoint(request: Request) -> Response:
    """GET /admin/files/sync."""
    await _admin(request)
    try:
        wanted = Sync.model_validate(dict(request.query_params))
    except ValidationError as invalid:
        raise bad_field(invalid) from None
    return answer(await progress(gateway_of(request), wanted))


async def order(gateway: Gateway, actor: Actor, wanted: Sync) -> None:
    """Have replicas made that are missing or have failed for good. Raises BadRequest, or NotFound for the team."""
    accounts, team_id = await _scope(gateway, wanted)
    async with gateway.database.write() as writer:
        await actor.did(writer, "files.sync", wanted.model, {"team": wanted.team})
    for account in accounts:
        capabilities = account.provider.capabilities
        scope = {
            "account": account.name,
            "provider": account.provider_name,
            "model_name": wanted.model,
            "team_id": team_id,
            "purposes": sorted(capabilities.purposes),
            "max_bytes": capabilities.max_file_bytes,
            "stores": list(gateway.sources.stores),
        }
        last: str | None = ""
        while last is not None:
            async with gateway.database.write() as writer:
                last = await queries.want_synced(writer, scope, last, FILES_AT_ONCE)


async def progress(gateway: Gateway, wanted: Sync) -> dict[str, Any]:
    """How many files have, are waiting for, or could not be given a replica at every account behind the model name.

    Raises as `order` does.
    """
    accounts, team_id = await _scope(gateway, wanted)
    async with gateway.database.read() as reader:
        counts = await queries.sync_progress(reader, [one.name for one in accounts], team_id)
    return {"model": wanted.model, **counts}


async def failures(gateway: Gateway, wanted: Sync, limit: int) -> Rows:
    """Files that could not be given a replica, and why. Raises as `order` does."""
    accounts, team_id = await _scope(gateway, wanted)
    async with gateway.database.read() as reader:
        return await queries.sync_failures(reader, [one.name for one in accounts], team_id, limit)


async def _scope(gateway: Gateway, wanted: Sync) -> tuple[list[Account], str | None]:
    """The accounts where the files are to be, and the team's id, None for all."""
    deployments = gateway.deployments.of(wanted.model)
    if not deployments:
        names = ", ".join(gateway.deployments.names())
        reason = f"there is no model name {wanted.model[:200]!r}; there are {names}"
        raise BadRequest(reason, param="model", code="unknown_model_name")
    accounts = {one.account.name: one.account for one in deployments if one.account.stores_files}
    if not accounts:
        reason = f"no account behind {wanted.model!r} has a Files API: files travel inside its chats"
        raise BadRequest(reason, param="model", code="target_without_files")
    if wanted.team is None:
        return list(accounts.values()), None
    async with gateway.database.read() as reader:
        return list(accounts.values()), (await existing_team(reader, wanted.team))["id"]


async def _admin(request: Request) -> Actor:
    caller = await caller_of(request)
    caller.require("admin", "syncing all files")
    return Actor.of(caller)
