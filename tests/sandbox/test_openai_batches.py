"""The Batch API of OpenAI and Azure, through the official clients."""

import hashlib
import json

import openai
import pytest

from tests.sandbox.conftest import Switchboard

_CHAT = "/v1/chat/completions"
_DAY_SECONDS = 24 * 3600


def _line(custom_id: str, text: object, **changes: object) -> dict:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "method": "POST", "url": _CHAT, "body": body, **changes}


def _lines(*texts: str) -> bytes:
    return _jsonl(*(_line(f"r{number}", text) for number, text in enumerate(texts)))


def _jsonl(*lines: dict) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def _create(client: openai.AsyncOpenAI, content: bytes, **options):
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    values = {"input_file_id": file.id, "endpoint": _CHAT, "completion_window": "24h", **options}
    return await client.batches.create(**values)


async def _read(client: openai.AsyncOpenAI, file_id: str) -> dict[str, dict]:
    """The lines of a result file by custom_id."""
    content = await client.files.content(file_id)
    lines = [json.loads(line) for line in content.text.splitlines()]
    assert all(line["id"].startswith("batch_req_") for line in lines)
    return {line["custom_id"]: line for line in lines}


def _counted(batch: openai.types.Batch) -> tuple[int, int, int]:
    counts = batch.request_counts
    return counts.total, counts.completed, counts.failed


def _text(line: dict) -> str:
    assert (line["error"], line["response"]["status_code"]) == (None, 200)
    return line["response"]["body"]["choices"][0]["message"]["content"]


async def test_a_batch_lives_from_create_to_its_output(client, switchboard: Switchboard):
    texts = ["one", "slow:60"]
    created = await _create(client, _lines(*texts), metadata={"filemux": "its name", "by": "me"})
    assert (created.object, created.status, created.endpoint) == ("batch", "validating", _CHAT)
    assert created.metadata == {"filemux": "its name", "by": "me"}
    assert _counted(created) == (2, 0, 0)
    assert created.expires_at == created.created_at + _DAY_SECONDS
    await switchboard.advance(10)
    running = await client.batches.retrieve(created.id)
    assert (running.status, running.in_progress_at) == ("in_progress", created.created_at + 1)
    assert _counted(running) == (2, 1, 0)
    await switchboard.advance(50)
    done = await client.batches.retrieve(created.id)
    assert (done.status, done.completed_at, done.errors) == ("completed", created.created_at + 60, None)
    assert _counted(done) == (2, 2, 0)
    answers = await _read(client, done.output_file_id)
    assert {key: _text(line) for key, line in answers.items()} == {"r0": "one", "r1": "slow:60"}
    tokens = sum(line["response"]["body"]["usage"]["total_tokens"] for line in answers.values())
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens == tokens
    output = await client.files.retrieve(done.output_file_id)
    assert (output.purpose, output.created_at) == ("batch_output", done.completed_at)
    [shown] = (await switchboard.http.get("/_sandbox/state")).json()["batches"]
    assert (shown["id"], shown["name"], shown["state"], shown["lines"]) == (created.id, "its name", "done", 2)


async def test_only_azure_has_an_error_file_when_no_line_failed(openai_client, azure_client, switchboard: Switchboard):
    batches = {client: await _create(client, _lines("one")) for client in (openai_client, azure_client)}
    await switchboard.advance(2)
    assert (await openai_client.batches.retrieve(batches[openai_client].id)).error_file_id is None
    done = await azure_client.batches.retrieve(batches[azure_client].id)
    assert (await azure_client.files.content(done.error_file_id)).read() == b""


