"""DELETE /files/{id}: gone for everybody at once, and gone at every provider for certain.

One transaction marks the file and makes its replicas due. The request then tries the providers, bounded in time;
what is not confirmed stays due, and the worker's half at the end tries again for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import Response

from app import ids
from app.access.audit import Actor
from app.access.authenticate import Caller
from app.access.bodies import answer
from app.db.claims import backoff_seconds
from app.db.session import Row
from app.errors import Missing, NoSuchFile, Overloaded, ProviderError
from app.files import queries
from app.files.direct import address
from app.files.replicas import queries as replica_queries
from app.files.sources import remove_source
from app.gateway import Gateway, caller_of, gateway_of

log = structlog.get_logger("filemux.files")

# How long a client waits for the providers before the worker takes over.
REQUEST_SECONDS = 5.0
LEASE_SECONDS = 60.0
CLAIMED_AT_ONCE = 20

DELETED = Counter("filemux_replica_deletes", "Provider files deleted, by outcome", ["provider", "outcome"])


async def endpoint(request: Request) -> Response:
    """DELETE /files/{id}."""
    gateway, caller = gateway_of(request), await caller_of(request)
    caller.require("member", "deleting a file")
    file_id = address.asked_id(request)
    if file := await address.direct_file(gateway, caller, request, file_id):
        with file.asked_for():
            await file.delete()
    else:
        await delete_file(gateway, caller, file_id)
    return answer({"id": file_id, "object": "file", "deleted": True})


async def delete_file(gateway: Gateway, caller: Caller, file_id: str) -> None:
    """Delete a file everywhere. Raises NotFound; returns once every provider answered or REQUEST_SECONDS passed."""
    marked = None
    if ids.is_file_id(file_id):
        async with gateway.database.write() as writer:
            marked = await queries.mark_deleting(
                writer, caller.reach, file_id, LEASE_SECONDS, gateway.deployments.accounts
            )
            if marked is not None:
                await Actor.of(caller).did(writer, "file.delete", marked[0]["id"])
    if marked is None:
        raise NoSuchFile(file_id)
    file, replicas = marked
    work = [asyncio.create_task(one) for one in (remove_source(gateway, file), delete_replicas(gateway, replicas))]
    # Past the time the work goes on; a crash meanwhile costs one lease.
    await asyncio.wait(work, timeout=REQUEST_SECONDS)


async def delete_due(gateway: Gateway) -> int:
    """The worker's half: try what is due; returns how many replicas were claimed."""
    async with gateway.database.write() as writer:
        replicas = await replica_queries.claim(
            writer, "deleting", gateway.deployments.accounts, LEASE_SECONDS, CLAIMED_AT_ONCE
        )
    await delete_replicas(gateway, replicas)
    return len(replicas)


async def delete_replicas(gateway: Gateway, replicas: Sequence[Row]) -> None:
    """Delete claimed replicas at their providers, all at once, and forget those that are gone."""
    await asyncio.gather(*(_delete_replica(gateway, replica) for replica in replicas))


async def _delete_replica(gateway: Gateway, replica: Row) -> None:
    failure = await _failure(gateway, replica)
    try:
        async with gateway.database.write() as writer:
            if failure is None:
                await replica_queries.forget_replica(writer, replica)
            else:
                wait = max(backoff_seconds(replica["attempts"]), failure.retry_after_seconds or 0)
                await replica_queries.postpone(writer, replica, wait, failure.message)
    except Overloaded:
        # The row keeps its lease and is due again after it; a repeated delete is harmless.
        log.warning("a delete could not be recorded", replica=replica["id"])


async def _failure(gateway: Gateway, replica: Row) -> ProviderError | None:
    """Why the provider's file is not surely gone; None when it is."""
    if replica["provider_file_id"] is None:
        return None
    try:
        await gateway.deployments.accounts[replica["account"]].provider.delete_file(replica["provider_file_id"])
    except Missing:
        pass
    except ProviderError as failure:
        DELETED.labels(replica["provider"], "failed").inc()
        return failure
    DELETED.labels(replica["provider"], "ok").inc()
    return None
