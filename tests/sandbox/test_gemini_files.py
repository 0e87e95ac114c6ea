"""Gemini's Files API, through google-genai; what the SDK would never send, by hand."""

import base64
import hashlib
import io

import httpx
import pytest
from google import genai
from google.genai import errors, types

from tests.sandbox.conftest import Sandbox, Switchboard

_KEY = {"x-goog-api-key": "one"}
_START = {"x-goog-upload-protocol": "resumable", "x-goog-upload-command": "start"}


@pytest.fixture
def client(sandbox: Sandbox):
    options = types.HttpOptions(base_url=f"{sandbox.base_url}/gemini")
    with genai.Client(api_key="one", http_options=options) as client:
        yield client


@pytest.fixture
def other_client(sandbox: Sandbox):
    options = types.HttpOptions(base_url=f"{sandbox.base_url}/gemini")
    with genai.Client(api_key="two", http_options=options) as client:
        yield client


def _upload(client, data: bytes = b"%PDF", mime_type: str = "application/pdf", **config) -> types.File:
    return client.files.upload(file=io.BytesIO(data), config={"mime_type": mime_type, **config})


async def _start(http: httpx.AsyncClient, announced_bytes: int | None = None, **file) -> str:
    """The address of a new session."""
    length = {} if announced_bytes is None else {"x-goog-upload-header-content-length": str(announced_bytes)}
    headers = {**_KEY, **_START, **length}
    answer = await http.post("/gemini/upload/v1beta/files", headers=headers, json={"file": file})
    assert (answer.status_code, answer.headers["x-goog-upload-status"]) == (200, "active")
    return answer.headers["x-goog-upload-url"]


async def _send(http: httpx.AsyncClient, session: str, command: str, data: bytes = b"", offset: int | None = None):
    headers = {"x-goog-upload-command": command}
    if offset is not None:
        headers["x-goog-upload-offset"] = str(offset)
    return await http.post(session, headers=headers, content=data)


def _refused(answer: httpx.Response) -> str:
    """The status of a 400, which is also in its body."""
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == 400 and error["message"]
    return error["status"]


