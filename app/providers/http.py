"""The one file that knows the HTTP client.

One `aiohttp.ClientSession` carries everything; ordinary calls go through an `httpx.AsyncClient` on top of it, chats
and upload bodies straight to the session, which measured 2 to 2.5 times the requests a second (design §3).
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from yarl import URL

from app.errors import Unavailable
from app.providers.protocol import UploadInterrupted

CONNECT_SECONDS = 10.0
CALL_READ_SECONDS = 60.0
# OpenAI's own clients wait this long between two reads (openai-python 3.52, DEFAULT_TIMEOUT).
CHAT_READ_SECONDS = 600.0
READ_CHUNK_BYTES = 256 * 1024


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
    ) -> httpx.Response:
        """An ordinary call, answered whole. Raises Unavailable when there is no answer."""
        try:
            return await self.client.request(method, str(url), headers=dict(headers))
        except (httpx.HTTPError, aiohttp.ClientError, TimeoutError, OSError) as failure:
            raise Unavailable(f"no answer from the provider ({type(failure).__name__})") from failure

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] | None = None,
        read_seconds: float = CHAT_READ_SECONDS,
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
