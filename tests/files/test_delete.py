"""DELETE /files/{id}: gone for everybody at once, and gone at every provider for certain."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.support.sandbox import eventually
from tests.support.uploads import BATCH_LINE, refusal, upload

FOREVER = -1


def chat_about(http, file_id):
    """The answer to a chat that mentions the file in its second part."""
    content = [{"type": "text", "text": "Hello"}, {"type": "file", "file": {"file_id": file_id}}]
    return http.post("/chat/completions", json={"model": "mini", "messages": [{"role": "user", "content": content}]})


def assert_gone(http, file_id):
    """No route knows the file."""
    for verb, path in (("GET", "/files/{}"), ("GET", "/files/{}/content"), ("DELETE", "/files/{}")):
        message = refusal(http.request(verb, path.format(file_id)), 404, "not_found", "id")
        assert message == f"No such File object: {file_id}"
    where = "messages[0].content[1].file.file_id"
    assert where in refusal(chat_about(http, file_id), 400, "file_not_found", where)
    assert file_id not in [file["id"] for file in http.get("/files").json()["data"]]


async def test_a_healthy_provider_has_deleted_before_the_answer(member, sandbox, rows, filename):
    file = upload(member, "mini,four,azure,pair", filename=filename)
    assert len(sandbox.files) == 3
    assert member.files.delete(file.id).to_dict() == {"id": file.id, "object": "file", "deleted": True}
    assert sandbox.files == []
    assert await rows.mappings(filename) == await rows.backlog(filename) == []


async def test_a_provider_that_answers_503_is_asked_until_it_has_deleted(member, http, sandbox, rows, filename):
    file = upload(member, filename=filename, content=BATCH_LINE, purpose="batch")
    assert chat_about(http, file.id).status_code == 200
    sandbox.fault("azure", "delete_file", status=503, times=FOREVER)
    assert member.files.delete(file.id).deleted
    assert [one["provider"] for one in sandbox.files] == ["azure"]
    assert_gone(http, file.id)
    [due] = await rows.backlog(filename)
    assert (due["provider"], due["state"]) == ("azure", "deleting")
    assert "503" in due["last_error"]
    assert eventually(lambda: sandbox.calls("azure.delete_file") >= 2)
    assert [one["provider"] for one in sandbox.files] == ["azure"]
    sandbox.heal()
    await rows.lease_ends(filename)
    assert await rows.forgotten(filename)
    assert sandbox.files == []
    assert sandbox.calls("openai.delete_file") == 1
    assert await rows.backlog(filename) == []
    assert_gone(http, file.id)


@pytest.mark.parametrize("fault", [{"status": 429, "retry_after_seconds": 1}, {"status": 401}, {"lose_answer": True}])
async def test_whatever_else_goes_wrong_is_tried_again(member, sandbox, rows, filename, fault):
    file = upload(member, filename=filename)
    sandbox.fault("*", "delete_file", times=2, **fault)
    assert member.files.delete(file.id).deleted
    assert await rows.forgotten(filename)
    assert sandbox.files == []


async def test_a_provider_that_has_lost_the_file_already(member, sandbox, rows, filename):
    file = upload(member, "mini", filename=filename)
    [held] = sandbox.files
    with openai.OpenAI(base_url=f"{sandbox.url}/openai/v1", api_key="sk-first") as provider:
        provider.files.delete(held["id"])
    assert member.files.delete(file.id).deleted
    assert await rows.forgotten(filename)


async def test_a_provider_that_hangs_does_not_keep_the_client(member, sandbox, rows, filename):
    file = upload(member, filename=filename)
    sandbox.fault("azure", "delete_file", delay_seconds=600)
    assert member.files.delete(file.id).deleted
    assert [one["provider"] for one in sandbox.files] == ["azure"]
    with pytest.raises(openai.NotFoundError):
        member.files.retrieve(file.id)
    sandbox.release("azure.delete_file")
    assert await rows.forgotten(filename)
    assert sandbox.files == []


def test_a_second_delete_finds_nothing(member):
    file = upload(member, "mini")
    member.files.delete(file.id)
    with pytest.raises(openai.NotFoundError):
        member.files.delete(file.id)


async def test_of_many_deletes_at_once_one_succeeds(member, sandbox, rows, filename):
    file = upload(member, filename=filename)
    headers = {"authorization": f"Bearer {member.api_key}"}
    url = f"{member.base_url}files/{file.id}"
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: httpx.delete(url, headers=headers, timeout=60).status_code, range(8)))
    assert sorted(statuses) == [200, *[404] * 7]
    assert await rows.forgotten(filename)
    assert sandbox.files == []


@pytest.mark.parametrize("file_id", ["file-mux-" + "0" * 32, "file-abc", "file-mux-1"])
def test_what_never_existed(http, file_id):
    refusal(http.delete(f"/files/{file_id}"), 404, "not_found", "id")
