"""Anthropic's Files and Models APIs, their keys, versions and errors, through the official client."""

import asyncio
import hashlib
from datetime import timedelta
from urllib.parse import urlsplit

import anthropic
import httpx
import pytest

from tests.sandbox.conftest import Sandbox, Switchboard

_KEYS = [{"authorization": "Bearer one"}, {"x-api-key": "one"}]
_VERSIONS = ["2026-10-21", "2023-06-01"]
_HEADERS = {"authorization": "Bearer one", "anthropic-version": "2026-10-21"}
_BETA = {"anthropic-beta": "other-2025-01-01, files-api-2025-04-14"}


@pytest.fixture
async def client(sandbox: Sandbox):
    url = f"{sandbox.base_url}/anthropic"
    async with anthropic.AsyncAnthropic(base_url=url, api_key="one", max_retries=0) as client:
        yield client


async def _upload(client: anthropic.AsyncAnthropic, data: bytes = b"%PDF", filename: str = "a.pdf", **more):
    return await client.files.upload(file=(filename, data, "application/pdf"), **more)


@pytest.mark.parametrize("size_bytes", [1, 65_536, 3_000_001])
async def test_a_file_lives_from_upload_to_delete(client, switchboard: Switchboard, sandbox: Sandbox, size_bytes):
    data = bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256)
    uploaded = await _upload(client, data)
    assert (uploaded.size_bytes, uploaded.filename, uploaded.mime_type) == (size_bytes, "a.pdf", "application/pdf")
    assert (uploaded.downloadable, uploaded.expires_at) == (False, None)
    assert await client.files.retrieve_metadata(uploaded.id) == uploaded

    (file,) = await switchboard.files()
    assert (file["provider"], file["sha256"]) == ("anthropic", hashlib.sha256(data).hexdigest())
    assert file["created_at"] == uploaded.created_at.timestamp()

    deleted = await client.files.delete(uploaded.id)
    assert (deleted.id, deleted.type) == (uploaded.id, "file_deleted")
    for verb in (client.files.retrieve_metadata, client.files.download, client.files.delete):
        with pytest.raises(anthropic.NotFoundError, match=f"File not found: {uploaded.id}") as refused:
            await verb(uploaded.id)
        assert (refused.value.type, refused.value.error_code) == ("not_found_error", None)
    assert sandbox.blobs() == []


async def test_uploads_are_never_given_back(client):
    uploaded = await _upload(client)
    with pytest.raises(anthropic.BadRequestError) as refused:
        await client.files.download(uploaded.id)
    assert refused.value.error_code == "file_not_downloadable"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("dir/../a b.pdf", "a b.pdf"), (r"C:\docs\a.pdf", "a.pdf"), ("é.pdf", "é.pdf"), ("dir/", "unnamed.pdf")],
)
async def test_the_last_component_of_a_filename_is_kept(client, given, kept):
    assert (await _upload(client, filename=given)).filename == kept


async def test_the_iterator_walks_every_page(client):
    ids = [(await _upload(client)).id for _ in range(5)][::-1]
    assert [file.id async for file in client.files.list(limit=2)] == ids
    page = await client.files.list(limit=2)
    assert page.next_page.startswith("page_")
    await client.files.delete(ids[1])
    assert [file.id for file in (await client.files.list(limit=3, page=page.next_page)).data] == ids[2:]
    assert (await client.files.list(limit=4)).next_page is None


async def test_files_are_listed_by_id(client):
    ids = [(await _upload(client)).id for _ in range(3)]
    page = await client.files.list(ids=[ids[0], ids[2], ids[0], "file_none"])
    assert [file.id for file in page.data] == [ids[2], ids[0]]
    assert page.next_page is None


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": "x"},
        {"page": "page_!"},
        {"page": "file_01"},
        {"after_id": "file_none"},
        {"ids[]": ["a"], "limit": 2},
        {"ids[]": ["a"], "page": "page_"},
        {"ids[]": [str(number) for number in range(101)]},
    ],
)
async def test_a_bad_list_query_is_refused(client, query):
    with pytest.raises(anthropic.BadRequestError) as refused:
        await client.files.list(extra_query=query)
    assert refused.value.type == "invalid_request_error"


