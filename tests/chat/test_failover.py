"""A model name with two deployments: the next one answers when the first cannot."""

import openai
import pytest

from tests.support.chats import answer_of, ask, file_part, seen, streamed_answer, text_part
from tests.support.uploads import PDF, sha256, upload

FOREVER = -1
# The sandbox names an account by its key's digest.
FIRST, SECOND = sha256(b"sk-first")[:8], sha256(b"sk-second")[:8]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [{"status": 429}, {"status": 500}, {"status": 503}, {"status": 401}, {"reset_after_bytes": 0}],
    ids=["429", "500", "503", "credentials refused", "dropped"],
)
def test_the_next_deployment_answers(member, sandbox, fault, stream):
    file = upload(member, "pair")
    operation = "stream_chat" if stream else "chat"
    sandbox.fault("openai", operation, **fault)
    answer = ask(member, "pair", file_part(file.id), text_part("Hello"), stream=stream)
    said = streamed_answer(answer) if stream else answer_of(answer)
    assert said == f"{seen('a.pdf', PDF)}\nHello"
    assert sandbox.calls(f"openai.{operation}") == 2


@pytest.mark.parametrize("broken", [FIRST, SECOND], ids=["the first", "the second"])
def test_one_deployment_is_enough_for_every_chat(member, sandbox, broken):
    file = upload(member, "pair")
    sandbox.fault("openai", "chat", status=500, times=FOREVER, account=broken)
    for _ in range(10):
        assert seen("a.pdf", PDF) in answer_of(ask(member, "pair", file_part(file.id)))


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_with_the_request_is_wrong_everywhere(member, sandbox, stream):
    operation = "stream_chat" if stream else "chat"
    sandbox.fault("openai", operation, status=400)
    with pytest.raises(openai.BadRequestError):
        ask(member, "pair", text_part("Hello"), stream=stream)
    assert sandbox.calls(f"openai.{operation}") == 1


@pytest.mark.parametrize("stream", [False, True])
def test_when_all_fail_the_last_error_is_the_answer(member, sandbox, stream):
    operation = "stream_chat" if stream else "chat"
    sandbox.fault("openai", operation, status=500)
    sandbox.fault("openai", operation, status=429, retry_after_seconds=7)
    with pytest.raises(openai.RateLimitError) as failed:
        ask(member, "pair", text_part("Hello"), stream=stream)
    assert failed.value.response.headers["retry-after"] == "7"
    assert sandbox.calls(f"openai.{operation}") == 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_provider_that_asks_for_an_hour_is_passed_on_as_two_minutes(member, sandbox, status):
    sandbox.fault("openai", "chat", status=status, retry_after_seconds=3600)
    with pytest.raises(openai.APIStatusError) as failed:
        ask(member, "mini", text_part("Hello"))
    assert failed.value.status_code == status
    assert failed.value.response.headers["retry-after"] == "120"


@pytest.mark.parametrize("holder", ["mini", "other"])
def test_only_a_deployment_that_has_the_file_is_asked(member, sandbox, holder):
    file = upload(member, holder)
    for _ in range(10):
        assert seen("a.pdf", PDF) in answer_of(ask(member, "pair", file_part(file.id)))
    sandbox.fault("openai", "chat", status=500)
    with pytest.raises(openai.InternalServerError):
        ask(member, "pair", file_part(file.id))
    assert sandbox.calls("openai.chat") == 11


def test_both_deployments_take_their_share(member, sandbox):
    """Of 50 chats some ask the broken account first, and some the sound one."""
    sandbox.fault("openai", "chat", status=500, times=FOREVER, account=FIRST)
    for _ in range(50):
        assert answer_of(ask(member, "pair", text_part("Hello"))) == "Hello"
    assert 50 < sandbox.calls("openai.chat") < 100
