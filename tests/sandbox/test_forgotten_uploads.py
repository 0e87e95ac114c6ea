"""DELETE /_sandbox/state ends the uploads that are under way, whichever way they go."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.sandbox.conftest import Sandbox, Switchboard
from tests.sandbox.gemini_client import KEY
from tests.sandbox.s3_client import BUCKET, signed

# Sends the first piece of an upload (0) or the second one (1).
Send = Callable[[int, bytes | AsyncIterator[bytes]], Awaitable[httpx.Response]]

_PIECE = bytes(2 * 1024**2)
_LENGTH = {"content-length": str(len(_PIECE))}
_TOKEN = {"authorization": "Bearer tok"}


async def _gemini_session(http: httpx.AsyncClient) -> Send:
    start = {"x-goog-upload-protocol": "resumable", "x-goog-upload-command": "start"}
    started = await http.post("/gemini/upload/v1beta/files", headers=KEY | start)
    url = started.headers["x-goog-upload-url"]

    def send(number, content):
        headers = {"x-goog-upload-command": "upload", "x-goog-upload-offset": str(number * len(_PIECE))}
        return http.post(url, content=content, headers=headers | _LENGTH)

    return send


async def _gcs_session(http: httpx.AsyncClient) -> Send:
    path = f"/gcs/upload/storage/v1/b/{BUCKET}/o"
    started = await http.post(path, params={"uploadType": "resumable", "name": "a"}, headers=_TOKEN)
    url = started.headers["location"]

    def send(number, content):
        first = number * len(_PIECE)
        content_range = f"bytes {first}-{first + len(_PIECE) - 1}/*"
        return http.put(url, content=content, headers={"content-range": content_range} | _LENGTH)

    return send


async def _gcs_parts(http: httpx.AsyncClient) -> Send:
    return await _parts(http, f"/gcs/{BUCKET}/a", lambda method, url: _TOKEN)


async def _s3_parts(http: httpx.AsyncClient) -> Send:
    unsigned = {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
    return await _parts(http, f"/s3/{BUCKET}/a", lambda method, url: signed(method, url, headers=unsigned))


async def _parts(http: httpx.AsyncClient, path: str, headers_of: Callable[[str, str], dict[str, str]]) -> Send:
    start = str(http.base_url.join(f"{path}?uploads"))
    started = await http.post(start, headers=headers_of("POST", start))
    upload_id = started.text.partition("<UploadId>")[2].partition("</UploadId>")[0]

    def send(number, content):
        url = str(http.base_url.join(f"{path}?partNumber={number + 1}&uploadId={upload_id}"))
        return http.put(url, content=content, headers=headers_of("PUT", url) | _LENGTH)

    return send


starts = pytest.mark.parametrize("start", [_gemini_session, _gcs_session, _gcs_parts, _s3_parts])


def _open_blobs(sandbox: Sandbox) -> list[str]:
    """Those that a process still holds open, whether or not they are in the directory."""
    links = []
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            links.append(str(descriptor.readlink()))
    return [link for link in links if link.startswith(str(sandbox.temporary))]


async def _assert_nothing_is_left(sandbox: Sandbox, switchboard: Switchboard) -> None:
    assert sandbox.blobs() == [] and _open_blobs(sandbox) == []
    assert (await switchboard.files(), await switchboard.uploads()) == ([], 0)


@starts
async def test_an_upload_under_way_is_forgotten(http, sandbox: Sandbox, switchboard: Switchboard, start):
    send = await start(http)
    assert not (await send(0, _PIECE)).is_error
    assert len(sandbox.blobs()) == 1
    assert (await switchboard.files(), await switchboard.uploads()) == ([], 1)
    await switchboard.forget()
    await _assert_nothing_is_left(sandbox, switchboard)
    assert await switchboard.requests() == {}
    assert (await send(1, _PIECE)).status_code == 404
    await _assert_nothing_is_left(sandbox, switchboard)


@starts
async def test_bytes_that_come_meanwhile_are_lost(http, sandbox: Sandbox, switchboard: Switchboard, start):
    send, is_forgotten = await start(http), asyncio.Event()

    async def content() -> AsyncIterator[bytes]:
        yield _PIECE[1000:]
        await is_forgotten.wait()
        yield _PIECE[:1000]

    sending = asyncio.create_task(send(0, content()))
    async with asyncio.timeout(120):
        while not any(path.stat().st_size for path in sandbox.blobs()):  # the sandbox has begun to store them
            await switchboard.requests()
    await switchboard.forget()
    is_forgotten.set()
    assert (await sending).status_code == 404
    await _assert_nothing_is_left(sandbox, switchboard)
