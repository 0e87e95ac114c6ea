"""Answers in Bedrock's Converse, row by row as wire.md §6d and §11 have it."""

import pytest

from app.errors import RateLimited, Rejected, Unavailable
from app.formats import tool_calls
from app.formats.answers import CallArguments, CallStart, Finish, Reasoning, Text, Usage
from app.formats.converse import Reader

NOVA = "us.amazon.nova-lite-v1:0"
COUNTS = {"inputTokens": 12, "outputTokens": 7, "totalTokens": 19}
USAGE = Usage(12, 7)


def answer(*content, reason="end_turn", usage=COUNTS):
    message = {"role": "assistant", "content": list(content)}
    return {"output": {"message": message}, "stopReason": reason, "usage": usage, "metrics": {"latencyMs": 5}}


def pieces(whole):
    return list(Reader("chatcmpl-1", NOVA).whole(whole))


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_model_output", "stop"),
        ("malformed_tool_use", "stop"),
        ("a_reason_of_tomorrow", "stop"),
    ],
)
def test_finish_reasons(reason, expected):
    assert pieces(answer({"text": "so"}, reason=reason)) == [Text("so"), Finish(expected), USAGE]


def test_usage_counts_the_cache_into_the_prompt():
    usage = {**COUNTS, "cacheReadInputTokens": 4, "cacheWriteInputTokens": 3}
    assert pieces(answer(usage=usage))[-1] == Usage(19, 7, cached_tokens=4, cache_write_tokens=3)


def test_what_is_cited_is_text():
    cited = {"citationsContent": {"content": [{"text": "green"}, {"text": " grass"}], "citations": [{"title": "a"}]}}
    assert pieces(answer(cited))[:-2] == [Text("green"), Text(" grass")]


THOUGHT = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}}
HIDDEN = {"reasoningContent": {"redactedContent": "QUJD"}}


def tool_use(call_id, **arguments):
    return {"toolUse": {"toolUseId": call_id, "name": "lookup", "input": arguments}}


def test_reasoning_that_is_signed_or_hidden_rides_in_the_next_calls_id():
    unsigned = {"reasoningContent": {"reasoningText": {"text": "so"}}}
    made = pieces(answer(THOUGHT, unsigned, HIDDEN, tool_use("t1", q="x"), tool_use("t2"), reason="tool_use"))
    assert made == [
        Reasoning("hm"),
        Reasoning("so"),
        CallStart(0, tool_calls.with_extra("t1", "bedrock", [THOUGHT, HIDDEN]), "lookup"),
        CallArguments(0, '{"q":"x"}'),
        CallStart(1, "t2", "lookup"),
        CallArguments(1, "{}"),
        Finish("tool_calls"),
        USAGE,
    ]


# The stream of wire.md §11.
STREAM = [
    {"messageStart": {"role": "assistant"}},
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Let me "}}},
    {"contentBlockStop": {"contentBlockIndex": 0}},
    {"contentBlockStart": {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t1", "name": "lookup"}}}},
    {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"toolUse": {"input": '{"q":'}}}},
    {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"toolUse": {"input": '"x"}'}}}},
    {"contentBlockStop": {"contentBlockIndex": 1}},
    {"messageStop": {"stopReason": "tool_use"}},
    {"metadata": {"usage": COUNTS, "metrics": {"latencyMs": 4}}},
]


def test_a_stream_is_read_event_by_event_and_ends_with_its_reason():
    reader = Reader("chatcmpl-1", NOVA)
    assert [piece for event in STREAM[:-2] for piece in reader.event(event)] == [
        Text("Let me "),
        CallStart(0, "t1", "lookup"),
        CallArguments(0, '{"q":'),
        CallArguments(0, '"x"}'),
    ]
    assert not reader.complete
    assert [piece for event in STREAM[-2:] for piece in reader.event(event)] == [Finish("tool_calls"), USAGE]
    assert (reader.id, reader.model, reader.complete) == ("chatcmpl-1", NOVA, True)


def test_a_call_without_arguments_is_a_call_with_none():
    reader = Reader("chatcmpl-1", NOVA)
    made = [piece for event in (STREAM[3], STREAM[6]) for piece in reader.event(event)]
    assert made == [CallStart(0, "t1", "lookup"), CallArguments(0, "{}")]


@pytest.mark.parametrize(
    ("exception", "error"),
    [
        ("throttlingException", RateLimited),
        ("validationException", Rejected),
        ("internalServerException", Unavailable),
        ("modelStreamErrorException", Unavailable),
        ("serviceUnavailableException", Unavailable),
        ("anExceptionOfTomorrow", Unavailable),
        (None, Unavailable),
    ],
)
def test_an_exception_amid_a_stream(exception, error):
    with pytest.raises(error) as failed:
        list(Reader("chatcmpl-1", NOVA).event({"exception": {"type": exception, "message": "what it says"}}))
    assert (failed.value.message == "what it says") is (exception not in (None, "anExceptionOfTomorrow"))
