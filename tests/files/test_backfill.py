"""Replicas that are made after the upload, from the bytes that are kept: for a model name that it did not ask for, and
for a target that did not take the file at first."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.conftest import configuration
from tests.support.chats import answer_of, ask, file_part, seen, text_part
from tests.support.sandbox import eventually
from tests.support.uploads import BATCH_LINE, PDF, refusal, sha256, upload
from tests.support.wire import Line

FOREVER = -1
# The sandbox names an account by its key's digest.
OTHER = sha256(b"sk-second")[:8]
WHERE = "messages[0].content[0].file.file_id"


def chat(http, model, file_id):
    return http.post("/chat/completions", json={"model": model, "messages": [message(file_id)]})


def message(file_id):
    return {"role": "user", "content": [file_part(file_id)]}


def accounts(sandbox):
    """Whose files the providers hold."""
    return sorted(one["account"] for one in sandbox.files)


def test_fifty_chats_with_a_model_name_that_came_after_the_upload(
    make_gateway, sandbox_process, clients_of, sandbox, tmp_path
):
    """Through two processes at once."""
    with make_gateway(directory=tmp_path) as before:
        key = clients_of(before).new_key()["key"]
        file = upload(clients_of(before).client(key), "mini")
    content = configuration(sandbox_process.url)
    params = {"model": "azure/gpt-4o", "api_base": f"{sandbox_process.url}/azure", "api_key": "new"}
    model_list = [*content["model_list"], {"model_name": "new", "litellm_params": params}]
    sandbox.fault("azure", "upload_file", delay_seconds=0.3)
    with make_gateway(directory=tmp_path, model_list=model_list, workers=2) as after, ThreadPoolExecutor(50) as pool:
        client = clients_of(after).client(key)
        answers = [pool.submit(ask, client, "new", file_part(file.id)) for _ in range(50)]
        assert {answer_of(answer.result()) for answer in answers} == {seen("a.pdf", PDF)}
        targets = client.files.retrieve(file.id).filemux["targets"]
    assert accounts(sandbox) == sorted([sha256(b"sk-first")[:8], sha256(b"new")[:8]])
    assert sandbox.calls("azure.upload_file") == 1
    assert {name for target in targets for name in target["model_names"]} == {"mini", "new"}


def test_a_provider_that_fails_is_tried_again_later(member, http, sandbox):
    file = upload(member, "mini")
    sandbox.fault("openai", "upload_file", status=500, times=FOREVER, account=OTHER)
    answer = chat(http, "other", file.id)
    message = refusal(answer, 503, "file_without_replica", WHERE)
    assert "openai did not take the file: the provider answered 500" in message
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    sandbox.heal()
    assert eventually(lambda: chat(http, "other", file.id).status_code == 200)
    assert accounts(sandbox).count(OTHER) == 1


def test_a_provider_that_asks_for_time_is_given_it(member, http, sandbox):
    file = upload(member, "mini")
    sandbox.fault("openai", "upload_file", status=429, retry_after_seconds=90)
    answer = chat(http, "other", file.id)
    refusal(answer, 503, "file_without_replica", WHERE)
    assert 60 <= int(answer.headers["retry-after"]) <= 90
    assert chat(http, "other", file.id).status_code == 503
    assert sandbox.calls("openai.upload_file") == 2
    member.files.delete(file.id)


def test_a_provider_that_refuses_the_file_is_not_asked_again(member, http, sandbox):
    file = upload(member, "mini")
    sandbox.fault("openai", "upload_file", status=400)
    for _ in range(2):
        message = refusal(chat(http, "other", file.id), 400, "file_without_replica", WHERE)
        assert "openai did not take the file: The request was refused." in message
        # `four` and `pair` are served by the same account as `mini`.
        assert message.endswith("model names that have it: mini, four, pair")
    assert sandbox.calls("openai.upload_file") == 2


def test_a_provider_that_takes_no_files_of_the_purpose(member, http, sandbox):
    file = upload(member, "mini", purpose="evals")
    message = refusal(chat(http, "azure", file.id), 400, "file_without_replica", WHERE)
    assert "which takes no files of purpose 'evals'" in message
    assert sandbox.calls("azure.upload_file") == 0


def test_a_caller_that_hangs_up_does_not_stop_it(gateway, member, sandbox):
    file = upload(member, "mini")
    sandbox.fault("openai", "upload_file", delay_seconds=600)
    gateway.log.clear()
    body = json.dumps({"model": "other", "messages": [message(file.id)]}).encode()
    with Line(gateway.url) as line:
        line.send_head("POST", "/v1/chat/completions", member.api_key, content_length=len(body))
        line.send(body)
        assert eventually(lambda: sandbox.calls("openai.upload_file") == 2)
    assert eventually(lambda: any(json.loads(entry).get("status") == 499 for entry in list(gateway.log)))
    sandbox.release()
    assert eventually(lambda: OTHER in accounts(sandbox))
    assert sandbox.calls("openai.chat") == 0
    assert seen("a.pdf", PDF) in answer_of(ask(member, "other", file_part(file.id)))
    assert sandbox.calls("openai.upload_file") == 2


@pytest.mark.parametrize("outcome", [{}, {"status": 500}, {"lose_answer": True}], ids=["made", "failed", "unknown"])
async def test_a_file_that_is_deleted_meanwhile(member, http, sandbox, rows, filename, outcome):
    content = filename.encode()
    file = upload(member, "mini", content, filename=filename)
    sandbox.fault("openai", "upload_file", delay_seconds=600, **outcome)
    sandbox.fault("openai", "upload_file", delay_seconds=0.001, times=2, **outcome)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(chat, http, "other", file.id)
        assert eventually(lambda: sandbox.calls("openai.upload_file") == 2)
        member.files.delete(file.id)
        refusal(asking.result(), 400, "file_not_found", WHERE)
    sandbox.release()
    assert await rows.forgotten(filename)
    assert sha256(content) not in {one["sha256"] for one in sandbox.files}


async def test_a_file_whose_time_has_come_is_not_made_again(member, http, sandbox, rows):
    file = upload(member, "mini")
    await rows.expire(file.id)
    refusal(chat(http, "other", file.id), 400, "file_not_found", WHERE)
    assert sandbox.calls("openai.upload_file") == 1


def test_two_files_of_one_chat(member, sandbox):
    first, second = (upload(member, one, one.encode(), filename=f"{one}.pdf") for one in ("mini", "azure"))
    answer = answer_of(ask(member, "other", file_part(first.id), file_part(second.id), text_part("Hello")))
    assert answer.splitlines() == [seen("mini.pdf", b"mini"), seen("azure.pdf", b"azure"), "Hello"]
    assert accounts(sandbox).count(OTHER) == 2


def test_lines_of_a_batch_come_from_a_provider_that_gives_them_back(keepless, sandbox):
    """The gateway keeps nothing, but OpenAI returns what batches are made of."""
    file = upload(keepless, "mini", BATCH_LINE, purpose="batch", filename="lines.pdf")
    assert seen("lines.pdf", BATCH_LINE) in answer_of(ask(keepless, "other", file_part(file.id)))
    assert accounts(sandbox).count(OTHER) == 1


# --- upload_policy: any -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def any_gateway(make_gateway):
    with make_gateway(filemux={"upload_policy": "any"}) as running:
        yield running


@pytest.fixture
def any_member(any_gateway, clients_of):
    return clients_of(any_gateway).member()


async def states(rows, filename):
    return {row["model_name"]: row["state"] for row in await rows.mappings(filename)}


async def test_any_a_target_that_failed_is_made_later_without_being_asked_for(any_member, sandbox, rows, filename):
    sandbox.fault("azure", "upload_file", status=500, times=FOREVER)
    file = upload(any_member, filename=filename)
    assert {one["account"]: one["state"] for one in file.filemux["targets"]} == {
        "azure": "failed",
        "openai-first": "stored",
    }
    assert (await rows.failed(filename, "azure"))["due_at"]
    sandbox.heal()
    assert await rows.settled(filename)
    assert await states(rows, filename) == {"azure": "stored", "mini": "stored"}
    assert {one["sha256"] for one in sandbox.files} == {sha256(PDF)}


async def test_any_a_target_that_refuses_the_file_is_not_asked_again(any_member, sandbox, rows, filename):
    sandbox.fault("azure", "upload_file", status=400)
    file = upload(any_member, filename=filename)
    assert await rows.settled(filename)
    assert await states(rows, filename) == {"azure": "failed", "mini": "stored"}
    with pytest.raises(openai.BadRequestError, match="azure did not take the file: The request was refused"):
        ask(any_member, "azure", file_part(file.id))
    assert sandbox.calls("azure.upload_file") == 1