async def test_lines_that_fail_are_told_apart(client, switchboard: Switchboard):
    strange = _line("strange", "hello")
    strange["body"]["temperature"] = 3
    lines = _jsonl(_line("well", "fine"), _line("told", "fail:429"), strange)
    batch = await _create(client, lines)
    await switchboard.advance(2)
    done = await client.batches.retrieve(batch.id)
    assert (done.status, _counted(done)) == ("completed", (3, 1, 2))
    assert (await _read(client, done.output_file_id)).keys() == {"well"}
    errors = await _read(client, done.error_file_id)
    assert {key: line["response"]["status_code"] for key, line in errors.items()} == {"told": 429, "strange": 400}
    assert errors["strange"]["response"]["body"]["error"]["param"] == "temperature"


async def test_lines_refer_to_files_of_their_own_account(openai_client, sandbox, switchboard: Switchboard):
    pdf = await openai_client.files.create(file=("a.pdf", b"%PDF-1.4"), purpose="user_data")
    lines = _lines([{"type": "file", "file": {"file_id": pdf.id}}, {"type": "text", "text": "read"}])
    async with openai.AsyncOpenAI(base_url=f"{sandbox.base_url}/openai/v1", api_key="sk-two", max_retries=0) as other:
        batches = {client: await _create(client, lines) for client in (openai_client, other)}
        await switchboard.advance(2)
        done = await openai_client.batches.retrieve(batches[openai_client].id)
        assert hashlib.sha256(b"%PDF-1.4").hexdigest() in _text((await _read(openai_client, done.output_file_id))["r0"])
        failed = await other.batches.retrieve(batches[other].id)
        assert failed.output_file_id is None
        assert (await _read(other, failed.error_file_id))["r0"]["response"]["status_code"] == 404


async def test_a_cancelled_batch_keeps_what_was_done(client, switchboard: Switchboard):
    batch = await _create(client, _lines("quick", "slow:60"))
    await switchboard.advance(10)
    cancelling = await client.batches.cancel(batch.id)
    assert cancelling.status == "cancelling"
    await switchboard.advance(1)
    done = await client.batches.retrieve(batch.id)
    assert (done.status, _counted(done)) == ("cancelled", (2, 1, 0))
    assert done.cancelled_at == cancelling.cancelling_at + 1
    assert _text((await _read(client, done.output_file_id))["r0"]) == "quick"
    [unrun] = (await _read(client, done.error_file_id)).values()
    assert (unrun["custom_id"], unrun["response"], unrun["error"]["code"]) == ("r1", None, "batch_cancelled")


async def test_what_has_ended_cannot_be_cancelled(openai_client, azure_client, switchboard: Switchboard):
    for client, status in ((openai_client, 409), (azure_client, 400)):
        batch = await _create(client, _lines("one"))
        await switchboard.advance(2)
        with pytest.raises(openai.APIStatusError, match="status 'completed'") as refused:
            await client.batches.cancel(batch.id)
        assert refused.value.status_code == status


async def test_a_batch_expires_after_a_day_but_not_at_azure(openai_client, azure_client, switchboard: Switchboard):
    clients = (openai_client, azure_client)
    batches = {client: await _create(client, _lines("quick", "slow:100000")) for client in clients}
    await switchboard.advance(_DAY_SECONDS)
    expired = await openai_client.batches.retrieve(batches[openai_client].id)
    assert (expired.status, expired.expired_at) == ("expired", expired.expires_at)
    assert _text((await _read(openai_client, expired.output_file_id))["r0"]) == "quick"
    [unrun] = (await _read(openai_client, expired.error_file_id)).values()
    assert (unrun["custom_id"], unrun["error"]["code"]) == ("r1", "batch_expired")
    assert (await azure_client.batches.retrieve(batches[azure_client].id)).status == "in_progress"
    await switchboard.advance(_DAY_SECONDS)
    assert (await azure_client.batches.retrieve(batches[azure_client].id)).status == "completed"


async def test_results_expire_when_they_were_told_to(openai_client, switchboard: Switchboard):
    expiry = {"anchor": "created_at", "seconds": 3600}
    batch = await _create(openai_client, _lines("one"), output_expires_after=expiry)
    await switchboard.advance(2)
    done = await openai_client.batches.retrieve(batch.id)
    await switchboard.advance(3600)
    with pytest.raises(openai.NotFoundError):
        await openai_client.files.content(done.output_file_id)


