"""LiteLLM, "Provider Files Endpoints": https://docs.litellm.ai/docs/files_endpoints"""

import pytest

from app.sandbox.store import account_digest
from tests.public_examples.pages import CHAT, answers, jsonl

WAV = b"RIFF\x24\x00\x00\x00WAVEfmt "
OPENAI = {"custom-llm-provider": "openai"}
# The three ways of the section "Parameter Options".
WAYS = {
    "request body": {"extra_body": {"model": "gpt-4o-litellm"}},
    "query parameter": {"extra_query": {"model": "gpt-4o-litellm"}},
    "header": {"extra_headers": {"x-litellm-model": "gpt-4o-litellm"}},
}
# A GET's extra_body is not sent by the SDK of today.
OF_A_GET = ["query parameter", "header"]


def batch_of(client, file):
    return client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")


# The page does not show its batch_data.jsonl: its lines may name the model either way.
@pytest.mark.parametrize("model", ["gpt-4o-litellm", "gpt-4o"])
def test_multi_account_usage_example(connect, finished, model):
    client = connect()
    file = client.files.create(
        file=("batch_data.jsonl", jsonl(model, "Hello world!")),
        purpose="batch",
        extra_body={"model": "gpt-4o-litellm"},
    )
    assert file.id.startswith("file-")
    batch = batch_of(client, file)
    assert batch.id.startswith("batch_")
    assert client.batches.retrieve(batch.id).id == batch.id
    # Nothing of it is sent: these are the team's own files, and none of an account.
    assert client.files.list(extra_body={"model": "gpt-4o-free"}).object == "list"
    listed = client.batches.list(extra_query={"model": "gpt-4o-litellm"})
    assert batch.id in [one.id for one in listed.data]
    # What the page leaves out: the end.
    ended = finished(lambda: client.batches.retrieve(batch.id))
    assert "Hello world!" in answers(client.files.content(ended.output_file_id).text)["request-1"]


@pytest.mark.parametrize("way", WAYS)
def test_parameter_options_of_create(connect, way, sandbox):
    client = connect()
    file = client.files.create(file=("batch_data.jsonl", jsonl("gpt-4o", "Hello world!")), purpose="batch", **WAYS[way])
    [stored] = sandbox.files
    assert stored["account"] == account_digest("sk-litellm")
    assert client.files.retrieve(file.id).filename == "batch_data.jsonl"
    assert client.files.delete(file.id).deleted
    assert sandbox.files == []


@pytest.mark.parametrize("way", OF_A_GET)
def test_parameter_options_of_list(connect, way):
    client = connect()
    lines = ("batch_data.jsonl", jsonl("gpt-4o", "Hello world!"))
    here = client.files.create(file=lines, purpose="batch", extra_body={"model": "gpt-4o-litellm"})
    elsewhere = client.files.create(file=lines, purpose="batch", extra_body={"model": "gpt-4o-free"})
    listed = [one.id for one in client.files.list(**WAYS[way]).data]
    assert here.id in listed
    assert elsewhere.id not in listed
    batch = batch_of(client, here)
    assert batch.id in [one.id for one in client.batches.list(**WAYS[way]).data]


def test_migration_from_files_settings(connect):
    client = connect()
    file = client.files.create(
        file=("batch_data.jsonl", jsonl("gpt-4o-account1", "Hello world!")),
        purpose="batch",
        extra_body={"model": "gpt-4o-account1"},
    )
    assert client.files.retrieve(file.id).id == file.id
    assert batch_of(client, file).input_file_id == file.id


@pytest.fixture
def wav(connect):
    """A client of the section "LiteLLM PROXY Server", and what its "Upload a File" makes."""
    client = connect("/v1")
    return client, client.files.create(file=WAV, purpose="user_data", extra_headers=OPENAI)


def test_upload_a_file(wav, sandbox):
    _, file = wav
    assert (file.object, file.bytes, file.purpose) == ("file", len(WAV), "user_data")
    assert [one["id"] for one in sandbox.files] == [file.id]


def test_list_files(wav):
    client, file = wav
    assert file.id in [one.id for one in client.files.list(extra_headers=OPENAI).data]


def test_retrieve_file_information(wav):
    client, file = wav
    assert client.files.retrieve(file_id=file.id, extra_headers=OPENAI) == file


def test_delete_file(wav, sandbox):
    client, file = wav
    assert client.files.delete(file_id=file.id, extra_headers=OPENAI).deleted
    assert sandbox.files == []


def test_get_file_content(connect):
    # OpenAI gives files of purpose user_data to nobody (wire.md §1), so the page's example is one of a batch.
    client, lines = connect("/v1"), jsonl("gpt-4o-mini", "Hello world!")
    file = client.files.create(file=lines, purpose="batch", extra_headers=OPENAI)
    assert client.files.content(file_id=file.id, extra_headers=OPENAI).read() == lines
