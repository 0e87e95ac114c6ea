"""Uploads that are not as the SDK sends them: by hand, malformed, cut off."""

import asyncio
import subprocess
import sys
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from starlette.requests import Request

from app.sandbox.form import FileTooLarge, receive_form
from app.sandbox.store import Store
from tests.sandbox.conftest import Sandbox, Switchboard

_PURPOSE = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
_FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello\r\n'
_END = b"--b--\r\n"


def _field(name: str, value: str) -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


async def _post(http: httpx.AsyncClient, body: bytes, content_type: str = "multipart/form-data; boundary=b"):
    headers = {"authorization": "Bearer sk-one", "content-type": content_type}
    return await http.post("/openai/v1/files", content=body, headers=headers)


@pytest.mark.parametrize("body", [_PURPOSE + _FILE + _END, _FILE + _PURPOSE + _END])
async def test_parts_come_in_any_order(http: httpx.AsyncClient, switchboard: Switchboard, body):
    answer = await _post(http, body)
    assert answer.json()["bytes"] == 5
    assert [file["filename"] for file in await switchboard.files()] == ["a.txt"]


async def test_a_chunked_body_is_read_to_its_end(http: httpx.AsyncClient):
    async def pieces():
        for byte in _PURPOSE + _FILE + _END:
            yield bytes([byte])

    assert (await _post(http, pieces())).json()["bytes"] == 5


async def test_names_are_utf8_and_quotes_escaped(http: httpx.AsyncClient):
    part = '--b\r\nContent-Disposition: form-data; name="file"; filename="ä %22b%22.pdf"\r\n\r\nx\r\n'
    assert (await _post(http, _PURPOSE + part.encode() + _END)).json()["filename"] == 'ä "b".pdf'


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (_PURPOSE + _END, "file"),
        (_FILE + _END, "purpose"),
        (_END, "file"),
        (_PURPOSE + _FILE + _FILE + _END, "file"),
        (_PURPOSE + _PURPOSE + _FILE + _END, "purpose"),
        (_field("purpose", "anything") + _FILE + _END, "purpose"),
        (_PURPOSE + _field("colour", "red") + _FILE + _END, "colour"),
        (_PURPOSE + _field("file", "not a file") + _END, "file"),
        (_PURPOSE + _FILE.replace(b"hello", b"") + _END, "file"),
        (_FILE.replace(b'"file"', b'"purpose"') + _FILE + _END, "purpose"),
        (_field("purpose", "x" * 70_000) + _FILE + _END, "purpose"),
        (_PURPOSE.replace(b"batch", b"\xff") + _FILE + _END, "purpose"),
        (_PURPOSE + _FILE, None),
        (_PURPOSE + _FILE[:-10], None),
        (_PURPOSE + _FILE.replace(b"Content-Disposition", b"Nonsense") + _END, None),
        (b"hello", None),
        (b"", None),
    ],
)
async def test_a_wrong_form_is_refused_and_stores_nothing(
    http: httpx.AsyncClient, switchboard: Switchboard, sandbox: Sandbox, body, param
):
    answer = await _post(http, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert await switchboard.files() == []
    assert sandbox.blobs() == []


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data", "text/plain; boundary=b"])
async def test_a_form_says_that_it_is_one(http: httpx.AsyncClient, content_type):
    assert (await _post(http, _PURPOSE + _FILE + _END, content_type)).status_code == 400


async def _raw(sandbox: Sandbox, content_length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(sandbox.base_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(
        b"POST /openai/v1/files HTTP/1.1\r\nHost: sandbox\r\nAuthorization: Bearer sk-one\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n" % content_length
    )
    return reader, writer


async def test_a_file_that_is_too_large_by_its_length_is_refused_at_once(sandbox: Sandbox):
    reader, writer = await _raw(sandbox, 9 * 1024**3)
    assert (await reader.readline()).split()[1] == b"413"
    writer.close()
    await writer.wait_closed()


async def test_the_limit_can_be_lifted():
    with subprocess.Popen(
        [sys.executable, "-m", "app.sandbox", "--port", "0", "--max-file-bytes", "4"], stdout=subprocess.PIPE, text=True
    ) as process:
        url = f"{process.stdout.readline().split()[-1]}/openai/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="sk-one", max_retries=0) as client:
            await client.files.create(file=b"four", purpose="batch")
            with pytest.raises(openai.APIStatusError) as refused:
                await client.files.create(file=b"five!", purpose="batch")
        assert refused.value.status_code == 413
        process.terminate()


async def test_a_file_that_turns_out_too_large_is_refused():
    store = Store()
    body = _PURPOSE + _FILE + _END

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    request = Request({"type": "http", "headers": headers}, receive)
    with pytest.raises(FileTooLarge):
        await receive_form(request, store.incoming, max_file_bytes=4)
    store.close()


async def test_a_client_that_leaves_midway_leaves_nothing(sandbox: Sandbox, switchboard: Switchboard):
    _reader, writer = await _raw(sandbox, 10_000_000)
    writer.write(_PURPOSE + _FILE[:-2] + b"x" * 3_000_000)
    await writer.drain()
    async with asyncio.timeout(120):
        while not sandbox.blobs():  # the sandbox has begun to store it
            await switchboard.requests()
    writer.transport.abort()
    async with asyncio.timeout(120):
        while sandbox.blobs():
            await switchboard.requests()
    assert await switchboard.files() == []
    assert await switchboard.requests() == {"openai.upload_file": 1}
