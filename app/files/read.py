"""GET /files and /files/{id}."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app import ids
from app.access.authenticate import Caller
from app.access.bodies import answer, bad_field, page
from app.access.teams import listed_team
from app.db.session import Row
from app.errors import BadRequest, NoSuchFile
from app.files import queries
from app.files.direct import address
from app.files.direct import shown as direct
from app.files.direct.listing import Listing
from app.files.replicas import queries as replica_queries
from app.files.targets import named_model, storage_place
from app.gateway import Gateway, caller_of, gateway_of
from app.providers.protocol import PURPOSES

LISTED = PURPOSES | {"batch_output"}


class ListParams(BaseModel):
    """GET /files. OpenAI's own bounds and defaults; `team` is for admins."""

    model_config = ConfigDict(extra="ignore")

    after: str | None = None
    limit: int = Field(default=10_000, ge=1, le=10_000)
    order: Literal["asc", "desc"] = "desc"
    purpose: str | None = None
    team: str | None = None


async def endpoint(request: Request) -> Response:
    """GET /files/{id}."""
    gateway, caller = gateway_of(request), await caller_of(request)
    file_id = address.asked_id(request)
    if file := await address.direct_file(gateway, caller, request, file_id):
        with file.asked_for():
            found = await file.described()
        return answer(direct.shown(found, file.account, file_id if file.sealed else found.id))
    row = await existing_file(gateway, caller, file_id)
    async with gateway.database.read() as reader:
        replicas = await replica_queries.file_replicas(reader, [row["id"]])
    return answer(shown(row, [target(replica) for replica in replicas]))


async def list_endpoint(request: Request) -> Response:
    """GET /files."""
    gateway, caller = gateway_of(request), await caller_of(request)
    params = _list_params(request)
    if listing := _listing(gateway, caller, request, params):
        return answer(page(*await listing.page(params.after, params.limit)))
    _check_managed(params)
    team_id = await listed_team(gateway, caller, params.team)
    async with gateway.database.read() as reader:
        rows = await queries.list_files(
            reader,
            team_id,
            after=params.after,
            # One more tells whether there is another page.
            limit=params.limit + 1,
            descending=params.order == "desc",
            purpose=params.purpose,
        )
    return answer(page([shown(row) for row in rows[: params.limit]], len(rows) > params.limit))


async def existing_file(gateway: Gateway, caller: Caller, file_id: str, param: str = "id") -> Row:
    """A file that exists for the caller. Raises NoSuchFile about this parameter, the same for another team's and for
    none."""
    row = None
    if ids.is_file_id(file_id):
        async with gateway.database.read() as reader:
            row = await queries.find_file(reader, caller.reach, file_id)
    if row is None:
        raise NoSuchFile(file_id, param)
    return row


def shown(row: Row, targets: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A file as OpenAI's File object, with filemux's facts beside it."""
    facts: dict[str, Any] = {"mime_type": row["mime_type"], "sha256": row["sha256"]}
    if targets is not None:
        facts["targets"] = targets
    return {
        "id": row["id"],
        "object": "file",
        "bytes": row["bytes"],
        "created_at": int(row["created_at"].timestamp()),
        "expires_at": int(row["expires_at"].timestamp()) if row["expires_at"] else None,
        "filename": row["filename"],
        "purpose": row["purpose"],
        "status": "processed",
        "status_details": None,
        "filemux": facts,
    }


def target(replica: Row) -> dict[str, Any]:
    """A replica as a file's `filemux.targets` shows it."""
    return {
        "model_names": sorted(replica["model_names"] or ()),
        "provider": replica["provider"],
        "account": replica["account"],
        "state": replica["state"],
        "last_error": replica["last_error"],
    }


def _list_params(request: Request) -> ListParams:
    try:
        params = ListParams.model_validate(dict(request.query_params))
    except ValidationError as invalid:
        raise bad_field(invalid) from None
    return params


def _check_managed(params: ListParams) -> None:
    """Raise BadRequest for what is wrong where the files are the team's own."""
    if params.after is not None and not ids.is_file_id(params.after):
        raise BadRequest(f"after must be the id of a file, not {params.after[:100]!r}", param="after")
    if params.purpose is not None and params.purpose not in LISTED:
        known = ", ".join(sorted(LISTED))
        raise BadRequest(f"{params.purpose[:100]!r} is no purpose; there are {known}", param="purpose")


def _listing(gateway: Gateway, caller: Caller, request: Request, params: ListParams) -> Listing | None:
    """The list of an account's files, where a model name or a provider asks for that."""
    query = request.query_params.multi_items()
    model_name, provider = named_model(query, request.headers), address.asked_provider(request)
    if model_name is None and provider is None:
        return None
    if "order" in params.model_fields_set and params.order == "asc":
        reason = "the files of an account come in its provider's own order, mostly the newest first; leave `order` out"
        raise BadRequest(reason, param="order", code="order_not_supported")
    if model_name is not None:
        address.check_provider_files(caller)
        accounts = address.model_accounts(gateway, caller, model_name)
    else:
        assert provider is not None
        accounts = [address.provider_account(gateway, caller, provider)]
    storage = storage_place(query)
    return Listing(gateway, caller, accounts, model_name=model_name, purpose=params.purpose, storage=storage)
