"""POST /files: the body is parsed as it comes, spooled, and fanned out to every target's account at once.

What is about to happen is committed before a provider is touched; what happened is committed before the caller is
told. Whatever ends an upload early, the rows say what has to be deleted.
"""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import puremagic
from prometheus_client import Counter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app import ids
from app.access.authenticate import Caller
from app.access.bodies import answer
from app.db.session import Row
from app.errors import BadRequest, GatewayError, Overloaded, TooLarge
from app.files import queries
from app.files.fanout import Fanout, FileFacts, Outcome, Sink
from app.files.multipart import UNTYPED, Field, FileEnd, FileStart, form_events
from app.files.outcomes import UploadFailed, replica_values
from app.files.read import shown
from app.files.replicas import queries as replica_queries
from app.files.spool import Spool
from app.files.targets import BATCH_EXPIRY_SECONDS, HalfExpiry, Wanted, check_size, target_accounts, wanted_from
from app.gateway import Gateway, caller_of, gateway_of
from app.hangup import EndedByHangUp

LEASE_SECONDS = 60.0

UPLOADS = Counter("filemux_uploads", "Uploads, by outcome", ["outcome"])
UPLOAD_BYTES = Counter("filemux_upload_bytes", "Bytes of files received")
REPLICAS = Counter("filemux_replica_uploads", "Uploads to one account, by outcome", ["provider", "outcome"])


async def endpoint(request: Request) -> Response:
    """POST /files."""
    gateway, caller = gateway_of(request), await caller_of(request)
    caller.require("member", "uploading a file")
    try:
        file, outcomes = await _Reception(gateway, caller, request).received()
    except GatewayError as failure:
        UPLOADS.labels(failure.code or failure.type).inc()
        raise
    UPLOADS.labels("ok").inc()
    return answer(shown(file, [_target(outcome) for outcome in outcomes]))


async def upload_file(
    gateway: Gateway, caller: Caller, part: FileStart, chunks: AsyncIterator[bytes], wanted: Wanted
) -> tuple[Row, list[Outcome]]:
    """The same for a file that is at hand, as at the command line."""
    accounts = target_accounts(wanted, caller, gateway.deployments, gateway.options.default_target_model_names)
    async with Spool(gateway.spool_dir) as spool:
        upload = await Upload.begin(gateway, caller, spool, part, wanted, accounts)
        try:
            async for chunk in chunks:
                await spool.write(chunk)
            await spool.finish()
            return await upload.finish()
        except BaseException:
            await asyncio.shield(upload.give_up())
            raise


def _target(outcome: Outcome) -> dict[str, Any]:
    state = replica_values(outcome)["state"]
    return {
        "model_names": list(outcome.sink.model_names),
        "provider": outcome.sink.account.provider_name,
        "account": outcome.sink.account.name,
        "state": state,
        "last_error": outcome.error.message if outcome.error else None,
    }


class _Reception:
    """One request: reads the form, and begins the upload as soon as it is known where to."""

    def __init__(self, gateway: Gateway, caller: Caller, request: Request) -> None:
        self._gateway, self._caller, self._request = gateway, caller, request
        self._fields: list[tuple[str, str]] = []
        self._part: FileStart | None = None
        self._upload: Upload | None = None

    async def received(self) -> tuple[Row, list[Outcome]]:
        """The file's row and each account's outcome, once all is stored and recorded."""
        # Whatever is wrong with the query or the headers is known before the first byte.
        self._wanted()
        async with Spool(self._gateway.spool_dir) as spool:
            try:
                await self._read(spool)
                async with EndedByHangUp(self._request.receive):
                    if self._upload is None:
                        self._upload = await self._begin(spool, self._wanted())
                    return await self._upload.finish()
            except BaseException:
                if self._upload is not None:
                    await asyncio.shield(self._upload.give_up())
                raise

    async def _read(self, spool: Spool) -> None:
        headers = self._request.headers
        length = headers.get("content-length")
        chunks = _body(self._request)
        async for event in form_events(chunks, headers.get("content-type", ""), int(length) if length else None):
            match event:
                case Field(name, value):
                    self._fields.append((name, value))
                    await self._start_over()
                case FileStart():
                    self._file_starts(event)
                case FileEnd():
                    pass
                case chunk:
                    await self._write(spool, chunk)
        if self._part is None:
            raise BadRequest("the form has no file: send it in the field `file`", param="file", code="missing_file")
        if spool.size_bytes == 0:
            raise BadRequest("the file is empty", param="file", code="empty_file")
        await spool.finish()

    def _file_starts(self, part: FileStart) -> None:
        if self._part is not None:
            raise BadRequest("the form has two files; send one for each request", param="file", code="two_files")
        self._part = part
        if part.size_bytes is not None:
            self._check_limit(part.size_bytes)

    async def _write(self, spool: Spool, chunk: bytes) -> None:
        self._check_limit(spool.size_bytes + len(chunk))
        await spool.write(chunk)
        UPLOAD_BYTES.inc(len(chunk))
        if self._upload is None and spool.size_bytes == len(chunk):
            # The first bytes tell the type where the client does not.
            assert self._part is not None
            self._part = _typed(self._part, chunk)
            with suppress(HalfExpiry):
                wanted = self._wanted()
                if wanted.complete:
                    self._upload = await self._begin(spool, wanted)

    async def _start_over(self) -> None:
        """A field that follows the file may change what is wanted: what was begun too early is taken back."""
        if self._upload is not None:
            upload, self._upload = self._upload, None
            await asyncio.shield(upload.give_up())

    def _wanted(self) -> Wanted:
        return wanted_from(self._fields, self._request.query_params.multi_items(), self._request.headers)

    def _check_limit(self, size_bytes: int) -> None:
        limit = self._gateway.options.max_file_bytes
        if size_bytes > limit:
            raise TooLarge(f"the file is over the limit of {limit} bytes", param="file")

    async def _begin(self, spool: Spool, wanted: Wanted) -> Upload:
        if wanted.purpose is None:
            raise BadRequest("the form has no `purpose`, such as user_data", param="purpose", code="missing_purpose")
        assert self._part is not None
        gateway = self._gateway
        defaults = gateway.options.default_target_model_names
        accounts = target_accounts(wanted, self._caller, gateway.deployments, defaults)
        size = spool.size_bytes if spool.finished else self._part.size_bytes
        if size is not None:
            check_size(size, accounts, gateway.deployments)
        return await Upload.begin(gateway, self._caller, spool, self._part, wanted, accounts)


