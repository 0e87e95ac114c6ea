"""Gemini's resumable uploads, request by request."""

import hashlib

import httpx
import pytest
from google.genai import errors

from tests.sandbox.conftest import Sandbox, Switchboard
from tests.sandbox.gemini_client import KEY, assert_refused, open_client, upload

_START = {"x-goog-upload-protocol": "resumable", "x-goog-upload-command": "start"}


@pytest.fixture
def client(sandbox: Sandbox):
    with open_client(sandbox.base_url) as client:
        yield client


async def _start(http: httpx.AsyncClient, announced_bytes: int | None = None, **file) -> str:
    """The address of a new session."""
    length = {} if announced_bytes is None else {"x-goog-upload-header-content-length": str(announced_bytes)}
    headers = {**KEY, **_START, **length}
    answer = await http.post("/gemini/upload/v1beta/files", headers=headers, json={"file": file})
    assert (answer.status_code, answer.headers["x-goog-upload-status"]) == (200, "active")
    return answer.headers["x-goog-upload-url"]


async def _send(http: httpx.AsyncClient, session: str, command: str, data: bytes = b"", offset: int | None = None):
    headers = {"x-goog-upload-command": command}
    if offset is not None:
        headers["x-goog-upload-offset"] = str(offset)
    return await http.post(session, headers=headers, content=data)


async def test_two_uploads_race_for_a_name(http: httpx.AsyncClient, switchboard: Switchboard):
    sessions = [await _start(http, name="files/a") for _ in range(2)]
    first, second = [await _send(http, session, "upload, finalize", b"x", 0) for session in sessions]
    assert first.status_code == 200
    assert_refused(second)
    assert len(await switchboard.files()) == 1


@pytest.mark.parametrize("name", ["a-1", "files/-a", "files/a-", "files/A", "files/a_b", "files/" + "a" * 41, "files/"])
async def test_a_bad_name_is_refused(http: httpx.AsyncClient, name):
    body = {"file": {"name": name}}
    assert_refused(await http.post("/gemini/upload/v1/files", headers=KEY | _START, json=body))


async def test_the_length_may_be_unknown(http: httpx.AsyncClient, switchboard: Switchboard):
    session = await _start(http, name="files/long", mimeType="text/plain", displayName="long.txt")
    for offset in (0, 3, 6):
        answer = await _send(http, session, "upload", b"abc", offset)
        assert answer.headers["x-goog-upload-status"] == "active"
    answer = await _send(http, session, "finalize")
    assert answer.headers["x-goog-upload-status"] == "final"
    file = answer.json()["file"]
    assert (file["name"], file["sizeBytes"], file["mimeType"]) == ("files/long", "9", "text/plain")
    assert await switchboard.uploads() == 0
    (stored,) = await switchboard.files()
    assert stored["sha256"] == hashlib.sha256(b"abcabcabc").hexdigest()


async def test_an_offset_must_fit(http: httpx.AsyncClient):
    session = await _start(http, 6)
    await _send(http, session, "upload", b"abc", 0)
    for offset in (None, 0, 2, 4):
        answer = await _send(http, session, "upload, finalize", b"def", offset)
        assert_refused(answer)
        assert (answer.headers["x-goog-upload-status"], answer.headers["x-goog-upload-size-received"]) == (
            "active",
            "3",
        )
    assert (await _send(http, session, "upload, finalize", b"def", 3)).status_code == 200


async def test_a_session_ends_once(http: httpx.AsyncClient):
    session = await _start(http, 3)
    await _send(http, session, "upload, finalize", b"abc", 0)
    again = await _send(http, session, "upload, finalize", b"abc", 0)
    assert_refused(again)
    assert (await _send(http, session, "query")).headers["x-goog-upload-status"] == "final"


@pytest.mark.parametrize(("announced_bytes", "data"), [(3, b"ab"), (3, b"abcd"), (None, b"")])
async def test_a_wrong_length_ends_the_session(
    http: httpx.AsyncClient, switchboard: Switchboard, sandbox: Sandbox, announced_bytes, data
):
    session = await _start(http, announced_bytes)
    blobs = len(sandbox.blobs())
    answer = await _send(http, session, "upload, finalize", data, 0)
    assert_refused(answer)
    assert answer.headers["x-goog-upload-status"] == "cancelled"
    assert_refused(await _send(http, session, "upload, finalize", b"abc", 0))
    assert await switchboard.files() == []
    assert len(sandbox.blobs()) == blobs - 1


