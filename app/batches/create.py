"""POST /batches: checked against what the upload found in the lines, written down, and begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app import ids
from app.access import idempotency
from app.access.audit import Actor
from app.access.authenticate import Caller
from app.access.bodies import answer, parsed
from app.access.idempotency import REPLAYED_HEADER, Claim, KeyTaken
from app.batches import queries
from app.batches.body import BatchCreate
from app.batches.direct.create import create_direct
from app.batches.inline import MAX_INLINE_BYTES, kept, spooled
from app.batches.plan import Part, Plan
from app.batches.read import with_parts
from app.db.session import Row
from app.errors import BadRequest, NoSuchFile
from app.files.batch_input import inspected
from app.files.content import open_content
from app.files.leases import LEASE_SECONDS
from app.files.made import MadeFile, require_sources
from app.files.read import existing_file
from app.gateway import Gateway, caller_of, gateway_of

# The providers whose batches can be told where their results go, and which role runs them.
TOLD_WHERE = {"output_s3_uri": "bedrock", "role_arn": "bedrock", "output_gcs_uri": "vertex_ai"}


async def endpoint(request: Request) -> Response:
    """POST /batches."""
    gateway, caller = gateway_of(request), await caller_of(request)
    caller.require("member", "creating a batch")
    body = (await parsed(request, BatchCreate, MAX_INLINE_BYTES)).told_by(request)
    key = idempotency.key_of(request.headers)
    if (created := await create_direct(gateway, caller, body, keyed=key is not None)) is not None:
        return answer(created)
    claim = Claim.of(caller.team_id, key, [body.model_dump()]) if key else None
    try:
        batch = await create_batch(gateway, caller, body, claim)
    except KeyTaken:
        return await _replayed(gateway, caller, claim)
    return answer(await with_parts(gateway, batch))


async def create_batch(gateway: Gateway, caller: Caller, body: BatchCreate, claim: Claim | None = None) -> Row:
    """Write a batch down and begin to send it; the row. Raises BadRequest, Forbidden, NotFound or KeyTaken."""
    require_sources(gateway, "a batch's results are")
    if claim is not None and await _taken(gateway, claim):
        raise KeyTaken(claim)
    if body.requests is None:
        file = await _input(gateway, caller, str(body.input_file_id))
        async with gateway.database.read() as reader:
            targets = await queries.input_targets(reader, file["id"])
        parts = _planned(gateway, caller, body, await _facts(gateway, file), targets)
        batch = await _insert(gateway, caller, body, file, parts, claim)
    else:
        async with spooled(gateway, body.requests, body.endpoint, body.model) as (spool, facts):
            # Planned before they are kept, so that what is refused leaves nothing.
            parts = _planned(gateway, caller, body, facts)
            async with kept(gateway, caller, spool, facts) as made:
                batch = await _insert(gateway, caller, body, made.row, parts, claim, made)
    if batch["lease"] is not None:
        gateway.batches.start(gateway, batch)
    return batch


def _planned(
    gateway: Gateway, caller: Caller, body: BatchCreate, facts: Mapping[str, Any], targets: Sequence[str] = ()
) -> list[Part]:
    """Which deployment answers which lines. Raises BadRequest or Forbidden."""
    if facts["endpoint"] != body.endpoint:
        reason = f"the lines are for {facts['endpoint']}, but the batch's endpoint is {body.endpoint}"
        raise BadRequest(reason, param="endpoint", code="url_mismatch")
    parts = Plan(gateway.deployments, caller, facts, targets, body.model).parts()
    providers = {part.deployment.account.provider_name for part in parts}
    for field, provider in TOLD_WHERE.items():
        if getattr(body, field) is not None and provider not in providers:
            reason = f"{field} is for batches at {provider}; these lines run at {', '.join(sorted(providers))}"
            raise BadRequest(reason, param=field)
    return parts


async def _input(gateway: Gateway, caller: Caller, file_id: str) -> Row:
    row = await existing_file(gateway, caller, file_id, "input_file_id")
    if row["purpose"] != "batch":
        reason = f"the file's purpose is {row['purpose']!r}; a batch's input is uploaded with purpose 'batch'"
        raise BadRequest(reason, param="input_file_id", code="invalid_purpose")
    return row


async def _facts(gateway: Gateway, file: Row) -> Mapping[str, Any]:
    """What the lines ask for: as the upload found it, or read now for a file that is older than that."""
    if file["batch_lines"] is not None:
        return dict(file["batch_lines"])
    mapping = await gateway.mappings.find(None, file["id"])
    if mapping is None:
        raise NoSuchFile(file["id"], "input_file_id")
    async with open_content(gateway, mapping) as content:
        return await inspected(content.chunks, "input_file_id")


async def _insert(
    gateway: Gateway,
    caller: Caller,
    body: BatchCreate,
    file: Row | Mapping[str, Any],
    parts: Sequence[Part],
    claim: Claim | None,
    made: MadeFile | None = None,
) -> Row:
    """Write the batch down, and with it the file that is made of its requests."""
    expires = body.output_expires_after
    batch = {
        "id": ids.new_batch_id(),
        "team_id": file["team_id"],
        "created_by": caller.key_id,
        "input_file_id": file["id"],
        "endpoint": body.endpoint,
        "completion_window": body.completion_window,
        "metadata": body.metadata,
        "output_expires_after_seconds": expires.seconds if expires else None,
        "status": "validating",
        "store": file["source"] or gateway.sources.store,
        "lines": sum(part.lines for part in parts),
        # Of many at once the worker begins the rest, as soon as it can.
        "lease": ids.new_lease() if gateway.batches.free else None,
    }
    rows = [_part_row(batch["id"], part, _options(body, caller, part)) for part in parts]
    async with gateway.database.write() as writer:
        if claim is not None:
            await idempotency.take(writer, claim, batch["id"])
        if made is not None:
            await made.ready(writer)
        await Actor.of(caller).did(writer, "batch.create", batch["id"])
        return await queries.insert_batch(writer, batch, rows, LEASE_SECONDS)


def _options(body: BatchCreate, caller: Caller, part: Part) -> dict[str, Any]:
    """What a part's provider is told about its batch."""
    at_bedrock = part.deployment.account.provider_name == "bedrock"
    return {
        "provider_files": caller.provider_files,
        "job_name": body.job_name,
        "role_arn": body.role_arn,
        "output_uri": body.output_s3_uri if at_bedrock else body.output_gcs_uri,
    }


def _part_row(batch_id: str, part: Part, options: Mapping[str, Any]) -> dict[str, Any]:
    deployment = part.deployment
    return {
        "id": ids.new_part_id(),
        "batch_id": batch_id,
        "model_name": deployment.model_name,
        "provider_model": deployment.provider_model,
        "account": deployment.account.name,
        "provider": deployment.account.provider_name,
        "line_models": list(part.line_models),
        "lines": part.lines,
        "options": options,
        "state": "waiting",
    }


# --- Idempotency-Key --------------------------------------------------------------------------------------------


async def _taken(gateway: Gateway, claim: Claim) -> bool:
    async with gateway.database.read() as reader:
        return await queries.find_first(reader, claim.team_id, claim.key) is not None


async def _replayed(gateway: Gateway, caller: Caller, claim: Claim | None) -> Response:
    """The batch that the first request with this key has made."""
    assert claim is not None
    async with gateway.database.read() as reader:
        first = await queries.find_first(reader, claim.team_id, claim.key)
    if first is None or first["request_sha256"] != claim.request_sha256:
        raise idempotency.reused("it asks for another thing")
    response = answer(await with_parts(gateway, first))
    response.headers[REPLAYED_HEADER] = "true"
    return response