class Upload:
    """One file on its way: its rows and its fan-out."""

    def __init__(self, gateway: Gateway, file_id: str, spool: Spool, fanout: Fanout) -> None:
        self._gateway, self._file_id, self._spool, self._fanout = gateway, file_id, spool, fanout
        self._renewing = asyncio.create_task(self._renew_lease())

    @classmethod
    async def begin(
        cls,
        gateway: Gateway,
        caller: Caller,
        spool: Spool,
        part: FileStart,
        wanted: Wanted,
        accounts: Mapping[str, tuple[str, ...]],
    ) -> Upload:
        """Commit the intent, then start the fan-out."""
        assert wanted.purpose is not None
        facts = FileFacts(part.filename, part.mime_type, wanted.purpose, wanted.expires_after_seconds)
        sinks = [
            Sink(gateway.deployments.accounts[account], ids.new_replica_id(), names)
            for account, names in accounts.items()
        ]
        file_id = ids.new_file_id()
        now = datetime.now(UTC)
        file = {
            "id": file_id,
            "team_id": caller.team_id,
            "created_by": caller.key_id,
            "filename": part.filename,
            "purpose": wanted.purpose,
            "mime_type": part.mime_type,
            # Almost always true; the upload's end sets what was counted.
            "bytes": spool.size_bytes if spool.finished else part.size_bytes,
            "upload_policy": gateway.options.upload_policy,
            "created_at": now,
            "expires_at": _expires_at(now, wanted),
        }
        due_at = now + timedelta(seconds=LEASE_SECONDS)
        replicas = [(sink.replica_id, sink.account.name, sink.account.provider_name) for sink in sinks]
        targets = [(name, sink.account.name) for sink in sinks for name in sink.model_names]
        await queries.insert_intent(gateway.database, file, due_at, replicas, targets)
        return cls(gateway, file_id, spool, Fanout(spool, facts, sinks, part.size_bytes))

    async def finish(self) -> tuple[Row, list[Outcome]]:
        """Wait for the providers and record what they did. Raises UploadFailed when the policy is not met."""
        policy = self._gateway.options.upload_policy
        outcomes = await self._fanout.settled(stop_at_first_failure=policy == "all")
        stored = [outcome for outcome in outcomes if outcome.stored]
        if not stored or (policy == "all" and len(stored) < len(outcomes)):
            raise UploadFailed.of(outcomes)
        row = await self._record(outcomes)
        self._renewing.cancel()
        for outcome in outcomes:
            REPLICAS.labels(outcome.sink.account.provider_name, "ok" if outcome.stored else "failed").inc()
        return row, outcomes

    async def give_up(self) -> None:
        """Cut the fan-out off and have everything that was stored deleted; the worker sees to it."""
        self._renewing.cancel()
        outcomes = await self._fanout.abandoned()
        for outcome in outcomes:
            if outcome.error is not None:
                REPLICAS.labels(outcome.sink.account.provider_name, "failed").inc()
        async with self._gateway.database.write() as writer:
            for outcome in outcomes:
                await replica_queries.record_replica(
                    writer, outcome.sink.replica_id, replica_values(outcome, discard=True)
                )
            await queries.finish_file(writer, self._file_id, {"state": "failed"})
            await replica_queries.forget_nothing_stored(writer, self._file_id)

    async def _record(self, outcomes: list[Outcome]) -> Row:
        row = await queries.record_upload(
            self._gateway.database,
            self._file_id,
            self._spool.size_bytes,
            self._spool.sha256,
            {outcome.sink.replica_id: replica_values(outcome) for outcome in outcomes},
        )
        if row is None:
            # Giving up then marks what was stored.
            raise Overloaded("the upload took so long that it was given up", retry_after_seconds=1)
        return row

    async def _renew_lease(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            try:
                async with self._gateway.database.write() as writer:
                    await replica_queries.renew_lease(writer, self._file_id, LEASE_SECONDS)
            except Overloaded:
                continue


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect:
        raise BadRequest("the client left before the upload was complete", code="client_disconnected") from None


def _typed(part: FileStart, head: bytes) -> FileStart:
    if part.mime_type.partition(";")[0].strip() != UNTYPED:
        return part
    found = mimetypes.guess_type(part.filename)[0] or _sniffed(head) or UNTYPED
    return FileStart(part.filename, found, part.size_bytes)


def _sniffed(head: bytes) -> str | None:
    try:
        return puremagic.from_string(head[:2048], mime=True) or None
    except (puremagic.PureError, ValueError):
        return None


def _expires_at(now: datetime, wanted: Wanted) -> datetime | None:
    seconds = wanted.expires_after_seconds
    if seconds is None and wanted.purpose == "batch":
        seconds = BATCH_EXPIRY_SECONDS
    return None if seconds is None else now + timedelta(seconds=seconds)
