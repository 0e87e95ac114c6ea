"""The one file that knows the HTTP client.

One `aiohttp.ClientSession` carries everything; ordinary calls go through an `httpx.AsyncClient` on top of it, chats
and upload bodies straight to the session, which measured 2 to 2.5 times the requests a second (design §3).
"""

from __future__ import annotations

import email.utils
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp
import httpx
import orjson
from httpx_aiohttp import AiohttpTransport
from yarl import URL

from app.errors import (
    Missing,
    ProviderError,
    ProviderTooLarge,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from app.providers.protocol import FileContent, FileUpload, UploadInterrupted

# Status, headers and content of a refusal → our error.
ErrorOf = Callable[[int, Mapping[str, str], bytes], ProviderError]

CONNECT_SECONDS = 10.0
CALL_READ_SECONDS = 60.0
# OpenAI's own clients wait this long between two reads (openai-python 3.52, DEFAULT_TIMEOUT).
CHAT_READ_SECONDS = 600.0
READ_CHUNK_BYTES = 256 * 1024
# A proxy on the way (Cloudflare's from 520 on) that has no answer from the provider, which may have done as asked.
PROXY_STATUSES = frozenset({502, 504, *range(520, 528)})


@dataclass(frozen=True, slots=True)
class Http:
    """The connections to all providers, shared by all accounts of this process."""

    session: aiohttp.ClientSession
    client: httpx.AsyncClient

    async def call(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> httpx.Response:
        """An ordinary call, answered whole. Raises Unavailable when there is no answer."""
        try:
            return await self.client.request(method, str(url), headers=dict(headers), content=body)
        except (httpx.HTTPError, aiohttp.ClientError, TimeoutError, OSError) as failure:
            raise Unavailable(f"no answer from the provider ({type(failure).__name__})") from failure

    async def accepted(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str],
        error_of: ErrorOf,
        body: bytes | None = None,
    ) -> httpx.Response:
        """An ordinary call that the provider accepts. Raises what `error_of` makes of a refusal."""
        answer = await self.call(method, url, headers=headers, body=body)
        if answer.status_code >= 300:
            raise error_of(answer.status_code, answer.headers, answer.content)
        return answer

    async def json(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str],
        error_of: ErrorOf,
    ) -> dict[str, Any]:
        """The JSON object with which an ordinary call is answered. Raises what `error_of` makes of a refusal."""
        return json_object((await self.accepted(method, url, headers=headers, error_of=error_of)).content)

    @asynccontextmanager
    async def content(self, url: URL, *, headers: Mapping[str, str], error_of: ErrorOf) -> AsyncIterator[FileContent]:
        """A file's bytes as they arrive. Raises what `error_of` makes of a refusal."""
        async with self.open("GET", url, headers=headers) as answer:
            if answer.status >= 300:
                raise error_of(answer.status, answer.headers, await answer.read())
            yield FileContent(answer.content.iter_chunked(READ_CHUNK_BYTES), answer.content_length)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] | None = None,
        read_seconds: float | None = CALL_READ_SECONDS,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A call whose body or answer is streamed. Raises Unavailable when it breaks.

        The answer's connection is kept for the next call only if it was read to its end.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=read_seconds)
        with connection_errors():
            async with self.session.request(
                method, url, headers=headers, data=body, timeout=timeout, allow_redirects=False
            ) as response:
                yield response


@asynccontextmanager
async def open_http() -> AsyncIterator[Http]:
    """The process's connections, closed on leaving."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    async with (
        aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"accept-encoding": "identity", "user-agent": "filemux"},
            read_bufsize=READ_CHUNK_BYTES,
        ) as session,
        httpx.AsyncClient(
            transport=AiohttpTransport(client=session),
            timeout=httpx.Timeout(CALL_READ_SECONDS, connect=CONNECT_SECONDS),
            headers={"accept-encoding": "identity", "user-agent": "filemux"},
        ) as client,
    ):
        yield Http(session, client)


@contextmanager
def connection_errors() -> Iterator[None]:
    """aiohttp's exceptions → Unavailable, which says whether the request may have reached the provider."""
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as failure:
        raise Unavailable(f"the provider cannot be reached ({type(failure).__name__})") from failure
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as failure:
        if isinstance(failure.__cause__, UploadInterrupted):
            # aiohttp wraps what the body itself raised.
            raise failure.__cause__ from None
        reason = f"the connection to the provider broke ({type(failure).__name__})"
        raise Unavailable(reason, outcome_unknown=True) from failure


