"""Replicas that are made after the upload, from the bytes that are kept: for a model name that it did not ask for, for
a target that failed, in place of one that its provider has lost or is about to.

The row becomes `pending` before the provider is touched, by one maker among all gateways; the others wait for the row.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog

from app import ids
from app.db.claims import backoff_seconds
from app.db.session import Row
from app.deployments import Account
from app.errors import GatewayError, Overloaded
from app.files.backfill import queries
from app.files.content import open_content
from app.files.fanout import Fanout, FileFacts, Outcome, Sink
from app.files.leases import LEASE_SECONDS, renewing
from app.files.mappings import FileMapping
from app.files.outcomes import replica_values
from app.files.replicas import queries as replica_queries
from app.files.targets import MIN_EXPIRY_SECONDS
from app.gateway import Gateway
from app.providers.protocol import UploadInterrupted

log = structlog.get_logger("filemux.files")

# At once in one process, whoever wants them.
AT_ONCE = 8
CLOSING_SECONDS = 5.0


class Backfills:
    """The replicas that this process is making."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(AT_ONCE)

    @property
    def free(self) -> int:
        """How many more can begin at once."""
        return max(0, AT_ONCE - len(self._tasks))

    def start(self, gateway: Gateway, file: FileMapping, replica: Row) -> None:
        """Make a replica whose row is ours; it goes on when whoever wanted it leaves."""
        task = asyncio.create_task(self._make(gateway, file, replica))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cut off what is running; the rows say what to do."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _make(self, gateway: Gateway, file: FileMapping, replica: Row) -> None:
        lease = renewing(gateway.database, partial(queries.renew_claim, replica=replica))
        try:
            async with self._slots:
                await _make(gateway, file, replica)
        except (Overloaded, TimeoutError):
            # The row keeps its lease; what was made is found by the repair after it.
            log.warning("a backfill could not be recorded", replica=replica["id"])
        except Exception:
            log.exception("a backfill failed", replica=replica["id"])
        finally:
            lease.cancel()


async def begin(gateway: Gateway, file: FileMapping, account: Account, model_name: str) -> bool:
    """Begin to make a replica for a model name; False when somebody does already. Raises Overloaded."""
    async with gateway.database.write() as writer:
        await replica_queries.expire_replica(writer, file.file_id, account.name)
        replica = await queries.begin(
            writer, ids.new_replica_id(), file.file_id, account.name, account.provider_name, LEASE_SECONDS
        )
        await queries.add_target(writer, file.file_id, model_name, account.name)
    gateway.mappings.cache.forget(file.file_id)
    if replica is not None:
        gateway.backfills.start(gateway, file, replica)
    return replica is not None


async def lose(gateway: Gateway, file: FileMapping, account: Account) -> None:
    """An account holds the file no more: its replica is deleted, and may be made again. Raises Overloaded."""
    log.warning("a provider has lost a file", file=file.file_id, account=account.name)
    async with gateway.database.write() as writer:
        await replica_queries.lose_replica(writer, file.replicas[account.name].id)
    gateway.mappings.cache.forget(file.file_id)


async def backfill_due(gateway: Gateway) -> int:
    """The worker's half: make what is wanted, and try again what has failed; returns how many were begun."""
    limit = gateway.backfills.free
    if not limit:
        return 0
    async with gateway.database.write() as writer:
        replicas = await queries.claim_wanted(
            writer, gateway.deployments.accounts, gateway.sources.stores, LEASE_SECONDS, limit
        )
    for replica in replicas:
        gateway.mappings.cache.forget(replica["file_id"])
        file = await gateway.mappings.find(None, replica["file_id"])
        # A file that expires now is deleted with this row.
        if file is not None:
            gateway.backfills.start(gateway, file, replica)
    return len(replicas)


async def _make(gateway: Gateway, file: FileMapping, replica: Row) -> None:
    kept = Kept(gateway, file)
    account = gateway.deployments.accounts[replica["account"]]
    facts = FileFacts(file.filename, file.mime_type, file.purpose, _remaining_seconds(file))
    fanout = Fanout(kept, facts, [Sink(account, replica["id"], ())], file.size_bytes)
    try:
        outcomes = await fanout.settled(stop_at_first_failure=False)
    except asyncio.CancelledError:
        # Where the provider's answer would take longer, the repair finds what it has made.
        async with asyncio.timeout(CLOSING_SECONDS):
            outcomes = await fanout.abandoned()
        await _record(gateway, file, replica, outcomes[0], kept)
        raise
    await _record(gateway, file, replica, outcomes[0], kept)


async def _record(gateway: Gateway, file: FileMapping, replica: Row, outcome: Outcome, kept: Kept) -> None:
    values = _values(replica, outcome, kept)
    async with gateway.database.write() as writer:
        if not await replica_queries.record_made(writer, replica, values) and outcome.file is not None:
            lost = {key: replica[key] for key in ("account", "provider")}
            await replica_queries.discard_untracked(
                writer, file.row, {**lost, "id": ids.new_replica_id(), "provider_file_id": outcome.file.id}
            )
    gateway.mappings.cache.forget(file.file_id)


def _values(replica: Row, outcome: Outcome, kept: Kept) -> Mapping[str, Any]:
    values = replica_values(outcome)
    if values["state"] != "failed":
        return values
    failure = outcome.error or kept.failure
    reason = failure.message if failure else "the gateway was stopped"
    # What no repetition mends is not repeated; it is shown to whoever asks.
    final = failure is not None and failure.status not in (429, 502, 503)
    wait = max(backoff_seconds(replica["attempts"]), (failure and failure.retry_after_seconds) or 0.0)
    due_at = None if final else datetime.now(UTC) + timedelta(seconds=wait)
    return {**values, "last_error": reason, "due_at": due_at}


def _remaining_seconds(file: FileMapping) -> int | None:
    if file.expires_at is None:
        return None
    return max(int(file.expires_at - time.time()), MIN_EXPIRY_SECONDS)


class SupplyFailed(UploadInterrupted):
    """The bytes of a file could not be read to their end."""


class Kept:
    """The bytes of a ready file, from wherever they can be read; a Supply. `failure` tells why they could not be."""

    finished = True

    def __init__(self, gateway: Gateway, file: FileMapping) -> None:
        self._gateway, self._file = gateway, file
        self.size_bytes, self.sha256 = file.size_bytes, file.sha256
        self.failure: GatewayError | None = None

    async def wait_finished(self) -> None:
        """They are all there."""

    async def read(self, promised_bytes: int | None) -> AsyncIterator[bytes]:
        """All bytes from the start. Raises SupplyFailed."""
        try:
            async with open_content(self._gateway, self._file) as content:
                async for chunk in content.chunks:
                    yield chunk
        except GatewayError as failure:
            self.failure = failure
            raise SupplyFailed from failure
