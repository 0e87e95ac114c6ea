"""A file on its way: what is about to happen is committed before a provider is touched, what happened before the caller
is told. Whatever ends it early, the rows say what has to be deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from prometheus_client import Counter

from app import ids
from app.access.authenticate import Caller
from app.access.idempotency import Claim
from app.db.session import Row, Writer
from app.errors import Overloaded
from app.files import queries
from app.files.batch_input import inspected
from app.files.fanout import Fanout, FileFacts, Outcome, Sink
from app.files.leases import LEASE_SECONDS, renewing
from app.files.multipart import FileStart
from app.files.outcomes import UploadFailed, replica_values
from app.files.replicas import queries as replica_queries
from app.files.spool import Spool
from app.files.targets import BATCH_EXPIRY_SECONDS, Wanted
from app.gateway import Gateway

REPLICAS = Counter("filemux_replica_uploads", "Uploads to one account, by outcome", ["provider", "outcome"])


class Transfer:
    """One file on its way: its rows and its fan-out."""

    def __init__(self, gateway: Gateway, file: Mapping[str, Any], spool: Spool, fanout: Fanout) -> None:
        self._gateway, self._file, self._spool, self._fanout = gateway, file, spool, fanout
        self._keeping = asyncio.create_task(gateway.sources.keep(file["id"], spool))
        # One more reader of the spool, as the keeping is.
        self._inspecting = asyncio.create_task(inspected(spool.read(None))) if file["purpose"] == "batch" else None
        renew = partial(replica_queries.renew_lease, file_id=file["id"])
        self._renewing = renewing(gateway.database, renew)

    @classmethod
    async def begin(
        cls,
        gateway: Gateway,
        caller: Caller,
        spool: Spool,
        part: FileStart,
        wanted: Wanted,
        accounts: Mapping[str, tuple[str, ...]],
        claim: Claim | None = None,
    ) -> Transfer:
        """Commit the intent, then start the fan-out. Raises KeyTaken."""
        assert wanted.purpose is not None
        facts = FileFacts(part.filename, part.mime_type, wanted.purpose, wanted.expires_after_seconds)
        found = gateway.deployments.accounts
        sinks = [
            Sink(found[account], ids.new_replica_id(), names)
            for account, names in accounts.items()
            if found[account].stores_files
        ]
        now = datetime.now(UTC)
        file = {
            "id": ids.new_file_id(),
            "team_id": caller.team_id,
            "created_by": caller.key_id,
            "filename": part.filename,
            "purpose": wanted.purpose,
            "mime_type": part.mime_type,
            # Almost always true; else `sized` sets what was counted.
            "bytes": spool.size_bytes if spool.finished else part.size_bytes,
            "upload_policy": gateway.options.upload_policy,
            "source": gateway.sources.store,
            "created_at": now,
            "expires_at": _expires_at(now, wanted),
        }
        due_at = now + timedelta(seconds=LEASE_SECONDS)
        replicas = [(sink.replica_id, sink.account.name, sink.account.provider_name) for sink in sinks]
        targets = [(name, account) for account, names in accounts.items() for name in names]
        await queries.insert_intent(gateway.database, file, due_at, replicas, targets, claim)
        return cls(gateway, file, spool, Fanout(spool, facts, sinks, part.size_bytes))

    async def sized(self, size_bytes: int) -> None:
        """Commit the true size, by which a repair knows the file, before any provider can hold the whole of it."""
        if size_bytes != self._file["bytes"]:
            await queries.set_size(self._gateway.database, self._file["id"], size_bytes)

    async def finish(self) -> tuple[Row, list[Outcome]]:
        """Wait for the providers and record what they did. Raises UploadFailed when the policy is not met, BadRequest
        for a batch's line that is wrong."""
        batch_lines = await self._inspecting if self._inspecting else None
        outcomes = await self._taken()
        await self._keeping
        row = await self._record(outcomes, batch_lines)
        self._renewing.cancel()
        for outcome in outcomes:
            REPLICAS.labels(outcome.sink.account.provider_name, "ok" if outcome.stored else "failed").inc()
        return row, outcomes

    async def _taken(self) -> list[Outcome]:
        """What became of each sink, if the policy is met."""
        policy = self._gateway.options.upload_policy
        outcomes = await self._fanout.settled(stop_at_first_failure=policy == "all")
        stored = [outcome for outcome in outcomes if outcome.stored]
        if outcomes and (not stored or (policy == "all" and len(stored) < len(outcomes))):
            raise UploadFailed.of(outcomes)
        return outcomes

    async def give_up(self) -> None:
        """Cut the fan-out off and have everything that was stored deleted; the worker sees to it."""
        readers = [one for one in (self._keeping, self._inspecting) if one is not None]
        for one in readers:
            one.cancel()
        outcomes = await self._fanout.abandoned()
        # Nothing may be kept any more once the row says that it is due for removal.
        await asyncio.gather(*readers, return_exceptions=True)
        self._renewing.cancel()
        for outcome in outcomes:
            if outcome.error is not None:
                REPLICAS.labels(outcome.sink.account.provider_name, "failed").inc()
        async with self._gateway.database.write() as writer:
            failed = await queries.fail_upload(writer, self._file["id"])
            if not failed and await queries.is_ready(writer, self._file["id"]):
                # The upload's end was recorded after all; only the answer to that was lost.
                return
            for outcome in outcomes:
                await self._discard(writer, outcome)
            await replica_queries.forget_nothing_stored(writer, self._file["id"])
        if not failed:
            # Given up for crashed meanwhile; the removal of what is kept may have come before it.
            with suppress(OSError):
                await self._gateway.sources.remove(self._file["source"], self._file["id"])

    async def _discard(self, writer: Writer, outcome: Outcome) -> None:
        values = replica_values(outcome, discard=True)
        known = await replica_queries.record_replica(writer, outcome.sink.replica_id, values)
        if not known and outcome.file is not None:
            # Given up for crashed meanwhile, by a gateway that the database could hear.
            replica = {
                "id": outcome.sink.replica_id,
                "account": outcome.sink.account.name,
                "provider": outcome.sink.account.provider_name,
                "provider_file_id": outcome.file.id,
            }
            await replica_queries.discard_untracked(writer, self._file, replica)

    async def _record(self, outcomes: list[Outcome], batch_lines: Mapping[str, Any] | None) -> Row:
        row = await queries.record_upload(
            self._gateway.database,
            self._file["id"],
            self._spool.size_bytes,
            self._spool.sha256,
            {outcome.sink.replica_id: replica_values(outcome) for outcome in outcomes},
            batch_lines,
        )
        if row is None:
            # Giving up then marks what was stored.
            raise Overloaded("the upload took so long that it was given up", retry_after_seconds=1)
        return row


def _expires_at(now: datetime, wanted: Wanted) -> datetime | None:
    seconds = wanted.expires_after_seconds
    if seconds is None and wanted.purpose == "batch":
        seconds = BATCH_EXPIRY_SECONDS
    return None if seconds is None else now + timedelta(seconds=seconds)