async def test_the_beta_header_selects_the_older_list(client, http: httpx.AsyncClient):
    ids = [(await _upload(client)).id for _ in range(5)][::-1]

    async def listed(**query: object) -> dict:
        answer = await http.get("/anthropic/v1/files", headers=_HEADERS | _BETA, params={"beta": "true", **query})
        return answer.json()

    page = await listed(limit=2)
    assert page.keys() == {"data", "has_more", "first_id", "last_id"}
    assert ([file["id"] for file in page["data"]], page["has_more"]) == (ids[:2], True)
    assert (page["first_id"], page["last_id"]) == (ids[0], ids[1])
    assert page["data"][0]["scope"] is None
    page = await listed(after_id=ids[1])
    assert ([file["id"] for file in page["data"]], page["has_more"]) == (ids[2:], False)
    page = await listed(before_id=ids[4], limit=2)
    assert ([file["id"] for file in page["data"]], page["has_more"]) == (ids[2:4], True)
    for query in ({"after_id": "file_none"}, {"after_id": ids[0], "before_id": ids[1]}, {"page": "page_"}):
        assert (await listed(**query))["error"]["type"] == "invalid_request_error"


async def test_without_the_beta_header_the_list_is_the_present_one(http: httpx.AsyncClient):
    for query in ({}, {"beta": "true"}):
        answer = await http.get("/anthropic/v1/files", headers=_HEADERS, params=query)
        assert answer.json() == {"data": [], "next_page": None}


async def test_files_expire_by_the_sandbox_clock(client, switchboard: Switchboard, sandbox: Sandbox):
    uploaded = await _upload(client, expires_in_seconds=3600)
    assert uploaded.expires_at == uploaded.created_at + timedelta(hours=1)
    await switchboard.advance(3000)
    assert await client.files.retrieve_metadata(uploaded.id) == uploaded
    await switchboard.advance(600)
    for verb in (client.files.retrieve_metadata, client.files.download, client.files.delete):
        with pytest.raises(anthropic.NotFoundError) as refused:
            await verb(uploaded.id)
        assert refused.value.error_code == "file_expired"
    with pytest.raises(anthropic.NotFoundError) as refused:
        await client.with_options(api_key="another").files.retrieve_metadata(uploaded.id)
    assert refused.value.error_code is None
    assert [file async for file in client.files.list()] == []
    assert sandbox.blobs() == []


@pytest.mark.parametrize("more", [{"expires_in_seconds": 3599}, {"expires_in_seconds": 7_776_001}, {"purpose": "user"}])
async def test_a_bad_field_is_refused_and_stores_nothing(client, switchboard, sandbox: Sandbox, more):
    with pytest.raises(anthropic.BadRequestError, match=next(iter(more))):
        await client.files.upload(file=("a.pdf", b"x"), extra_body=more)
    assert await switchboard.files() == []
    assert sandbox.blobs() == []


async def test_a_file_is_there_and_not_empty(client, http: httpx.AsyncClient, sandbox: Sandbox):
    with pytest.raises(anthropic.BadRequestError, match="empty"):
        await _upload(client, b"")
    for body in ({"data": {"a": "b"}}, {"files": {"files": b"x"}}, {"files": {"other": ("a", b"x")}}):
        answer = await http.post("/anthropic/v1/files", headers=_HEADERS, **body)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert sandbox.blobs() == []


async def test_a_file_of_more_than_500_mb_is_too_large(sandbox: Sandbox):
    address = urlsplit(sandbox.base_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    headers = _HEADERS | {"host": "h", "content-type": "multipart/form-data; boundary=b", "content-length": "525336577"}
    lines = ["POST /anthropic/v1/files HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode())
    answer = await reader.readuntil(b"}")
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"request_too_large"' in answer


async def test_accounts_do_not_see_each_other(client):
    uploaded = await _upload(client)
    other = client.with_options(api_key="another")
    for verb in (other.files.retrieve_metadata, other.files.delete):
        with pytest.raises(anthropic.NotFoundError):
            await verb(uploaded.id)
    assert [file async for file in other.files.list()] == []


@pytest.mark.parametrize("version", _VERSIONS)
async def test_both_headers_name_the_same_account_in_both_versions(client, http: httpx.AsyncClient, version):
    uploaded = await _upload(client)
    for key in _KEYS:
        answer = await http.get(f"/anthropic/v1/files/{uploaded.id}", headers=key | {"anthropic-version": version})
        assert answer.json()["id"] == uploaded.id
        assert answer.headers["request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "anthropic-version: header is required"),
        ({"anthropic-version": "2024-01-01"}, 'anthropic-version: "2024-01-01" is not a valid version'),
    ],
)
@pytest.mark.parametrize("path", ["files", "files/file_1", "files/file_1/content", "models", "models/claude-sonnet-5"])
async def test_every_request_names_a_version_that_exists(http: httpx.AsyncClient, path, headers, message):
    answer = await http.get(f"/anthropic/v1/{path}", headers=_KEYS[0] | headers)
    assert answer.status_code == 400
    assert answer.json() == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": message, "details": None},
        "request_id": answer.headers["request-id"],
    }


