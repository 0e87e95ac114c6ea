"""GET /files/{id}/content where the gateway keeps no bytes of its own: a provider gives them back."""

import os

import httpx
import openai
import pytest

from tests.support.uploads import BATCH_LINE, PDF, upload

FOREVER = -1


@pytest.fixture
def member(keepless):
    return keepless


def tuning_file(client, targets="mini,azure", content=BATCH_LINE * 100):
    """A file of a purpose that every provider here gives back."""
    return upload(client, targets, content, filename="lines.jsonl", purpose="fine-tune")


@pytest.mark.parametrize("targets", ["mini", "azure", "azure-v1", "pair"])
def test_the_content_is_given_back_to_the_byte(member, targets):
    content = BATCH_LINE + os.urandom(2_000_000)
    answer = member.files.content(tuning_file(member, targets, content).id)
    assert answer.content == content
    assert answer.response.headers["content-length"] == str(len(content))
    assert "lines.jsonl" in answer.response.headers["content-disposition"]


@pytest.mark.parametrize("broken", ["openai", "azure"])
@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 429}, {"status": 404}, {"reset_after_bytes": 0}], ids=str
)
def test_the_content_comes_from_the_next_replica_when_one_fails(member, sandbox, broken, fault):
    file = tuning_file(member)
    sandbox.fault(broken, "read_file", times=FOREVER, **fault)
    assert member.files.content(file.id).content == BATCH_LINE * 100


def test_no_replica_gives_the_content_back(member, sandbox):
    file = tuning_file(member)
    sandbox.fault("*", "read_file", status=500, times=FOREVER)
    with pytest.raises(openai.InternalServerError) as failed:
        member.files.content(file.id)
    assert (failed.value.status_code, failed.value.code) == (503, "provider_unavailable")
    assert sandbox.calls("openai.read_file") == sandbox.calls("azure.read_file") == 1


@pytest.mark.parametrize("purpose", ["user_data", "assistants", "vision"])
def test_a_purpose_that_no_provider_gives_back(member, sandbox, purpose):
    file = upload(member, purpose=purpose)
    with pytest.raises(openai.BadRequestError) as refused:
        member.files.content(file.id)
    assert refused.value.code == "content_not_available"
    assert f"azure, openai, which does not return files of purpose '{purpose}'" in refused.value.message
    assert sandbox.calls("openai.read_file") == 0


def test_the_content_is_passed_on_as_it_comes(member, sandbox):
    """The whole would take minutes, so its beginning can only be here because nobody waits for the end."""
    content = os.urandom(8_000_000)
    file = tuning_file(member, "mini", content)
    sandbox.fault("openai", "read_file", bytes_per_second=60_000)
    with member.files.with_streaming_response.content(file.id) as answer:
        assert content.startswith(next(answer.iter_bytes(10_000)))


@pytest.mark.parametrize("reset_after_bytes", [1, 500_000])
def test_a_content_that_breaks_off_is_not_taken_for_the_whole(http, member, sandbox, reset_after_bytes):
    file = tuning_file(member, "mini", os.urandom(1_000_000))
    sandbox.fault("openai", "read_file", reset_after_bytes=reset_after_bytes)
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(f"/files/{file.id}/content")


def test_a_content_disposition_survives_every_filename(member):
    name = 'Übersicht "2026"; 報告.jsonl'
    file = upload(member, "mini", PDF, filename=name, purpose="fine-tune")
    disposition = member.files.content(file.id).response.headers["content-disposition"]
    assert disposition.startswith("attachment; filename*=UTF-8''%C3%9Cbersicht%20")