async def test_a_session_can_be_cancelled(http: httpx.AsyncClient, switchboard: Switchboard, sandbox: Sandbox):
    session = await _start(http)
    blobs = len(sandbox.blobs())
    await _send(http, session, "upload", b"abc", 0)
    assert (await _send(http, session, "cancel")).headers["x-goog-upload-status"] == "cancelled"
    assert len(sandbox.blobs()) == blobs - 1
    assert_refused(await _send(http, session, "upload, finalize", b"d", 3))
    assert (await switchboard.requests())["gemini.cancel_upload"] == 1


async def test_an_unknown_session(http: httpx.AsyncClient):
    answer = await _send(http, "/gemini/upload/v1/files?upload_id=none", "query")
    assert (answer.status_code, answer.json()["error"]["status"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-goog-upload-protocol": "multipart", "x-goog-upload-command": "start"},
        {"x-goog-upload-protocol": "resumable", "x-goog-upload-command": "upload"},
        {**_START, "x-goog-upload-header-content-length": "0"},
        {**_START, "x-goog-upload-header-content-length": "long"},
        {**_START, "x-goog-upload-header-content-length": str(2 * 1024**3 + 1)},
    ],
)
async def test_a_bad_start_is_refused(http: httpx.AsyncClient, headers):
    assert_refused(await http.post("/gemini/upload/v1/files", headers=KEY | headers))


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"file": {"mood": 1}}', b'{"file": {"displayName": 1}}'])
async def test_a_bad_head_is_refused(http: httpx.AsyncClient, body):
    answer = await http.post("/gemini/upload/v1/files", headers=KEY | _START, content=body)
    assert_refused(answer)


async def test_unknown_commands_are_refused(http: httpx.AsyncClient):
    assert_refused(await _send(http, await _start(http), "append", b"a", 0))


async def test_the_start_and_the_bytes_are_two_operations(client, switchboard: Switchboard):
    upload(client, bytes(8 * 1024**2 + 1))
    requests = await switchboard.requests()
    assert (requests["gemini.start_upload"], requests["gemini.upload_file"]) == (1, 2)
    await switchboard.fault(provider="gemini", operation="start_upload", status=503)
    with pytest.raises(errors.ServerError):
        upload(client)


async def test_a_failed_chunk_can_be_sent_again(http: httpx.AsyncClient, switchboard: Switchboard):
    session = await _start(http, 3)
    await switchboard.fault(provider="gemini", operation="upload_file", status=500)
    assert (await _send(http, session, "upload, finalize", b"abc", 0)).status_code == 500
    assert (await _send(http, session, "query")).headers["x-goog-upload-size-received"] == "0"
    assert (await _send(http, session, "upload, finalize", b"abc", 0)).status_code == 200


async def test_a_cut_upload_goes_on_where_it_was_cut(http: httpx.AsyncClient, switchboard: Switchboard):
    data = bytes(range(256)) * 8192
    session = await _start(http, len(data))
    await switchboard.fault(provider="gemini", operation="upload_file", reset_after_bytes=1_000_000)
    with pytest.raises(httpx.TransportError):
        await _send(http, session, "upload, finalize", data, 0)
    received = int((await _send(http, session, "query")).headers["x-goog-upload-size-received"])
    assert 0 < received <= 1_000_000
    answer = await _send(http, session, "upload, finalize", data[received:], received)
    assert answer.json()["file"]["sizeBytes"] == str(len(data))
    (file,) = await switchboard.files()
    assert file["sha256"] == hashlib.sha256(data).hexdigest()


async def test_a_lost_answer_leaves_the_file(http: httpx.AsyncClient, switchboard: Switchboard):
    session = await _start(http, 3, name="files/lost")
    await switchboard.fault(provider="gemini", operation="upload_file", lose_answer=True)
    with pytest.raises(httpx.TransportError):
        await _send(http, session, "upload, finalize", b"abc", 0)
    assert (await _send(http, session, "query")).headers["x-goog-upload-status"] == "final"
    assert (await http.get("/gemini/v1/files/lost", headers=KEY)).json()["state"] == "ACTIVE"


async def test_faults_know_the_account_of_a_session(client, http: httpx.AsyncClient, switchboard: Switchboard):
    upload(client)
    (file,) = await switchboard.files()
    await switchboard.fault(provider="gemini", operation="upload_file", status=500, account=file["account"])
    session = await _start(http)
    assert (await _send(http, session, "upload", b"abc", 0)).status_code == 500