async def test_bad_keys_and_none_are_refused(client, http: httpx.AsyncClient):
    for verb in (client.with_options(api_key="bad-key").files.list, client.with_options(api_key="bad").models.list):
        with pytest.raises(anthropic.AuthenticationError) as refused:
            await verb()
        assert refused.value.type == "authentication_error"
    answer = await http.get("/anthropic/v1/files", headers={"anthropic-version": "2026-10-21"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (401, "x-api-key header is required")


async def test_unknown_routes_and_methods_are_refused_in_anthropics_shape(http: httpx.AsyncClient):
    for path in ("/anthropic/v1/nothing", "/anthropic/v1/files/", "/anthropic/files"):
        answer = await http.get(path, headers=_HEADERS)
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
    wrong = await http.put("/anthropic/v1/files", headers=_HEADERS)
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (405, "invalid_request_error")


async def test_models(client):
    models = [model.id async for model in client.models.list(limit=3)]
    current = ["claude-haiku-4-5", "claude-opus-4-5", "claude-sonnet-4-5", "claude-sonnet-5"]
    assert sorted(models) == ["claude-3-sonnet-20240229", *current]
    page = await client.models.list(limit=1, after_id=models[1])
    assert ([model.id for model in page.data], page.has_more) == (models[2:3], True)
    assert (await client.models.retrieve("claude-sonnet-5")).display_name == "Claude Sonnet 5"
    with pytest.raises(anthropic.NotFoundError, match="model: claude-0"):
        await client.models.retrieve("claude-0")


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (402, anthropic.APIStatusError, "billing_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (408, anthropic.APIStatusError, "invalid_request_error"),
        (409, anthropic.ConflictError, "conflict_error"),
        (413, anthropic.APIStatusError, "request_too_large"),
        (422, anthropic.UnprocessableEntityError, "invalid_request_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (503, anthropic.InternalServerError, "api_error"),
        (504, anthropic.InternalServerError, "timeout_error"),
        (529, anthropic.InternalServerError, "overloaded_error"),
    ],
)
async def test_every_failure_is_anthropics_own(client, switchboard: Switchboard, status, error, kind):
    await switchboard.fault(provider="anthropic", operation="list_files", status=status, retry_after_seconds=7)
    with pytest.raises(error) as failed:
        await client.files.list()
    assert (failed.value.status_code, failed.value.type) == (status, kind)
    assert failed.value.request_id == failed.value.body["request_id"]
    assert failed.value.response.headers["retry-after"] == "7"
    assert (await client.files.list()).data == []


async def test_an_upload_whose_answer_is_lost_was_made(client, switchboard: Switchboard):
    await switchboard.fault(provider="anthropic", operation="upload_file", lose_answer=True)
    with pytest.raises(anthropic.APIConnectionError):
        await _upload(client)
    assert [file.filename async for file in client.files.list()] == ["a.pdf"]
    assert await switchboard.requests() == {"anthropic.upload_file": 1, "anthropic.list_files": 1}


async def test_an_upload_that_is_cut_leaves_nothing(client, switchboard: Switchboard, sandbox: Sandbox):
    await switchboard.fault(provider="anthropic", operation="upload_file", reset_after_bytes=100_000)
    with pytest.raises(anthropic.APIConnectionError):
        await _upload(client, b"x" * 1_000_000)
    assert await switchboard.files() == []
    assert sandbox.blobs() == []
