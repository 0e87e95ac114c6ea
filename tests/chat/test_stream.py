"""POST /chat/completions with `stream`: OpenAI's events as the provider sends them."""

import openai
import pytest

from tests.support.chats import answer_of, ask, file_part, seen, streamed_answer, text_part
from tests.support.recorder import ERROR_EVENT, EVENT, failing_later
from tests.support.uploads import PDF, upload

MODELS = ["mini", "four", "other", "azure", "azure-v1", "pair"]
LONG_TEXT = "word " * 2_000


@pytest.mark.parametrize("model", MODELS)
def test_a_streamed_answer_is_the_whole_one_in_pieces(member, model):
    parts = (text_part("What is in this file?"), file_part(upload(member, model).id))
    stream = ask(member, model, *parts, stream=True)
    chunks = list(stream)
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    assert (
        streamed_answer(chunks) == answer_of(ask(member, model, *parts)) == f"{seen('a.pdf', PDF)}\n{parts[0]['text']}"
    )
    assert len(chunks) > 5
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"


def test_the_usage_comes_when_asked_for(member):
    stream = ask(member, "mini", text_part("Hello"), stream=True, stream_options={"include_usage": True})
    assert list(stream)[-1].usage.total_tokens > 0


def test_the_events_are_the_providers_own_bytes(recorded_http, recorder):
    recorder.answer_chat = failing_later
    answer = recorded_http.post("/chat/completions", json={"model": "recorded", "messages": [], "stream": True})
    assert answer.content == EVENT + ERROR_EVENT


@pytest.mark.parametrize(("status", "error"), [(400, openai.BadRequestError), (429, openai.RateLimitError)])
def test_a_failure_before_the_first_event_has_its_status(member, sandbox, status, error):
    sandbox.fault("openai", "stream_chat", status=status)
    with pytest.raises(error):
        ask(member, "mini", text_part("Hello"), stream=True)


@pytest.mark.parametrize("reset_after_bytes", [0, 1])
def test_a_stream_that_breaks_before_its_first_event_is_an_error_all_the_same(member, sandbox, reset_after_bytes):
    sandbox.fault("openai", "stream_chat", reset_after_bytes=reset_after_bytes)
    with pytest.raises(openai.APIError):
        list(ask(member, "mini", text_part(LONG_TEXT), stream=True))


def test_a_stream_that_breaks_in_the_middle_ends_with_an_error_event(member, sandbox):
    sandbox.fault("openai", "stream_chat", reset_after_bytes=50_000)
    received = []
    with pytest.raises(openai.APIError, match="the connection to the provider broke"):
        received.extend(ask(member, "mini", text_part(LONG_TEXT), stream=True))
    assert 0 < len(received) < 2_000
    assert sandbox.calls("openai.stream_chat") == 1


def test_a_stream_that_breaks_in_the_middle_is_not_begun_again_elsewhere(member, sandbox):
    sandbox.fault("openai", "stream_chat", reset_after_bytes=50_000)
    with pytest.raises(openai.APIError):
        list(ask(member, "pair", text_part(LONG_TEXT), stream=True))
    assert sandbox.calls("openai.stream_chat") == 1


def test_the_providers_own_error_event_reaches_the_sdk(recorded_member, recorder):
    recorder.answer_chat = failing_later
    stream = ask(recorded_member, "recorded", text_part("Hello"), stream=True)
    assert next(stream).id == "chatcmpl-1"
    with pytest.raises(openai.APIError, match="the model fell over"):
        next(stream)


def test_the_first_event_is_not_held_back(member, sandbox):
    """The whole answer would take minutes."""
    sandbox.fault("openai", "stream_chat", bytes_per_second=2_000)
    with ask(member, "mini", text_part(LONG_TEXT), stream=True) as stream:
        assert next(stream).choices[0].delta.role == "assistant"