@pytest.mark.parametrize("size_bytes", [1, 65_536, 8 * 1024**2, 8 * 1024**2 + 1])
async def test_a_file_lives_from_upload_to_delete(client, switchboard: Switchboard, sandbox: Sandbox, size_bytes):
    data = (bytes(range(256)) * (size_bytes // 256 + 1))[:size_bytes]
    digest = hashlib.sha256(data).hexdigest()
    created = _upload(client, data, display_name="a.pdf")
    assert (created.size_bytes, created.display_name, created.mime_type) == (size_bytes, "a.pdf", "application/pdf")
    assert (created.state, created.source) == (types.FileState.ACTIVE, types.FileSource.UPLOADED)
    assert base64.b64decode(created.sha256_hash).decode() == digest
    assert (created.expiration_time - created.create_time).total_seconds() == 48 * 3600
    assert client.files.get(name=created.name) == created
    assert [*client.files.list()] == [created]

    (file,) = await switchboard.files()
    assert (file["provider"], file["id"], file["filename"]) == ("gemini", created.uri, "a.pdf")
    assert (file["bytes"], file["sha256"]) == (size_bytes, digest)
    assert created.uri == f"{sandbox.base_url}/gemini/v1beta/{created.name}"

    client.files.delete(name=created.name)
    for verb in (client.files.get, client.files.delete):
        with pytest.raises(errors.ClientError, match="or it may not exist") as refused:
            verb(name=created.name)
        assert (refused.value.code, refused.value.status) == (403, "PERMISSION_DENIED")
    assert await switchboard.files() == []


def test_a_file_may_be_named_once(client, other_client):
    created = _upload(client, name="files/a-1")
    assert created.name == "files/a-1"
    with pytest.raises(errors.ClientError) as refused:
        _upload(client, name="files/a-1")
    assert (refused.value.code, refused.value.status) == (409, "ALREADY_EXISTS")
    assert (_upload(other_client, name="files/a-1")).name == "files/a-1"
    client.files.delete(name="files/a-1")
    _upload(client, name="files/a-1")


async def test_two_uploads_race_for_a_name(http: httpx.AsyncClient, switchboard: Switchboard):
    sessions = [await _start(http, name="files/a") for _ in range(2)]
    first, second = [await _send(http, session, "upload, finalize", b"x", 0) for session in sessions]
    assert first.status_code == 200
    assert _refused(second) == "INVALID_ARGUMENT"
    assert len(await switchboard.files()) == 1


@pytest.mark.parametrize("name", ["a-1", "files/-a", "files/a-", "files/A", "files/a_b", "files/" + "a" * 41, "files/"])
async def test_a_bad_name_is_refused(http: httpx.AsyncClient, name):
    body = {"file": {"name": name}}
    assert _refused(await http.post("/gemini/upload/v1/files", headers=_KEY | _START, json=body)) == "INVALID_ARGUMENT"


def test_a_file_of_another_account_is_like_none(client, other_client):
    created = _upload(client)
    for verb in (other_client.files.get, other_client.files.delete):
        with pytest.raises(errors.ClientError) as refused:
            verb(name=created.name)
        assert refused.value.code == 403
    assert [*other_client.files.list()] == []
    client.files.get(name=created.name)


async def test_the_pager_walks_every_page(client, http: httpx.AsyncClient):
    names = {(_upload(client)).name for _ in range(5)}
    pager = client.files.list(config={"page_size": 2})
    assert len(pager.page) == 2
    assert {file.name for file in pager} == names
    first = (await http.get("/gemini/v1/files?pageSize=2", headers=_KEY)).json()
    client.files.delete(name=first["files"][1]["name"])
    query = {"page_size": 100, "page_token": first["nextPageToken"]}
    second = (await http.get("/gemini/v1beta/files", params=query, headers=_KEY)).json()
    assert {file["name"] for file in first["files"] + second["files"]} == names
    assert "nextPageToken" not in second


@pytest.mark.parametrize("query", [{"pageSize": 101}, {"pageSize": "x"}, {"pageToken": "é"}, {"limit": 1}])
async def test_a_bad_list_query_is_refused(http: httpx.AsyncClient, query):
    assert _refused(await http.get("/gemini/v1/files", params=query, headers=_KEY)) == "INVALID_ARGUMENT"


async def test_files_expire_after_two_days(client, switchboard: Switchboard):
    created = _upload(client)
    await switchboard.advance(48 * 3600 - 10)
    assert client.files.get(name=created.name) == created
    await switchboard.advance(10)
    with pytest.raises(errors.ClientError) as refused:
        client.files.get(name=created.name)
    assert refused.value.code == 403
    assert [*client.files.list()] == []
    assert await switchboard.files() == []


def test_a_film_is_processed_for_two_polls(client):
    created = _upload(client, mime_type="video/mp4")
    states = [created.state, *[(client.files.get(name=created.name)).state for _ in range(3)]]
    assert states == [*[types.FileState.PROCESSING] * 3, types.FileState.ACTIVE]


async def test_sound_is_processed_for_two_seconds(client, switchboard: Switchboard):
    created = _upload(client, mime_type="audio/wav")
    assert created.state == types.FileState.PROCESSING
    await switchboard.advance(2)
    assert (client.files.get(name=created.name)).state == types.FileState.ACTIVE


async def test_processing_can_fail(client, switchboard: Switchboard):
    created = _upload(client, display_name="fails.pdf")
    assert (created.state, created.error) == (types.FileState.PROCESSING, None)
    await switchboard.advance(2)
    failed = client.files.get(name=created.name)
    assert failed.state == types.FileState.FAILED
    assert failed.error.message


async def test_an_upload_is_never_given_back(client, http: httpx.AsyncClient):
    created = _upload(client)
    for path in ("v1", "download/v1beta"):
        assert _refused(await http.get(f"/gemini/{path}/{created.name}:download?alt=media", headers=_KEY))
    with pytest.raises(errors.ClientError) as refused:
        client.files.download(file=created.name)
    assert refused.value.code == 400


async def test_the_length_may_be_unknown(http: httpx.AsyncClient, switchboard: Switchboard):
    session = await _start(http, name="files/long", mimeType="text/plain", displayName="long.txt")
    for offset in (0, 3, 6):
        answer = await _send(http, session, "upload", b"abc", offset)
        assert answer.headers["x-goog-upload-status"] == "active"
    answer = await _send(http, session, "finalize")
    assert answer.headers["x-goog-upload-status"] == "final"
    file = answer.json()["file"]
    assert (file["name"], file["sizeBytes"], file["mimeType"]) == ("files/long", "9", "text/plain")
    (stored,) = await switchboard.files()
    assert stored["sha256"] == hashlib.sha256(b"abcabcabc").hexdigest()


async def test_an_offset_must_fit(http: httpx.AsyncClient):
    session = await _start(http, 6)
    await _send(http, session, "upload", b"abc", 0)
    for offset in (None, 0, 2, 4):
        answer = await _send(http, session, "upload, finalize", b"def", offset)
        assert _refused(answer) == "INVALID_ARGUMENT"
        assert (answer.headers["x-goog-upload-status"], answer.headers["x-goog-upload-size-received"]) == (
            "active",
            "3",
        )
    assert (await _send(http, session, "upload, finalize", b"def", 3)).status_code == 200


async def test_a_session_ends_once(http: httpx.AsyncClient):
    session = await _start(http, 3)
    await _send(http, session, "upload, finalize", b"abc", 0)
    again = await _send(http, session, "upload, finalize", b"abc", 0)
    assert _refused(again) == "INVALID_ARGUMENT"
    assert (await _send(http, session, "query")).headers["x-goog-upload-status"] == "final"


@pytest.mark.parametrize(("announced_bytes", "data"), [(3, b"ab"), (3, b"abcd"), (None, b"")])
async def test_a_wrong_length_ends_the_session(
    http: httpx.AsyncClient, switchboard: Switchboard, sandbox: Sandbox, announced_bytes, data
):
    session = await _start(http, announced_bytes)
    blobs = len(sandbox.blobs())
    assert _refused(await _send(http, session, "upload, finalize", data, 0)) == "INVALID_ARGUMENT"
    assert (await _send(http, session, "query")).status_code == 404
    assert await switchboard.files() == []
    assert len(sandbox.blobs()) == blobs - 1


async def test_a_session_can_be_cancelled(http: httpx.AsyncClient, switchboard: Switchboard):
    session = await _start(http)
    await _send(http, session, "upload", b"abc", 0)
    assert (await _send(http, session, "cancel")).headers["x-goog-upload-status"] == "cancelled"
    assert (await _send(http, session, "upload, finalize", b"d", 3)).status_code == 404
    assert (await switchboard.requests())["gemini.cancel_upload"] == 1


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
    assert _refused(await http.post("/gemini/upload/v1/files", headers=_KEY | headers)) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"file": {"mood": 1}}', b'{"file": {"displayName": 1}}'])
async def test_a_bad_head_is_refused(http: httpx.AsyncClient, body):
    answer = await http.post("/gemini/upload/v1/files", headers=_KEY | _START, content=body)
    assert _refused(answer) == "INVALID_ARGUMENT"


async def test_unknown_commands_are_refused(http: httpx.AsyncClient):
    assert _refused(await _send(http, await _start(http), "append", b"a", 0)) == "INVALID_ARGUMENT"


async def test_keys(http: httpx.AsyncClient):
    missing = await http.get("/gemini/v1/files")
    assert (missing.status_code, missing.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
    wrong = await http.get("/gemini/v1/files", headers={"x-goog-api-key": "bad"})
    assert _refused(wrong) == "INVALID_ARGUMENT"
    assert wrong.json()["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    assert (await http.get("/gemini/v1/files?key=one")).json() == {}


async def test_unknown_paths(http: httpx.AsyncClient):
    for path in ("/gemini/v2/files", "/gemini/v1/files/", "/gemini/files"):
        answer = await http.get(path, headers=_KEY)
        assert (answer.status_code, answer.json()["error"]["status"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (409, "ALREADY_EXISTS"),
        (413, "INVALID_ARGUMENT"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
        (529, "UNKNOWN"),
    ],
)
async def test_a_fault_is_answered_in_googles_shape(client, switchboard: Switchboard, code, status):
    await switchboard.fault(provider="gemini", operation="list_files", status=code, retry_after_seconds=7)
    with pytest.raises(errors.APIError) as failed:
        client.files.list()
    assert (failed.value.code, failed.value.status) == (code, status)
    assert failed.value.details["error"]["details"][0]["retryDelay"] == "7s"
    assert failed.value.response.headers["retry-after"] == "7"
    client.files.list()


async def test_the_start_and_the_bytes_are_two_operations(client, switchboard: Switchboard):
    _upload(client, bytes(8 * 1024**2 + 1))
    requests = await switchboard.requests()
    assert (requests["gemini.start_upload"], requests["gemini.upload_file"]) == (1, 2)
    await switchboard.fault(provider="gemini", operation="start_upload", status=503)
    with pytest.raises(errors.ServerError):
        _upload(client)


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
    assert (await http.get("/gemini/v1/files/lost", headers=_KEY)).json()["state"] == "ACTIVE"


async def test_faults_know_the_account_of_a_session(client, http: httpx.AsyncClient, switchboard: Switchboard):
    _upload(client)
    (file,) = await switchboard.files()
    await switchboard.fault(provider="gemini", operation="upload_file", status=500, account=file["account"])
    session = await _start(http)
    assert (await _send(http, session, "upload", b"abc", 0)).status_code == 500
