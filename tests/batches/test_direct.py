"""Batches at one account, of which no row is made: by sealed ids, and by the provider's own."""

import json

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.formats.batch_lines import MAX_LINE_BYTES
from tests.support.batches import answer_in, create, ended, jsonl, line, lines_of
from tests.support.sandbox import eventually

# Those that take a batch's lines as a file.
MODEL_NAMES = ("gpt-4o-mini-openai", "gpt-4o-azure", "gemini-flash", "gemini-2.0-flash", "nova-lite")
LINES = [line("one", "the-model", "slow:60 Hello"), line("two", "the-model", "fail:400 please")]

# What orjson reads, and does not write.
DEEP = json.loads("[" * 300 + "]" * 300)


def sealed_input(client, model, lines=LINES):
    """The sealed id of a file with these lines, for this model name, whatever they name."""
    lines = [{**one, "body": {**one["body"], "model": model}} for one in lines]
    return client.files.create(file=("lines.jsonl", jsonl(lines)), purpose="batch", extra_body={"model": model}).id


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_a_sealed_input_makes_a_sealed_batch(client, six_clients, sandbox, model):
    batch = create(client, sealed_input(client, model), metadata={"for": "a test"})
    assert batch.id.startswith("batch_")
    assert batch.status in ("validating", "in_progress")
    sandbox.advance(60)
    found = ended(client, batch, sandbox)
    assert (found.id, found.status) == (batch.id, "completed")
    assert (found.request_counts.total, found.request_counts.completed, found.request_counts.failed) == (2, 1, 1)
    assert answer_in(lines_of(client, found.output_file_id)["one"]) == "slow:60 Hello"
    assert lines_of(client, found.error_file_id)["two"]["response"]["status_code"] == 400
    assert client.files.retrieve(found.output_file_id).purpose == "batch_output"
    assert client.batches.list().data == []
    listed = six_clients.admin.batches.list(extra_query={"model": model}).data
    assert [one.request_counts.total for one in listed] == [2]
    for file_id in (found.output_file_id, batch.input_file_id):
        assert client.files.delete(file_id).deleted
    other = six_clients.member()
    for call in (other.batches.retrieve, other.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            call(batch.id)


def test_a_sealed_batch_is_cancelled(client, sandbox):
    lines = [line("one", "x", "slow:80000")]
    batch = create(client, sealed_input(client, "gpt-4o-mini-openai", lines))
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    assert ended(client, batch, sandbox).status == "cancelled"


def test_anthropic_takes_no_file(client):
    with pytest.raises(openai.BadRequestError) as refused:
        sealed_input(client, "claude-sonnet")
    assert "target_model_names" in refused.value.message


def test_a_line_that_cannot_be_translated_fails_the_upload(client, sandbox):
    lines = [line("one", "x", "Hello"), line("two", "x", "Hello", n="many")]
    with pytest.raises(openai.BadRequestError) as refused:
        sealed_input(client, "gemini-flash", lines)
    assert "line 2" in refused.value.message
    assert sandbox.files == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\xef\xbb\xbf" + jsonl(LINES), "invalid_json_line"),
        (jsonl(LINES) + b"{\n", "invalid_json_line"),
        (jsonl(LINES) + b'{"custom_id": "' + b"x" * MAX_LINE_BYTES, "invalid_request"),
        (jsonl([line("one", "x", "Hello", deep=DEEP)]), "invalid_request"),
    ],
    ids=["byte order mark", "no JSON", "too long", "too deep"],
)
def test_a_file_that_no_batch_can_have(client, sandbox, content, code):
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("lines.jsonl", content), purpose="batch", extra_body={"model": "gemini-flash"})
    assert (refused.value.code, refused.value.param) == (code, "file")
    assert sandbox.files == []


@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "deep"}])
def test_requests_that_are_nested_too_deep(client, headers):
    body = {"requests": [line("one", "gemini-flash", "Hello", deep=DEEP)]}
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, "", extra_body=body, extra_headers=headers)
    assert "cannot be written" in refused.value.message


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_requests_that_the_provider_refuses_leave_no_lines(six_clients, sandbox, provider):
    sandbox.fault(provider, "create_batch", status=400)
    body = {"provider": provider, "model": "the-model", "requests": LINES}
    with pytest.raises(openai.BadRequestError):
        create(six_clients.admin, "", extra_body=body)
    assert sandbox.calls(f"{provider}.upload_file") == 1
    assert sandbox.files == []


def test_lines_in_the_providers_own_format_pass_as_they_are(six_clients, sandbox):
    content = json.dumps({"key": "one", "request": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}})
    admin = six_clients.admin
    file = admin.files.create(
        file=("lines.jsonl", content.encode()), purpose="batch", extra_body={"provider": "gemini"}
    )
    provider = {"provider": "gemini"}
    batch = create(admin, file, extra_body={**provider, "model": "gemini-2.0-flash"})
    found = ended(admin, batch, sandbox, extra_query=provider)
    output = admin.files.content(found.output_file_id, extra_query=provider).read()
    assert json.loads(output)["custom_id"] == "one"


def test_raw_ids_need_the_permission_and_are_never_another_teams(client, six_clients, sandbox):
    lines = [line("one", "gpt-4o-mini-openai", "slow:80000")]
    file = client.files.create(
        file=("lines.jsonl", jsonl(lines)), purpose="batch", extra_body={"target_model_names": "gpt-4o-mini-openai"}
    )
    batch = create(client, file)
    assert eventually(lambda: client.batches.retrieve(batch.id).status == "in_progress")
    [held] = sandbox.state()["batches"]
    provider = {"provider": "openai"}
    with pytest.raises(openai.PermissionDeniedError):
        client.batches.retrieve(held["id"], extra_query=provider)
    admin = six_clients.client(six_clients.new_key(role="admin")["key"])
    with pytest.raises(openai.NotFoundError):
        admin.batches.retrieve(held["id"], extra_query=provider)
    assert admin.batches.list(extra_query=provider).data == []


@pytest.fixture(scope="module")
def sealed_ids(six):
    """A sealed file and a sealed batch of one team, and the client that has them."""
    from tests.conftest import Clients

    clients = Clients(six.url)
    client = clients.member()
    file_id = sealed_input(client, "gpt-4o-mini-openai", [line("one", "x", "slow:80000")])
    yield client, file_id, create(client, file_id).id
    clients.close()


def routes(client, batch_id, file_id):
    """Every route that an id of a batch, or of its input, may be sent to."""
    yield lambda: client.batches.retrieve(batch_id)
    yield lambda: client.batches.cancel(batch_id)
    yield lambda: create(client, file_id)


@settings(max_examples=40)
@given(data=st.data())
def test_a_forged_id_is_one_that_never_existed(sealed_ids, data):
    client, file_id, batch_id = sealed_ids

    def altered(text):
        at = data.draw(st.integers(6, len(text) - 1))
        other = data.draw(st.sampled_from("ABCdef019-_"))
        kinds = {
            "flip": text[:at] + other + text[at + 1 :],
            "cut": text[:at],
            "longer": text + other,
            "kind": ("file-" if text.startswith("batch_") else "batch_")
            + text.partition("_" if "batch_" in text else "-")[2],
        }
        return kinds[data.draw(st.sampled_from(sorted(kinds)))]

    forged_batch, forged_file = altered(batch_id), altered(file_id)
    if forged_batch == batch_id or forged_file == file_id:
        return
    for call in routes(client, forged_batch, forged_file):
        with pytest.raises(openai.NotFoundError) as refused:
            call()
        assert refused.value.code == "not_found"
        assert "No such" in refused.value.message
