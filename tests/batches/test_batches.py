"""One batch format for every provider: lines in, one batch, one output."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai.types.chat import ChatCompletion

from tests.support.batches import answer_in, create, ended, jsonl, line, lines_of, upload_lines
from tests.support.chats import MODEL_NAMES, file_part, seen
from tests.support.sandbox import eventually
from tests.support.uploads import PDF, upload

every_model = pytest.mark.parametrize("model_name", MODEL_NAMES)


def nothing_left(sandbox, *kept):
    """Whether the providers soon hold nothing of a batch any more but these files' replicas."""
    return eventually(lambda: {file["filename"] for file in sandbox.files} <= set(kept) and sandbox.files)


@every_model
def test_a_batch_at_every_provider(client, sandbox, model_name):
    document = upload(client, model_name, PDF, filename="a.pdf")
    lines = [
        line("one", model_name, "Hello"),
        line("two" * 25, model_name, file_part(document.id), "What is in it?"),
        line("three", model_name, "fail:400 please"),
    ]
    batch = create(client, upload_lines(client, lines), metadata={"for": "a test"})
    assert (batch.object, batch.status, batch.metadata) == ("batch", "validating", {"for": "a test"})
    assert batch.request_counts.total == 3
    batch = ended(client, batch, sandbox)
    assert batch.status == "completed", batch.to_dict()
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 1)
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens > 0
    output, errors = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
    assert (set(output), set(errors)) == ({"one", "two" * 25}, {"three"})
    assert answer_in(output["one"]) == "Hello"
    assert seen("a.pdf", PDF).partition("bytes=")[2] in answer_in(output["two" * 25])
    for found in output.values():
        ChatCompletion.model_validate(found["response"]["body"])
    failed = errors["three"]["response"]
    assert failed["status_code"] == 400
    assert failed["body"]["error"]["message"]
    assert {client.files.retrieve(one).purpose for one in (batch.output_file_id, batch.error_file_id)} == {
        "batch_output"
    }
    assert nothing_left(sandbox, "a.pdf", "lines.jsonl")


def test_one_batch_on_six_providers(client, sandbox):
    lines = [line(f"{name}-{number}", name, f"say {number}") for number in range(3) for name in MODEL_NAMES]
    batch = ended(client, create(client, upload_lines(client, lines)), sandbox)
    assert batch.status == "completed", batch.to_dict()
    assert batch.error_file_id is None
    output = lines_of(client, batch.output_file_id)
    assert {custom_id: answer_in(found) for custom_id, found in output.items()} == {
        one["custom_id"]: f"say {one['custom_id'][-1]}" for one in lines
    }
    providers = {one["provider"] for one in sandbox.state()["batches"]}
    assert providers <= {"openai", "azure", "anthropic", "gemini", "vertex_ai", "bedrock"}
    assert sandbox.calls("openai.create_batch") == 1
    assert nothing_left(sandbox, "lines.jsonl")


def test_a_line_may_name_the_providers_own_model(client, sandbox):
    lines = [line("one", "gpt-4o-mini", "Hello"), line("two", "openai/gpt-4o-mini", "Hello")]
    file = upload_lines(client, lines, "gpt-4o-mini-openai")
    batch = ended(client, create(client, file), sandbox)
    assert set(lines_of(client, batch.output_file_id)) == {"one", "two"}
    assert batch.model == "gpt-4o-mini-openai"


def test_requests_in_the_body(client, sandbox):
    requests = [{"custom_id": "one", "body": line("", "x", "Hello")["body"]}]
    for request in requests:
        del request["body"]["model"]
    batch = client.batches.create(
        input_file_id="",
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"requests": requests, "model": "gpt-4o-mini-openai"},
    )
    assert answer_in(lines_of(client, ended(client, batch, sandbox).output_file_id)["one"]) == "Hello"


def test_a_running_batch_is_cancelled_and_what_has_run_is_kept(client, sandbox):
    lines = [line("quick", "gpt-4o-mini-openai", "Hello"), line("slow", "gpt-4o-mini-openai", "slow:80000")]
    batch = create(client, upload_lines(client, lines))
    assert eventually(lambda: client.batches.retrieve(batch.id).status == "in_progress")
    sandbox.advance(10)
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    batch = ended(client, batch, sandbox)
    assert (batch.status, batch.cancelling_at is not None) == ("cancelled", True)
    assert set(lines_of(client, batch.output_file_id)) == {"quick"}
    assert lines_of(client, batch.error_file_id)["slow"]["error"]["code"] == "batch_cancelled"
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.cancel(batch.id)
    assert refused.value.code == "batch_not_cancellable"


