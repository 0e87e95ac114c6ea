"""POST /files: the body is parsed as it comes, spooled, and fanned out to every target's account at once, or sent to
the one account that is asked for."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress
from typing import Any

import puremagic
from prometheus_client import Counter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.access.authenticate import Caller
from app.access.bodies import answer
from app.access.idempotency import REPLAYED_HEADER, KeyTaken, key_of
from app.db.session import Row
from app.errors import BadRequest, GatewayError, TooLarge
from app.files.direct.upload import DirectUpload, direct_account
from app.files.fanout import Outcome
from app.files.multipart import UNTYPED, Field, FileEnd, FileStart, form_events
from app.files.outcomes import replica_values
from app.files.read import shown
from app.files.repeated import claim_of, first_file, replayed
from app.files.spool import Spool
from app.files.targets import HalfExpiry, Wanted, check_size, target_accounts, wanted_from
from app.files.transfer import Transfer
from app.gateway import Gateway, caller_of, gateway_of
from app.hangup import EndedByHangUp

# Fields that follow the file make it seem larger by their own size while it is being received.
LATE_FIELDS_BYTES = 64 * 1024

UPLOADS = Counter("filemux_uploads", "Uploads, by outcome", ["outcome"])
UPLOAD_BYTES = Counter("filemux_upload_bytes", "Bytes of files received")


async def endpoint(request: Request) -> Response:
    """POST /files."""
    gateway, caller = gateway_of(request), await caller_of(request)
    caller.require("member", "uploading a file")
    try:
        response = await _Reception(gateway, caller, request).answered()
    except GatewayError as failure:
        UPLOADS.labels(failure.code or failure.type).inc()
        raise
    UPLOADS.labels("replayed" if REPLAYED_HEADER in response.headers else "ok").inc()
    return response


async def upload_file(
    gateway: Gateway, caller: Caller, part: FileStart, chunks: AsyncIterator[bytes], wanted: Wanted
) -> tuple[Row, list[Outcome]]:
    """The same for a file that is at hand, as at the command line."""
    accounts = _accounts(gateway, caller, wanted)
    async with Spool(gateway.spool_dir) as spool:
        transfer = await Transfer.begin(gateway, caller, spool, part, wanted, accounts)
        try:
            async for chunk in chunks:
                await spool.write(chunk)
            await spool.finish()
            return await transfer.finish()
        except BaseException:
            await asyncio.shield(transfer.give_up())
            raise


def _accounts(gateway: Gateway, caller: Caller, wanted: Wanted) -> dict[str, tuple[str, ...]]:
    defaults = gateway.options.default_target_model_names
    keeps_sources = gateway.sources.store is not None
    return target_accounts(wanted, caller, gateway.deployments, defaults, keeps_sources=keeps_sources)


def _target(outcome: Outcome) -> dict[str, Any]:
    state = replica_values(outcome)["state"]
    return {
        "model_names": sorted(outcome.sink.model_names),
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
        self._idempotency_key = key_of(request.headers)
        self._part: FileStart | None = None
        self._head = b""
        self._transfer: Transfer | DirectUpload | None = None

    async def answered(self) -> Response:
        """The answer, once all is stored and recorded."""
        # Whatever is wrong with the query or the headers is known before the first byte.
        self._wanted()
        async with Spool(self._gateway.spool_dir) as spool:
            try:
                await self._read(spool)
                return await self._ended(spool)
            except BaseException:
                if self._transfer is not None:
                    await asyncio.shield(self._transfer.give_up())
                raise

    async def _ended(self, spool: Spool) -> Response:
        """This upload's end; or that of the first one with its idempotency key, unless that one fails."""
        receive = self._request.receive
        async with EndedByHangUp(receive):
            while self._transfer is None:
                try:
                    self._transfer = await self._begin(spool, self._wanted())
                except KeyTaken as taken:
                    if first := await first_file(self._gateway, taken.claim, spool):
                        return await replayed(self._gateway, first)
        # Who sends a key will ask again, and is to find then what is on its way now.
        async with EndedByHangUp(receive) if self._idempotency_key is None else nullcontext():
            if isinstance(self._transfer, DirectUpload):
                return answer(await self._transfer.finish())
            file, outcomes = await self._transfer.finish()
        return answer(shown(file, [_target(outcome) for outcome in outcomes]))

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
        if isinstance(self._transfer, Transfer):
            await self._transfer.sized(spool.size_bytes)
        await spool.finish()

    def _file_starts(self, part: FileStart) -> None:
        if self._part is not None:
            raise BadRequest("the form has two files; send one for each request", param="file", code="two_files")
        self._part = part
        if part.size_bytes is not None:
            self._check_limit(part.size_bytes - LATE_FIELDS_BYTES)

    async def _write(self, spool: Spool, chunk: bytes) -> None:
        self._check_limit(spool.size_bytes + len(chunk))
        await spool.write(chunk)
        UPLOAD_BYTES.inc(len(chunk))
        if self._transfer is None and spool.size_bytes == len(chunk):
            self._head = chunk
            # Whose key is taken is answered when all of it is there to be compared.
            with suppress(HalfExpiry, KeyTaken):
                wanted = self._wanted()
                if wanted.complete:
                    self._transfer = await self._begin(spool, wanted)

    async def _start_over(self) -> None:
        """A field that follows the file may change what is wanted: what was begun too early is taken back."""
        if self._transfer is not None:
            transfer, self._transfer = self._transfer, None
            await asyncio.shield(transfer.give_up())

    def _wanted(self) -> Wanted:
        request = self._request
        in_path: str | None = request.scope["state"].get("provider")
        return wanted_from(self._fields, request.query_params.multi_items(), request.headers, in_path)

    def _check_limit(self, size_bytes: int) -> None:
        limit = self._gateway.options.max_file_bytes
        if size_bytes > limit:
            raise TooLarge(f"the file is over the limit of {limit} bytes", param="file")

    async def _begin(self, spool: Spool, wanted: Wanted) -> Transfer | DirectUpload:
        if wanted.purpose is None:
            raise BadRequest("the form has no `purpose`, such as user_data", param="purpose", code="missing_purpose")
        assert self._part is not None
        gateway, caller = self._gateway, self._caller
        account = direct_account(gateway, caller, wanted) if wanted.is_direct else None
        name = wanted.model or wanted.provider or ""
        accounts = {account.name: (name,)} if account else _accounts(gateway, caller, wanted)
        seeming_bytes = self._part.size_bytes or 0
        least_bytes = spool.size_bytes if spool.finished else seeming_bytes - LATE_FIELDS_BYTES
        check_size(least_bytes, accounts, gateway.deployments)
        # The first bytes tell the type where the client does not.
        part = _typed(self._part, self._head)
        if account is not None:
            self._check_no_key()
            return await DirectUpload.begin(gateway, caller, spool, part, wanted, account)
        claim = claim_of(caller, self._idempotency_key, self._part, wanted)
        return await Transfer.begin(gateway, caller, spool, part, wanted, accounts, claim)

    def _check_no_key(self) -> None:
        if self._idempotency_key is not None:
            reason = "an upload to one account is written down nowhere, so it takes no Idempotency-Key"
            raise BadRequest(reason, param="idempotency-key", code="idempotency_key_not_taken")


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
