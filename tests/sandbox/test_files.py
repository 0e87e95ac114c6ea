"""The Files API, through the official clients."""

import hashlib

import httpx
import openai
import pytest

from tests.sandbox.conftest import Sandbox, Switchboard

_DAY_SECONDS = 24 * 3600


async def _create(client: openai.AsyncOpenAI, data: bytes = b"hello", purpose: str = "batch", **more):
    return await client.files.create(file=("a.jsonl", data, "text/plain"), purpose=purpose, **more)


@pytest.mark.parametrize("size_bytes", [1, 65_536, 3_000_001])
async def test_a_file_lives_from_create_to_delete(client, switchboard: Switchboard, size_bytes):
    data = bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256)
    created = await _create(client, data)
    assert (created.bytes, created.filename, created.purpose) == (size_bytes, "a.jsonl", "batch")
    assert created.status == "processed"
    assert await client.files.retrieve(created.id) == created
    content = await client.files.content(created.id)
    assert content.read() == data
    assert content.response.headers["content-type"].startswith("text/plain")

    (file,) = await switchboard.files()
    assert file["sha256"] == hashlib.sha256(data).hexdigest()
    assert file["created_at"] == created.created_at

    deleted = await client.files.delete(created.id)
    assert (deleted.id, deleted.deleted) == (created.id, True)
    for verb in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File object: "):
            await verb(created.id)
    assert await switchboard.files() == []


async def test_deleted_bytes_leave_the_disk(openai_client, sandbox: Sandbox):
    created = await _create(openai_client)
    assert len(sandbox.blobs()) == 1
    await openai_client.files.delete(created.id)
    assert sandbox.blobs() == []


async def test_the_iterator_walks_every_page(client):
    ids = [(await _create(client)).id for _ in range(5)]
    assert [file.id async for file in client.files.list(limit=2)] == ids[::-1]
    assert [file.id async for file in client.files.list(limit=2, order="asc")] == ids
    page = await client.files.list(limit=2, order="asc", after=ids[1])
    assert [file.id for file in page.data] == ids[2:4]
    assert page.has_more
    assert (page.model_extra["first_id"], page.model_extra["last_id"]) == (ids[2], ids[3])
    assert not (await client.files.list(limit=5)).has_more


async def test_an_empty_list_has_all_its_keys(http: httpx.AsyncClient):
    answer = await http.get("/openai/v1/files", headers={"authorization": "Bearer sk"})
    assert answer.json() == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert answer.headers["x-request-id"]


async def test_lists_filter_by_purpose(openai_client):
    batch = await _create(openai_client)
    await _create(openai_client, purpose="user_data")
    assert [file.id async for file in openai_client.files.list(purpose="batch", limit=1)] == [batch.id]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "file-none"}, "after"),
        ({"page": 2}, "page"),
    ],
)
async def test_a_bad_list_query_is_refused(client, query, param):
    with pytest.raises(openai.BadRequestError) as refused:
        await client.files.list(extra_query=query)
    assert refused.value.param == param


@pytest.mark.parametrize("purpose", ["assistants", "vision", "user_data"])
async def test_some_purposes_are_never_given_back(openai_client, purpose):
    created = await _create(openai_client, purpose=purpose)
    with pytest.raises(openai.BadRequestError, match=f"Not allowed to download files of purpose: {purpose}"):
        await openai_client.files.content(created.id)


async def test_files_expire_by_the_sandbox_clock(client, switchboard: Switchboard, sandbox: Sandbox):
    created = await _create(client, expires_after={"anchor": "created_at", "seconds": 3600})
    assert created.expires_at == created.created_at + 3600
    await switchboard.advance(3000)
    assert await client.files.retrieve(created.id) == created
    await switchboard.advance(600)
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(created.id)
    assert [file async for file in client.files.list()] == []
    assert await switchboard.files() == []
    assert sandbox.blobs() == []


async def test_only_batch_files_expire_by_default(openai_client):
    batch = await _create(openai_client)
    assert batch.expires_at == batch.created_at + 30 * _DAY_SECONDS
    assert (await _create(openai_client, purpose="user_data")).expires_at is None


