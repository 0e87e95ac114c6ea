"""GET /files/{id}/content: a file's bytes, from where we keep them, else from a replica that is given back."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.deployments import Account
from app.errors import BadRequest, GatewayError, NoSuchFile, ProviderError, RangeNotSatisfiable
from app.files.direct import address
from app.files.mappings import FileMapping
from app.files.multipart import UNTYPED
from app.files.read import existing_file
from app.files.sources import SourceUnreadable
from app.files.stores import Span
from app.gateway import Gateway, caller_of, gateway_of

log = structlog.get_logger("filemux.files")

Opened = TypeVar("Opened")

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


async def endpoint(request: Request) -> Response:
    """GET /files/{id}/content; a kept file also by range and if it has changed (RFC 9110 §13, §14)."""
    gateway, caller = gateway_of(request), await caller_of(request)
    file_id = address.asked_id(request)
    if direct := await address.direct_file(gateway, caller, request, file_id):
        with direct.asked_for():
            given, stack = await _entered(direct.open())
        headers = {"content-type": UNTYPED, "content-disposition": "attachment"}
        if given.size_bytes is not None:
            headers["content-length"] = str(given.size_bytes)
        return StreamingResponse(_closing(given.chunks, stack), headers=headers)
    row = await existing_file(gateway, caller, file_id)
    file = await gateway.mappings.find(caller.reach, row["id"])
    if file is None:
        raise NoSuchFile(row["id"])
    # What the bytes of an imported file are, only its id tells.
    etag = f'"{row["sha256"] or row["id"]}"'
    headers = {
        # As a header of its own: Starlette would add a charset that nobody knows.
        "content-type": file.mime_type,
        "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename)}",
        "etag": etag,
    }
    known = request.headers.get("if-none-match", "")
    if etag in known or known == "*":
        return Response(status_code=304, headers=headers)
    kept = gateway.sources.holds(file.source)
    asked = _span(request.headers, etag, file.size_bytes) if kept else None
    content, stack = await _entered(open_content(gateway, file, asked))
    span = content.span
    if file.sha256:
        headers["content-length"] = str(span.size_bytes if span else file.size_bytes)
    if kept:
        headers["accept-ranges"] = "bytes"
    if span:
        headers["content-range"] = f"bytes {span.first}-{span.last}/{file.size_bytes}"
    return StreamingResponse(_closing(content.chunks, stack), 206 if span else 200, headers)


@dataclass(frozen=True, slots=True)
class Content:
    """A file's bytes as they arrive; all of them, or those of `span`."""

    chunks: AsyncIterator[bytes]
    span: Span | None = None


@asynccontextmanager
async def open_content(gateway: Gateway, file: FileMapping, span: Span | None = None) -> AsyncIterator[Content]:
    """Open a file's bytes. Only what we keep is read by `span`; a replica is given back whole (RFC 9110 §14.2).

    Raises BadRequest when nobody gives them back, else the error of the last place that was tried.
    """
    async with AsyncExitStack() as stack:
        yield await _opened(gateway, file, span, stack)


def is_readable(gateway: Gateway, file: FileMapping) -> bool:
    """Whether there is a place from which the bytes can be read."""
    return gateway.sources.holds(file.source) or bool(_readable(gateway, file))


async def _opened(gateway: Gateway, file: FileMapping, span: Span | None, stack: AsyncExitStack) -> Content:
    failures: list[GatewayError] = []
    if gateway.sources.holds(file.source):
        try:
            kept = await stack.enter_async_context(gateway.sources.open(file, span))
            return Content(kept.chunks, span)
        except SourceUnreadable as failure:
            failures.append(failure)
    for provider_file_id, account in _readable(gateway, file):
        try:
            given_back = await stack.enter_async_context(account.provider.read_file(provider_file_id))
            return Content(given_back.chunks)
        except ProviderError as failure:
            log.warning("a replica could not be read", account=account.name, error=type(failure).__name__)
            failures.append(failure)
    if failures:
        raise failures[-1]
    raise _not_readable(gateway, file)


def _not_readable(gateway: Gateway, file: FileMapping) -> BadRequest:
    """The error that says why nobody gives the bytes back."""
    accounts = (gateway.deployments.accounts.get(name) for name in file.replicas)
    providers = ", ".join(sorted({account.provider_name for account in accounts if account})) or "no provider"
    return BadRequest(
        f"the content of this file cannot be read back: it is at {providers}, which does not return files of purpose "
        f"{file.purpose!r}, and the gateway keeps no copy (filemux.sources)",
        param="id",
        code="content_not_available",
    )


def _readable(gateway: Gateway, file: FileMapping) -> list[tuple[str, Account]]:
    found = []
    for name in file.replicas:
        account, provider_file_id = gateway.deployments.accounts.get(name), file.at(name)
        if account and provider_file_id and file.purpose in account.provider.capabilities.readable:
            found.append((provider_file_id, account))
    return found


def _span(headers: Mapping[str, str], etag: str, size_bytes: int) -> Span | None:
    """The range that is asked for; None for the whole file, as for several ranges, which nobody has to serve.

    Raises RangeNotSatisfiable.
    """
    asked = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if asked is None or asked[0] == "bytes=-" or headers.get("if-range", etag) != etag:
        return None
    if not asked[1]:
        first, last = max(0, size_bytes - int(asked[2])), size_bytes - 1
    else:
        first, last = int(asked[1]), min(int(asked[2] or size_bytes - 1), size_bytes - 1)
        if asked[2] and int(asked[2]) < first:
            return None
    if first >= size_bytes:
        raise RangeNotSatisfiable(f"the file has {size_bytes} bytes; the range begins behind them", size_bytes)
    return Span(first, last)


async def _entered(opening: AbstractAsyncContextManager[Opened]) -> tuple[Opened, AsyncExitStack]:
    """What is opened, for longer than the caller runs, and what closes it."""
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(opening)
        return opened, stack.pop_all()


async def _closing(chunks: AsyncIterator[bytes], stack: AsyncExitStack) -> AsyncIterator[bytes]:
    async with stack:
        async for chunk in chunks:
            yield chunk
