"""GET /batches and /batches/{id}: the rows, in OpenAI's words. Whoever asks has the providers asked too, if it was not
done just now, so that nobody has to wait for the worker's next round."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app import ids
from app.access.authenticate import Caller
from app.access.bodies import answer, bad_field, page
from app.access.teams import listed_team
from app.batches import queries
from app.batches.advance import nudge
from app.batches.direct.address import Naming, direct_batch
from app.batches.direct.listing import page_of
from app.batches.direct.shown import MOMENTS
from app.batches.direct.shown import shown as shown_direct
from app.db.session import Row, Rows
from app.errors import BadRequest, NoSuchBatch
from app.files.direct import address
from app.files.direct.address import asked_provider
from app.files.targets import named_model
from app.gateway import Gateway, caller_of, gateway_of
from app.providers.protocol import ENDED


class ListParams(BaseModel):
    """GET /batches. OpenAI's own bounds and defaults; `team` is for admins."""

    model_config = ConfigDict(extra="ignore")

    after: str | None = None
    limit: int = Field(default=20, ge=1, le=100)
    team: str | None = None


async def endpoint(request: Request) -> Response:
    """GET /batches/{id}."""
    gateway, caller = gateway_of(request), await caller_of(request)
    batch_id = unquote(request.path_params["batch_id"])
    if direct := await direct_batch(gateway, caller, batch_id, asked_provider(request)):
        with direct.asked_for():
            found = await direct.account.provider.retrieve_batch(direct.provider_batch_id)
        return answer(shown_direct(found, Naming.of(gateway, caller, direct)))
    return answer(await retrieve_batch(gateway, caller, batch_id))


async def retrieve_batch(gateway: Gateway, caller: Caller, batch_id: str) -> dict[str, Any]:
    """A batch as its providers tell it now, or told a moment ago. Raises NoSuchBatch."""
    batch = await existing_batch(gateway, caller, batch_id)
    if batch["status"] not in ENDED:
        await nudge(gateway, batch["id"])
        batch = await existing_batch(gateway, caller, batch["id"])
    return await with_parts(gateway, batch)


async def with_parts(gateway: Gateway, batch: Row) -> dict[str, Any]:
    """A batch as it is shown by itself."""
    async with gateway.database.read() as reader:
        return shown(batch, await queries.parts_of(reader, batch["id"]))


async def list_endpoint(request: Request) -> Response:
    """GET /batches."""
    gateway, caller = gateway_of(request), await caller_of(request)
    try:
        params = ListParams.model_validate(dict(request.query_params))
    except ValidationError as invalid:
        raise bad_field(invalid) from None
    if (namings := _accounts(gateway, caller, request)) is not None:
        return answer(page(*await page_of(namings, params.after, params.limit)))
    if params.after is not None and not ids.is_batch_id(params.after):
        raise BadRequest(f"after must be the id of a batch, not {params.after[:100]!r}", param="after")
    team_id = await listed_team(gateway, caller, params.team)
    async with gateway.database.read() as reader:
        # One more tells whether there is another page.
        rows = await queries.list_batches(reader, team_id, after=params.after, limit=params.limit + 1)
    return answer(page([shown(row) for row in rows[: params.limit]], len(rows) > params.limit))


def _accounts(gateway: Gateway, caller: Caller, request: Request) -> list[Naming] | None:
    """The accounts whose own batches are listed, where a model name or a provider asks for that."""
    model_name = named_model(request.query_params.multi_items(), request.headers)
    if (provider := asked_provider(request)) is not None:
        return [Naming(gateway, caller, address.provider_account(gateway, caller, provider))]
    if model_name is None:
        return None
    address.check_provider_files(caller)
    accounts = address.model_accounts(gateway, caller, model_name)
    return [Naming(gateway, caller, account, model_name) for account in accounts]


async def existing_batch(gateway: Gateway, caller: Caller, batch_id: str) -> Row:
    """A batch that exists for the caller. Raises NotFound, the same for another team's and for none."""
    row = None
    if ids.is_batch_id(batch_id):
        async with gateway.database.read() as reader:
            row = await queries.find_batch(reader, caller.reach, batch_id)
    if row is None:
        raise NoSuchBatch(batch_id)
    return row


def shown(batch: Row, parts: Rows | None = None) -> dict[str, Any]:
    """A batch as OpenAI's Batch object, with its parts beside it."""
    content: dict[str, Any] = {
        "id": batch["id"],
        "object": "batch",
        "endpoint": batch["endpoint"],
        "input_file_id": batch["input_file_id"],
        "completion_window": batch["completion_window"],
        "status": batch["status"],
        "errors": {"object": "list", "data": batch["errors"]} if batch["errors"] else None,
        "output_file_id": batch["output_file_id"],
        "error_file_id": batch["error_file_id"],
        "created_at": _unix(batch["created_at"]),
        **{f"{name}_at": _unix(batch[f"{name}_at"]) for name in MOMENTS},
        "request_counts": {
            "total": batch["lines"],
            "completed": batch["completed_lines"],
            "failed": batch["failed_lines"],
        },
        "metadata": batch["metadata"],
        "usage": batch["usage"],
    }
    if parts is not None:
        content["filemux"] = {"last_error": batch["last_error"], "parts": [_shown_part(part) for part in parts]}
        names = {part["model_name"] for part in parts}
        content["model"] = names.pop() if len(names) == 1 else None
    return content


def _shown_part(part: Row) -> dict[str, Any]:
    shown = ("model_name", "provider", "account", "state", "status", "lines", "completed", "failed", "last_error")
    return {name: part[name] for name in shown}


def _unix(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment else None