@pytest.mark.parametrize(
    "expiry", [{"anchor": "now", "seconds": 3600}, {"anchor": "created_at", "seconds": 3599}, {"seconds": 3600}]
)
async def test_a_bad_expiry_is_refused_and_stores_nothing(client, switchboard, sandbox: Sandbox, expiry):
    with pytest.raises(openai.BadRequestError) as refused:
        await _create(client, expires_after=expiry)
    assert refused.value.param.startswith("expires_after.")
    assert await switchboard.files() == []
    assert sandbox.blobs() == []


async def test_accounts_do_not_see_each_other(client, switchboard: Switchboard):
    created = await _create(client)
    other = client.with_options(api_key="another")
    with pytest.raises(openai.NotFoundError):
        await other.files.retrieve(created.id)
    with pytest.raises(openai.NotFoundError):
        await other.files.delete(created.id)
    assert [file async for file in other.files.list()] == []
    (file,) = await switchboard.files()
    assert file["account"] == hashlib.sha256(client.api_key.encode()).hexdigest()[:8]


async def test_the_same_key_at_two_providers_is_two_accounts(openai_client, azure_v1_client):
    created = await _create(openai_client)
    with pytest.raises(openai.NotFoundError):
        await azure_v1_client.with_options(api_key=openai_client.api_key).files.retrieve(created.id)


async def test_both_azure_forms_are_one_account(azure_client, azure_v1_client):
    created = await _create(azure_client)
    assert await azure_v1_client.files.retrieve(created.id) == created


async def test_azure_ids_and_purposes(azure_client):
    assert (await _create(azure_client, purpose="assistants")).id.startswith("assistant-")
    assert (await _create(azure_client, purpose="batch")).id.startswith("file-")
    with pytest.raises(openai.BadRequestError) as refused:
        await _create(azure_client, purpose="user_data")
    assert refused.value.param == "purpose"


async def test_azure_takes_expiry_fields_with_dots(http: httpx.AsyncClient):
    form = {"purpose": "batch", "expires_after.anchor": "created_at", "expires_after.seconds": "7200"}
    sent = {"data": form, "files": {"file": ("a", b"x")}}
    file = (await http.post("/azure/openai/v1/files", headers={"api-key": "one"}, **sent)).json()
    assert file["expires_at"] == file["created_at"] + 7200
    refused = await http.post("/openai/v1/files", headers={"authorization": "Bearer one"}, **sent)
    assert refused.status_code == 400


@pytest.mark.parametrize("query", ["", "?api-version=", "?api-version=latest", "?api-version=2024-1-1"])
async def test_azures_dated_form_needs_a_version(http: httpx.AsyncClient, query):
    answer = await http.get(f"/azure/openai/files{query}", headers={"api-key": "one"})
    assert answer.status_code == 404
    assert answer.json() == {"error": {"code": "404", "message": "Resource not found"}}


async def test_bad_keys_are_refused(client):
    for verb in (client.with_options(api_key="bad-key").files.list, client.with_options(api_key="bad").models.list):
        with pytest.raises(openai.AuthenticationError) as refused:
            await verb()
        assert refused.value.code in ("invalid_api_key", "401")


@pytest.mark.parametrize("path", ["/openai/v1/files", "/azure/openai/v1/files"])
async def test_no_key_is_refused(http: httpx.AsyncClient, path):
    answer = await http.get(path)
    assert answer.status_code == 401
    assert "error" in answer.json()


async def test_openai_takes_bearer_tokens_only_but_azure_both(http: httpx.AsyncClient):
    assert (await http.get("/openai/v1/files", headers={"api-key": "one"})).status_code == 401
    for headers in ({"api-key": "one"}, {"authorization": "Bearer one"}):
        assert (await http.get("/azure/openai/v1/files", headers=headers)).status_code == 200


async def test_organization_and_project_are_accepted(openai_client):
    assert await openai_client.with_options(organization="org-1", project="proj_1").models.list()


async def test_unknown_routes_and_methods_are_refused_in_the_providers_shape(http: httpx.AsyncClient):
    for path in ("/openai/v1/nothing", "/openai/v1/files/"):
        answer = await http.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    wrong = await http.put("/openai/v1/files")
    assert wrong.status_code == 405
    assert wrong.json()["error"]["code"] == "method_not_supported"
    azure = await http.get("/azure/openai/v1/nothing")
    assert azure.json() == {"error": {"code": "404", "message": "Resource not found"}}


async def test_models(client):
    models = await client.models.list()
    assert "gpt-4o-mini" in [model.id for model in models.data]
    assert (await client.models.retrieve("gpt-4o")).object == "model"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-0")
