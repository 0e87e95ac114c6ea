"""Bifrost, OpenAI SDK integration, "Files and Batch API":
https://docs.getbifrost.ai/integrations/openai-sdk/files-and-batch
"""

import pytest

from app.sandbox.config import BUCKET
from tests.public_examples.pages import CHAT, answers, jsonl, s3

MODELS = {
    "openai": "gpt-4o-mini",
    "bedrock": "anthropic.claude-3-sonnet-20240229-v1:0",
    "gemini": "gemini-1.5-flash",
    "anthropic": "claude-3-sonnet-20240229",
}
WITH_FILES = ("openai", "bedrock", "gemini")
PROVIDERS = (*WITH_FILES, "anthropic")
SUMS = ("What is 2+2?", "What is the capital of France?")


@pytest.fixture
def client(connect):
    """The page's "Client Setup"."""
    return connect("/openai")


def uploaded(client, provider, *, name="batch_input.jsonl", prefix="bifrost-batch-output", texts=("Hello!", "Hi")):
    """The page's "Upload a File" of a provider."""
    storage = {"storage_config": s3(prefix)} if provider == "bedrock" else {}
    return client.files.create(
        file=(name, jsonl(MODELS[provider], *texts), "application/jsonl"),
        purpose="batch",
        extra_body={"provider": provider, **storage},
    )


def created(client, provider, texts=("Hello!", "Hi")):
    """The page's "Create a Batch" of a provider."""
    extra, input_file_id = {"provider": provider}, ""
    if provider == "anthropic":
        extra["requests"] = requests(*texts)
    else:
        name, prefix = "batch_e2e.jsonl", "batch-input"
        input_file_id = uploaded(client, provider, name=name, prefix=prefix, texts=texts).id
    if provider in ("bedrock", "gemini"):
        extra["model"] = MODELS[provider]
    if provider == "bedrock":
        extra["output_s3_uri"] = f"s3://{BUCKET}/batch-output"
    return client.batches.create(input_file_id=input_file_id, endpoint=CHAT, completion_window="24h", extra_body=extra)


def requests(*texts):
    """The page's inline requests for Anthropic."""
    return [
        {
            "custom_id": f"request-{number}",
            "params": {
                "model": MODELS["anthropic"],
                "max_tokens": 100,
                "messages": [{"role": "user", "content": text}],
            },
        }
        for number, text in enumerate(texts, 1)
    ]


@pytest.mark.parametrize("provider", WITH_FILES)
def test_upload_a_file(client, provider):
    file = uploaded(client, provider)
    assert (file.object, file.purpose, file.filename) == ("file", "batch", "batch_input.jsonl")
    assert file.id


@pytest.mark.parametrize("provider", WITH_FILES)
def test_list_files(client, provider):
    file = uploaded(client, provider)
    storage = {"storage_config": s3("bifrost-batch-output")} if provider == "bedrock" else {}
    listed = client.files.list(extra_query={"provider": provider, **storage})
    assert file.id in [one.id for one in listed.data]


@pytest.mark.parametrize("provider", WITH_FILES)
def test_retrieve_file_metadata(client, provider):
    file = uploaded(client, provider)
    found = client.files.retrieve(file.id, extra_query={"provider": provider})
    assert (found.id, found.filename, found.bytes) == (file.id, file.filename, file.bytes)


@pytest.mark.parametrize("provider", WITH_FILES)
def test_delete_a_file(client, provider, sandbox):
    file = uploaded(client, provider)
    assert client.files.delete(file.id, extra_query={"provider": provider}).deleted
    assert sandbox.files == []


# Gemini gives nobody a file back that was uploaded (wire.md §4b), so the page's "or gemini" can be held by no gateway.
@pytest.mark.parametrize("provider", ["openai", "bedrock"])
def test_download_file_content(client, provider):
    file = uploaded(client, provider, texts=("Hello!",))
    content = client.files.content(file.id, extra_query={"provider": provider}).read().decode("utf-8")
    assert '"request-1"' in content or '"recordId"' in content
    assert "Hello!" in content


@pytest.mark.parametrize("provider", PROVIDERS)
def test_create_a_batch(client, provider):
    batch = created(client, provider, texts=("slow:600 Hello!", "slow:600 Hi"))
    assert batch.object == "batch"
    assert batch.status in ("validating", "in_progress")
    assert batch.endpoint == CHAT


@pytest.mark.parametrize("provider", PROVIDERS)
def test_list_batches(client, provider):
    batch = created(client, provider)
    listed = client.batches.list(limit=10, extra_query={"provider": provider, "model": MODELS[provider]})
    assert batch.id in [one.id for one in listed.data]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_retrieve_batch_status(client, provider):
    batch = created(client, provider)
    found = client.batches.retrieve(batch.id, extra_query={"provider": provider})
    assert (found.id, found.object) == (batch.id, "batch")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_cancel_a_batch(client, provider):
    batch = created(client, provider, texts=("slow:600", "slow:600"))
    cancelled = client.batches.cancel(batch.id, extra_body={"provider": provider})
    assert cancelled.id == batch.id
    assert cancelled.status in ("cancelling", "cancelled")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_end_to_end_workflow(client, provider, finished):
    batch = created(client, provider, SUMS)
    batch = finished(lambda: client.batches.retrieve(batch.id, extra_query={"provider": provider}))
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (2, 2, 0)
    # What the page leaves out: the results, in OpenAI's lines whoever has made them.
    output = client.files.content(batch.output_file_id, extra_query={"provider": provider}).text
    said = answers(output)
    assert set(said) == {"request-1", "request-2"}
    assert all(text in said[f"request-{number}"] for number, text in enumerate(SUMS, 1))
