"""Gemini's Files API, through google-genai; what the SDK would never send, by hand."""

import base64
import hashlib

import httpx
import pytest
from google.genai import errors, types

from tests.sandbox.conftest import Sandbox, Switchboard
from tests.sandbox.gemini_client import KEY, assert_refused, open_client, upload


@pytest.fixture
def client(sandbox: Sandbox):
    with open_client(sandbox.base_url) as client:
        yield client


@pytest.fixture
def other_client(sandbox: Sandbox):
    with open_client(sandbox.base_url, "two") as client:
        yield client


@pytest.mark.parametrize("size_bytes", [1, 65_536, 8 * 1024**2, 8 * 1024**2 + 1])
async def test_a_file_lives_from_upload_to_delete(client, switchboard: Switchboard, sandbox: Sandbox, size_bytes):
    data = (bytes(range(256)) * (size_bytes // 256 + 1))[:size_bytes]
    digest = hashlib.sha256(data).hexdigest()
    created = upload(client, data, display_name="a.pdf")
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
        with pytest.raises(errors.ClientError, match="or it may not exist") as caught:
            verb(name=created.name)
        assert (caught.value.code, caught.value.status) == (403, "PERMISSION_DENIED")
    assert await switchboard.files() == []


def test_a_file_may_be_named_once(client, other_client):
    created = upload(client, name="files/a-1")
    assert created.name == "files/a-1"
    with pytest.raises(errors.ClientError) as caught:
        upload(client, name="files/a-1")
    assert (caught.value.code, caught.value.status) == (409, "ALREADY_EXISTS")
    assert (upload(other_client, name="files/a-1")).name == "files/a-1"
    client.files.delete(name="files/a-1")
    upload(client, name="files/a-1")


def test_a_file_of_another_account_is_like_none(client, other_client):
    created = upload(client)
    for verb in (other_client.files.get, other_client.files.delete):
        with pytest.raises(errors.ClientError) as caught:
            verb(name=created.name)
        assert caught.value.code == 403
    assert [*other_client.files.list()] == []
    client.files.get(name=created.name)


async def test_the_pager_walks_every_page(client, http: httpx.AsyncClient):
    names = {(upload(client)).name for _ in range(5)}
    pager = client.files.list(config={"page_size": 2})
    assert len(pager.page) == 2
    assert {file.name for file in pager} == names
    first = (await http.get("/gemini/v1/files?pageSize=2", headers=KEY)).json()
    client.files.delete(name=first["files"][1]["name"])
    query = {"page_size": 100, "page_token": first["nextPageToken"]}
    second = (await http.get("/gemini/v1beta/files", params=query, headers=KEY)).json()
    assert {file["name"] for file in first["files"] + second["files"]} == names
    assert "nextPageToken" not in second


@pytest.mark.parametrize("query", [{"pageSize": 101}, {"pageSize": "x"}, {"pageToken": "é"}, {"limit": 1}])
async def test_a_bad_list_query_is_refused(http: httpx.AsyncClient, query):
    assert_refused(await http.get("/gemini/v1/files", params=query, headers=KEY))


async def test_files_expire_after_two_days(client, switchboard: Switchboard):
    created = upload(client)
    await switchboard.advance(47 * 3600)
    assert client.files.get(name=created.name) == created
    await switchboard.advance(3600)
    with pytest.raises(errors.ClientError) as caught:
        client.files.get(name=created.name)
    assert caught.value.code == 403
    assert [*client.files.list()] == []
    assert await switchboard.files() == []


def test_a_film_is_processed_for_two_polls(client):
    created = upload(client, mime_type="video/mp4")
    states = [created.state, *[(client.files.get(name=created.name)).state for _ in range(3)]]
    assert states == [*[types.FileState.PROCESSING] * 3, types.FileState.ACTIVE]


async def test_sound_is_processed_for_two_seconds(client, switchboard: Switchboard):
    created = upload(client, mime_type="audio/wav")
    assert created.state == types.FileState.PROCESSING
    await switchboard.advance(2)
    assert (client.files.get(name=created.name)).state == types.FileState.ACTIVE


async def test_processing_can_fail(client, switchboard: Switchboard):
    created = upload(client, display_name="fails.pdf")
    assert (created.state, created.error) == (types.FileState.PROCESSING, None)
    await switchboard.advance(2)
    failed = client.files.get(name=created.name)
    assert failed.state == types.FileState.FAILED
    assert failed.error.message


async def test_an_upload_is_never_given_back(client, http: httpx.AsyncClient):
    created = upload(client)
    for path in ("v1", "download/v1beta"):
        assert_refused(await http.get(f"/gemini/{path}/{created.name}:download?alt=media", headers=KEY))
    with pytest.raises(errors.ClientError) as caught:
        client.files.download(file=created.name)
    assert caught.value.code == 400


async def test_keys(http: httpx.AsyncClient):
    missing = await http.get("/gemini/v1/files")
    assert (missing.status_code, missing.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
    wrong = await http.get("/gemini/v1/files", headers={"x-goog-api-key": "bad"})
    assert_refused(wrong)
    assert wrong.json()["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    assert (await http.get("/gemini/v1/files?key=one")).json() == {}


async def test_unknown_paths(http: httpx.AsyncClient):
    for path in ("/gemini/v2/files", "/gemini/v1/files/", "/gemini/files"):
        answer = await http.get(path, headers=KEY)
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