def test_a_batch_that_expires_keeps_what_has_run(client, sandbox):
    lines = [line("quick", "gpt-4o-mini-openai", "Hello"), line("slow", "gpt-4o-mini-openai", "slow:900000")]
    batch = create(client, upload_lines(client, lines))
    assert eventually(lambda: client.batches.retrieve(batch.id).status == "in_progress")
    sandbox.advance(25 * 3600)
    batch = ended(client, batch)
    assert batch.status == "expired"
    assert set(lines_of(client, batch.output_file_id)) == {"quick"}
    assert lines_of(client, batch.error_file_id)["slow"]["error"]["code"] == "batch_expired"


def test_a_page_of_batches(client):
    file = upload_lines(client, [line("one", "gpt-4o-mini-openai", "Hello")])
    made = [create(client, file).id for _ in range(3)]
    assert [one.id for one in client.batches.list(limit=2)] == made[::-1]
    assert client.batches.list(limit=2).has_more


def test_another_teams_batch_does_not_exist(client, six_clients):
    batch = create(client, upload_lines(client, [line("one", "gpt-4o-mini-openai", "Hello")]))
    other = six_clients.member()
    for call in (other.batches.retrieve, other.batches.cancel):
        with pytest.raises(openai.NotFoundError) as refused:
            call(batch.id)
        assert refused.value.code == "not_found"
    with pytest.raises(openai.NotFoundError):
        create(other, batch.input_file_id)
    assert other.batches.list().data == []


@pytest.mark.parametrize(
    ("second", "code", "where"),
    [
        (b"not json", "invalid_json_line", "line 2"),
        (json.dumps(line("one", "gpt-4o-mini-openai", "x")).encode(), "duplicate_custom_id", "line 2"),
        (json.dumps(line("two", "gpt-4o-mini-openai", "x", url="/v1/nothing")).encode(), "invalid_url", "line 2"),
        (json.dumps(line("two", "gpt-4o-mini-openai", "x", url="/v1/embeddings")).encode(), "url_mismatch", "line 2"),
        (json.dumps(line("two", "gpt-4o-mini-openai", "x", stream=True)).encode(), "invalid_request", "line 2"),
    ],
)
def test_a_line_that_is_wrong_fails_the_upload(client, sandbox, second, code, where):
    content = jsonl([line("one", "gpt-4o-mini-openai", "x")]) + second
    with pytest.raises(openai.BadRequestError) as refused:
        upload(client, "gpt-4o-mini-openai", content, filename="lines.jsonl", purpose="batch")
    assert refused.value.code == code
    assert refused.value.message.startswith("Error code: 400") and where in refused.value.message
    assert eventually(lambda: sandbox.files == [])


def test_a_model_that_the_key_may_not_use_is_named_with_its_lines(six_clients):
    team = six_clients.new_team()
    lines = [line(str(n), ("gpt-4o-mini-openai", "claude-sonnet")[n % 2], "x") for n in range(4)]
    file = upload_lines(six_clients.member(team), lines)
    limited = six_clients.member(team, models=["gpt-4o-mini-openai"])
    with pytest.raises(openai.PermissionDeniedError) as refused:
        create(limited, file)
    assert "lines 2, 4" in refused.value.message and "claude-sonnet" in refused.value.message


def test_what_a_provider_cannot_do_fails_the_batch_before_it_runs(client, sandbox):
    lines = [line("one", "claude-sonnet", "Hello"), line("two", "claude-sonnet", "Hello", n=3)]
    batch = ended(client, create(client, upload_lines(client, lines)), sandbox)
    assert batch.status == "failed"
    [error] = batch.errors.data
    assert (error.line, error.param) == (2, "n")
    assert sandbox.calls("anthropic.create_batch") == 0


def test_the_same_idempotency_key_makes_one_batch(client, sandbox):
    file = upload_lines(client, [line("one", "gpt-4o-mini-openai", "Hello")])
    headers = {"Idempotency-Key": "once"}
    first, second = (create(client, file, extra_headers=headers) for _ in range(2))
    assert first.id == second.id
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, file, extra_headers=headers, metadata={"another": "thing"})
    assert refused.value.code == "idempotency_key_reused"
    ended(client, first, sandbox)
    assert sandbox.calls("openai.create_batch") == 1


def test_requests_that_come_several_times_at_once_with_an_idempotency_key_are_kept_once(client):
    requests = [{"custom_id": "one", "body": line("", "gpt-4o-mini-openai", "Hello")["body"]}]
    options = {"extra_body": {"requests": requests}, "extra_headers": {"Idempotency-Key": "once"}}
    with ThreadPoolExecutor(8) as threads:
        batches = list(threads.map(lambda _: create(client, "", **options), range(8)))
    assert len({batch.id for batch in batches}) == 1
    assert [file.id for file in client.files.list(purpose="batch")] == [batches[0].input_file_id]
