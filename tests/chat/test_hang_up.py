"""A caller that hangs up ends the provider's call."""

import json

import pytest

from tests.support.chats import ask, text_part
from tests.support.recorder import endless, silence
from tests.support.sandbox import eventually
from tests.support.wire import Line

SECONDS = 60


@pytest.mark.parametrize("stream", [False, True])
def test_while_the_provider_is_silent(recorded_gateway, recorded_member, recorder, stream):
    recorder.answer_chat = silence
    body = json.dumps({"model": "recorded", "messages": [], "stream": stream}).encode()
    with Line(recorded_gateway.url) as line:
        line.send_head("POST", "/v1/chat/completions", recorded_member.api_key, content_length=len(body))
        line.send(body)
        assert recorder.arrived.wait(SECONDS)
        assert not recorder.hung_up.is_set()
    assert recorder.hung_up.wait(SECONDS)


def test_in_the_middle_of_a_stream(recorded_member, recorder):
    recorder.answer_chat = endless
    with ask(recorded_member, "recorded", text_part("Hello"), stream=True) as stream:
        assert next(stream).id == "chatcmpl-1"
        assert not recorder.hung_up.is_set()
    assert recorder.hung_up.wait(SECONDS)


def test_the_log_says_that_the_caller_left(recorded_gateway, recorded_member, recorder):
    recorder.answer_chat = silence
    with Line(recorded_gateway.url) as line:
        line.send_head("POST", "/v1/chat/completions", recorded_member.api_key, content_length=36)
        line.send(b'{"model":"recorded", "messages": []}')
        assert recorder.arrived.wait(SECONDS)
        recorded_gateway.log.clear()
    assert eventually(lambda: any(json.loads(entry).get("status") == 499 for entry in list(recorded_gateway.log)))
    # Whoever is recorded next is not to be taken for this one.
    assert recorder.hung_up.wait(SECONDS)
