"""LiteLLM, "Managed Files with Batches": https://docs.litellm.ai/docs/proxy/managed_batches"""

import json

import pytest

from tests.public_examples.pages import CHAT, answers, jsonl


@pytest.fixture
def client(connect):
    return connect()


@pytest.fixture
def batch_input_file(client):
    """The page's steps 1 and 2: a request.jsonl whose model is the target."""
    return client.files.create(
        file=("request.jsonl", jsonl("gpt-4o-batch", "Hello world!", "Hello again!")),
        purpose="batch",
        extra_body={"target_model_names": "gpt-4o-batch"},
    )


def created(client, file):
    return client.batches.create(
        input_file_id=file.id,
        endpoint=CHAT,
        completion_window="24h",
        metadata={"description": "Test batch job"},
    )


def test_upload_file(batch_input_file):
    assert (batch_input_file.purpose, batch_input_file.filename) == ("batch", "request.jsonl")


def test_create_and_retrieve_the_batch(client, batch_input_file):
    batch = created(client, batch_input_file)
    assert (batch.object, batch.input_file_id) == ("batch", batch_input_file.id)
    assert batch.metadata == {"description": "Test batch job"}
    assert client.batches.retrieve(batch.id).id == batch.id


def test_retrieve_batch_content(client, batch_input_file, finished):
    batch = created(client, batch_input_file)
    batch = finished(lambda: client.batches.retrieve(batch.id))
    said = answers(client.files.content(batch.output_file_id).text)
    assert "Hello world!" in said["request-1"]
    assert "Hello again!" in said["request-2"]


def test_list_batches(client, batch_input_file):
    batch = created(client, batch_input_file)
    listed = client.batches.list(limit=10, extra_query={"target_model_names": "gpt-4o-batch"})
    assert batch.id in [one.id for one in listed.data]


def test_cancel_a_batch(client):
    file = client.files.create(
        file=("request.jsonl", jsonl("gpt-4o-batch", "slow:600")),
        purpose="batch",
        extra_body={"target_model_names": "gpt-4o-batch"},
    )
    batch = created(client, file)
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")


def test_end_to_end_example(client, batch_input_file, finished, sandbox, tmp_path):
    batch = created(client, batch_input_file)
    # The page looks only once; whoever waits gets the file.
    found = finished(lambda: client.batches.retrieve(batch.id))
    output_file_id = found.output_file_id or found.error_file_id
    lines = client.files.content(output_file_id).text.strip().split("\n")
    output = tmp_path / "unified_batch_output.json"
    output.write_text("".join(json.dumps(json.loads(line)) + "\n" for line in lines))
    assert set(answers(output.read_text())) == {"request-1", "request-2"}
    listed = client.batches.list(extra_query={"target_model_names": "gpt-4o-batch"})
    assert batch.id in [one.id for one in listed.data]
    # Too late by then, which OpenAI answers with a conflict; the page comes to it at once.
    sandbox.fault("azure", "create_batch", status=429, times=-1)
    another = created(client, batch_input_file)
    assert client.batches.cancel(another.id).status in ("cancelling", "cancelled")
