"""What a provider holds is what it was sent, wherever the provider says what it holds."""

import openai
import pytest

from tests.every_provider.test_errors import PROVIDERS
from tests.support.sandbox import eventually
from tests.support.uploads import sha256

SMALL = b"%PDF-1.4 not really"
# More than one part of an upload to a bucket.
LARGE = bytes(range(256)) * 24 * 1024

targets = pytest.mark.parametrize(
    ("model_name", "content"),
    [
        ("gemini-flash", SMALL),
        ("gemini-flash", LARGE),
        ("gemini-2.0-flash", SMALL),
        ("gemini-2.0-flash", LARGE),
        ("nova-lite", SMALL),
        ("nova-lite", LARGE),
    ],
)


def upload(client, model_name, content):
    return client.with_options(max_retries=0).files.create(
        file=("a.pdf", content, "application/pdf"),
        purpose="user_data",
        extra_body={"target_model_names": model_name},
    )


def digests(sandbox):
    return [file["sha256"] for file in sandbox.files]


@targets
def test_bytes_that_were_damaged_are_sent_again(client, sandbox, model_name, content):
    provider = PROVIDERS[model_name]
    sandbox.fault(provider, "upload_file", corrupt=True)
    upload(client, model_name, content)
    assert digests(sandbox) == [sha256(content)]
    assert sandbox.calls(f"{provider}.delete_file") == 1


@targets
def test_bytes_that_are_damaged_each_time_are_nowhere(client, sandbox, model_name, content):
    sandbox.fault(PROVIDERS[model_name], "upload_file", corrupt=True, times=-1)
    with pytest.raises(openai.InternalServerError, match="checksum that it reports differs") as failed:
        upload(client, model_name, content)
    assert failed.value.status_code == 503
    assert digests(sandbox) == [] and list(client.files.list()) == []


@targets
def test_damaged_bytes_that_cannot_be_deleted_at_once_are_deleted_later(client, sandbox, model_name, content):
    provider = PROVIDERS[model_name]
    sandbox.fault(provider, "upload_file", corrupt=True)
    sandbox.fault(provider, "delete_file", status=500, times=-1)
    with pytest.raises(openai.InternalServerError):
        upload(client, model_name, content)
    assert len(sandbox.files) == 1
    sandbox.heal()
    assert eventually(lambda: not sandbox.files, 120)


@pytest.mark.parametrize("model_name", ["gemini-2.0-flash", "nova-lite"])
def test_a_large_object_is_known_again_by_its_checksum(client, sandbox, model_name):
    provider = PROVIDERS[model_name]
    # Asked first whether it is there, then what it is: that answer fails.
    sandbox.fault(provider, "retrieve_file", delay_seconds=0.001)
    sandbox.fault(provider, "retrieve_file", status=500)
    upload(client, model_name, LARGE)
    assert digests(sandbox) == [sha256(LARGE)]
    assert sandbox.calls(f"{provider}.finish_upload") == 1