async def test_a_batch_whose_input_is_deleted_fails(openai_client, switchboard: Switchboard):
    batch = await _create(openai_client, _lines("one"))
    await openai_client.files.delete(batch.input_file_id)
    await switchboard.advance(2)
    failed = await openai_client.batches.retrieve(batch.id)
    assert (failed.status, failed.errors.data[0].code) == ("failed", "input_modified")


@pytest.mark.parametrize(
    ("content", "code", "line", "param"),
    [
        (b"\n\n", "empty_file", None, None),
        (b"\xef\xbb\xbf" + _lines("one"), "invalid_json_line", 1, None),
        (_lines("one") + b"{", "invalid_json_line", 2, None),
        (_lines("one") + b"[]\n", "invalid_request", 2, None),
        (_jsonl(_line("", "one")), "invalid_request", 1, "custom_id"),
        (_jsonl(_line("r", "one", method="GET")), "invalid_request", 1, "method"),
        (_jsonl(_line("r", "one", priority=1)), "invalid_request", 1, "priority"),
        (_jsonl(_line("r", "one", url="/v1/embeddings")), "url_mismatch", 1, "url"),
        (_jsonl(_line("r", "one"), _line("r", "two")), "duplicate_custom_id", 2, "custom_id"),
        (_jsonl(_line("r", "one", body={"model": "gpt-9"})), "model_not_found", 1, "body.model"),
        (_jsonl(_line("r", "one", body={})), "model_not_found", 1, "body.model"),
        (_jsonl(_line("a", ""), _line("b", "", body={"model": "o3"})), "model_mismatch", 2, "body.model"),
    ],
)
async def test_lines_that_make_no_batch_fail_it(client, switchboard: Switchboard, content, code, line, param):
    batch = await _create(client, content)
    assert (batch.status, batch.errors) == ("validating", None)
    await switchboard.advance(1)
    failed = await client.batches.retrieve(batch.id)
    assert (failed.status, failed.failed_at, failed.in_progress_at) == ("failed", batch.created_at + 1, None)
    [error] = failed.errors.data
    assert (error.code, error.line, error.param) == (code, line, param)
    assert (failed.output_file_id, failed.error_file_id) == (None, None)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, "output_expires_after.seconds"),
        ({"extra_body": {"priority": 1}}, None),
    ],
)
async def test_bad_parameters_are_refused(client, changes, param):
    with pytest.raises(openai.BadRequestError) as refused:
        await _create(client, _lines("one"), **changes)
    assert refused.value.param == param


async def test_an_input_of_another_purpose_is_refused(client):
    file = await client.files.create(file=("in.jsonl", _lines("one")), purpose="assistants")
    with pytest.raises(openai.BadRequestError) as refused:
        await _create(client, _lines("one"), input_file_id=file.id)
    assert refused.value.param == "input_file_id"


async def test_the_iterator_walks_every_page_newest_first(client):
    ids = [(await _create(client, _lines("one"))).id for _ in range(3)]
    assert [batch.id async for batch in client.batches.list(limit=2)] == ids[::-1]
    page = await client.batches.list(limit=1, after=ids[1])
    assert [batch.id for batch in page.data] == [ids[0]] and not page.has_more
    with pytest.raises(openai.BadRequestError):
        await client.batches.list(limit=101)


async def test_an_unknown_batch_is_a_404(client):
    for verb in (client.batches.retrieve, client.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            await verb("batch_none")


async def test_azures_shorter_endpoint(azure_client, switchboard: Switchboard):
    line = _line("r", "one", url="/chat/completions")
    batch = await _create(azure_client, _jsonl(line), endpoint="/chat/completions")
    await switchboard.advance(2)
    assert (await azure_client.batches.retrieve(batch.id)).status == "completed"
