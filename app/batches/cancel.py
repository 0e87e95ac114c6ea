"""POST /batches/{id}/cancel: asked for at once; the worker's half (app.batches.poll) tells the providers."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from app.access.audit import Actor
from app.access.authenticate import Caller
from app.access.bodies import answer, parsed
from app.batches import queries
from app.batches.advance import nudge
from app.batches.body import OfProvider
from app.batches.direct.address import Naming, direct_batch
from app.batches.direct.shown import shown as shown_direct
from app.batches.read import existing_batch, with_parts
from app.db.session import Row
from app.errors import BadRequest
from app.files.direct.address import asked_provider
from app.gateway import Gateway, caller_of, gateway_of
from app.providers.protocol import ENDED


async def endpoint(request: Request) -> Response:
    """POST /batches/{id}/cancel."""
    gateway, caller = gateway_of(request), await caller_of(request)
    caller.require("member", "cancelling a batch")
    batch_id = unquote(request.path_params["batch_id"])
    # OpenAI's clients send no body.
    told = await parsed(request, OfProvider, optional=True)
    provider = told.named_provider or asked_provider(request)
    if direct := await direct_batch(gateway, caller, batch_id, provider):
        with direct.asked_for():
            await direct.account.provider.cancel_batch(direct.provider_batch_id)
            found = await direct.account.provider.retrieve_batch(direct.provider_batch_id)
        if found.status not in ENDED:
            # Not every provider has a word for it.
            found = replace(found, status="cancelling")
        return answer(shown_direct(found, Naming.of(gateway, caller, direct)))
    return answer(await with_parts(gateway, await cancel_batch(gateway, caller, batch_id)))


async def cancel_batch(gateway: Gateway, caller: Caller, batch_id: str) -> Row:
    """Have a batch cancelled; again changes nothing. Raises NotFound, or BadRequest when it has ended."""
    batch = await existing_batch(gateway, caller, batch_id)
    async with gateway.database.write() as writer:
        cancelling = await queries.cancel(writer, caller.reach, batch_id)
        if cancelling is not None:
            await Actor.of(caller).did(writer, "batch.cancel", batch_id)
    if cancelling is None:
        batch = await existing_batch(gateway, caller, batch_id)
        if batch["status"] != "cancelling":
            reason = f"the batch is {batch['status']}; only one that is validating or in progress can be cancelled"
            raise BadRequest(reason, param="id", code="batch_not_cancellable")
        return batch
    await nudge(gateway, batch_id)
    return await existing_batch(gateway, caller, batch_id)