def kind_of_status(status: int) -> type[ProviderError]:
    """The class that a refusal's status stands for (wire.md §0.5)."""
    match status:
        case 401 | 403:
            return Unauthorized
        case 404:
            return Missing
        case 413:
            return ProviderTooLarge
        case 405 | 501:
            return Unsupported
        case 408 | 409 | 425 | 429:
            return RateLimited
    return Rejected if 400 <= status < 500 else Unavailable


def plain_error(
    status: int, message: str, *, wait: float | None = None, param: str | None = None, code: str | None = None
) -> ProviderError:
    """What a status means where no documented code says more (wire.md §0.5).

    `wait` is the patience that the provider asked for, `code` its own word for what is wrong with a request.
    """
    kind = kind_of_status(status)
    if kind is Unauthorized:
        # The vendor's text may quote our key.
        return Unauthorized(f"the provider refused the gateway's credentials ({status})")
    if kind is Unavailable:
        # What is wrong inside the provider is nobody's business but its own.
        message = f"the provider answered {status}"
    patience = wait if kind.retryable else None
    return kind(message, retry_after_seconds=patience, param=param, code=code if kind is Rejected else None)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """What `retry-after-ms` or `retry-after` (seconds or a date, RFC 9110 §10.2.3) asks for."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        if not (text := headers.get("retry-after")):
            return None
        if text.strip().isdigit():
            return float(text)
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


@contextmanager
def after_acceptance() -> Iterator[None]:
    """Reads what an upload was answered with: it was accepted, so there may be a file, whatever the answer says."""
    try:
        yield
    except Unavailable as failure:
        failure.outcome_unknown = True
        raise


async def send_multipart(
    http: Http, url: URL, headers: Mapping[str, str], fields: Mapping[str, str], upload: FileUpload, error_of: ErrorOf
) -> bytes:
    """POST a file as multipart/form-data; see send_upload."""
    boundary = secrets.token_hex(16)
    before, after = multipart_frame(boundary, fields, upload.filename, upload.mime_type)
    sent = {**headers, "content-type": f"multipart/form-data; boundary={boundary}"}
    return await send_upload(http, url, sent, upload, error_of, before=before, after=after)


async def send_upload(
    http: Http,
    url: URL,
    headers: Mapping[str, str],
    upload: FileUpload,
    error_of: ErrorOf,
    *,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """POST a file's bytes in their frame, streamed; the answer's content. Raises what `error_of` makes of a refusal."""
    sent = dict(headers)
    if upload.size_bytes is not None:
        sent["content-length"] = str(len(before) + upload.size_bytes + len(after))
    body = _Body(before, upload, after)
    try:
        # How long the answer may take is the business of app.providers.wrappers.Impatient.
        async with http.open("POST", url, headers=sent, body=aiter(body), read_seconds=None) as answer:
            content = await answer.read()
            if answer.status >= 300:
                failure = error_of(answer.status, answer.headers, content)
                failure.outcome_unknown = answer.status in PROXY_STATUSES
                raise failure
            return content
    except Unavailable as failure:
        # A body that was cut off made no file: its promised length, or its last chunk, never came.
        failure.outcome_unknown = failure.outcome_unknown and body.complete
        raise


class _Body:
    """A file's bytes in their frame as they are sent; `complete` once the last one was handed over."""

    def __init__(self, before: bytes, upload: FileUpload, after: bytes) -> None:
        self.complete = False
        self._before, self._upload, self._after = before, upload, after

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._before
        held = b""
        async for chunk in self._upload.open():
            if held:
                yield held
            held = chunk
        # A provider that knows the length answers to the last byte, before it is known here that there is no other.
        self.complete = True
        yield held + self._after


def json_object(content: bytes) -> dict[str, Any]:
    """An answer's JSON object. Raises Unavailable for anything else."""
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise Unavailable("the provider's answer is not a JSON object")
    return answer


def base_url(text: str) -> str:
    """An http(s) URL without its last slash. Raises ValueError."""
    if not text.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return text.rstrip("/")


def unix_seconds(moment: Any) -> int | None:
    """An RFC 3339 time as Unix seconds; None when there is none."""
    return int(datetime.fromisoformat(moment).timestamp()) if isinstance(moment, str) and moment else None


def multipart_frame(boundary: str, fields: Mapping[str, str], filename: str, mime_type: str) -> tuple[bytes, bytes]:
    """What stands before and after a file's bytes in a multipart/form-data body (RFC 7578), the file last.

    httpx's `files=` does not stream an asynchronous source, so the frame is written by hand.
    """
    quoted = filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n'
        f"Content-Type: {mime_type}\r\n\r\n"
    )
    return "".join(parts).encode(), f"\r\n--{boundary}--\r\n".encode()
