"""Answers in Anthropic's Messages, row by row as wire.md §3d and §11 have it."""

import pytest

from app.errors import RateLimited, Rejected, Unavailable
from app.formats import tool_calls
from app.formats.answers import CallArguments, CallStart, Finish, Reasoning, Refusal, Text, Usage
from app.formats.anthropic import Reader

HEAD = {"id": "msg_9", "type": "message", "role": "assistant", "model": "claude-x"}
COUNTS = {"input_tokens": 12, "output_tokens": 7}
USAGE = Usage(12, 7)
SO = {"type": "text", "text": "so", "citations": None}


def answer(*content, reason="end_turn", usage=COUNTS, **stop):
    return {**HEAD, "content": list(content), "stop_reason": reason, "stop_sequence": None, "usage": usage, **stop}


def pieces(whole):
    return list(Reader().whole(whole))


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("a_reason_of_tomorrow", "stop"),
        (None, "stop"),
    ],
)
def test_finish_reasons(reason, expected):
    assert pieces(answer(SO, reason=reason)) == [Text("so"), Finish(expected), USAGE]


@pytest.mark.parametrize(
    ("details", "said"),
    [
        (None, []),
        ({"type": "refusal", "category": "bio", "explanation": None}, []),
        ({"type": "refusal", "category": "bio", "explanation": "no"}, [Refusal("no")]),
    ],
)
def test_why_it_refuses_is_the_refusal(details, said):
    assert pieces(answer(reason="refusal", stop_details=details)) == [*said, Finish("content_filter"), USAGE]


def test_usage_counts_the_cache_into_the_prompt_and_the_thinking_into_the_completion():
    cached = {"cache_creation_input_tokens": 3, "cache_read_input_tokens": 4}
    usage = {**COUNTS, **cached, "output_tokens_details": {"thinking_tokens": 2}}
    made = pieces(answer(usage=usage))[-1]
    assert made == Usage(19, 7, cached_tokens=4, cache_write_tokens=3, reasoning_tokens=2)
    assert pieces(answer(usage={**COUNTS, **dict.fromkeys([*cached, "output_tokens_details"])}))[-1] == USAGE


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "QUJD"}


def tool_use(call_id, **arguments):
    return {"type": "tool_use", "id": call_id, "name": "lookup", "input": arguments}


def test_thinking_rides_in_the_next_calls_id():
    made = pieces(answer(THOUGHT, HIDDEN, SO, tool_use("t1", q="x"), tool_use("t2"), reason="tool_use"))
    assert made == [
        Reasoning("hm"),
        Text("so"),
        CallStart(0, tool_calls.with_extra("t1", "anthropic", [THOUGHT, HIDDEN]), "lookup"),
        CallArguments(0, '{"q":"x"}'),
        CallStart(1, "t2", "lookup"),
        CallArguments(1, "{}"),
        Finish("tool_calls"),
        USAGE,
    ]


def test_a_block_that_nobody_asked_for_is_passed_over():
    server_tool = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    assert pieces(answer(server_tool, SO)) == [Text("so"), Finish("stop"), USAGE]


# The stream of wire.md §11.
STREAM = [
    {
        "type": "message_start",
        "message": {
            **HEAD,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": 8,
                "cache_read_input_tokens": 4,
                "cache_creation_input_tokens": 0,
                "output_tokens": 1,
            },
        },
    },
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {**THOUGHT, "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": tool_use("toolu_1")},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"q":'}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '"x"}'}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 7},
    },
    {"type": "message_stop"},
]
CALLED = [
    Reasoning("hm"),
    CallStart(0, tool_calls.with_extra("toolu_1", "anthropic", [THOUGHT]), "lookup"),
    CallArguments(0, '{"q":'),
    CallArguments(0, '"x"}'),
]


def test_a_stream_is_read_event_by_event_and_ends_with_its_reason():
    reader = Reader()
    assert [piece for event in STREAM[:-1] for piece in reader.event(event)] == CALLED
    assert (reader.id, reader.model, reader.complete) == ("msg_9", "claude-x", False)
    assert list(reader.event(STREAM[-1])) == [Finish("tool_calls"), Usage(12, 7, cached_tokens=4)]
    assert reader.complete


def test_the_end_of_a_message_may_be_told_in_several_events():
    news = {"type": "message_delta", "delta": dict.fromkeys(["stop_reason"]), "usage": {"output_tokens": 5}}
    reader = Reader()
    made = [piece for event in (*STREAM[:-2], news, *STREAM[-2:]) for piece in reader.event(event)]
    assert made == [*CALLED, Finish("tool_calls"), Usage(12, 7, cached_tokens=4)]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("rate_limit_error", RateLimited),
        ("invalid_request_error", Rejected),
        ("request_too_large", Rejected),
        ("not_found_error", Rejected),
        ("overloaded_error", Unavailable),
        ("api_error", Unavailable),
        ("timeout_error", Unavailable),
        ("authentication_error", Unavailable),
        ("an_error_of_tomorrow", Unavailable),
    ],
)
def test_an_error_amid_a_stream(kind, error):
    with pytest.raises(error) as failed:
        list(Reader().event({"type": "error", "error": {"type": kind, "message": "what it says"}}))
    # The vendor's words about our credentials are for nobody else, and unknown ones may be.
    assert (failed.value.message == "what it says") is (kind not in ("authentication_error", "an_error_of_tomorrow"))


@pytest.mark.parametrize("event", [{"type": "error"}, {"type": "error", "error": None}])
def test_an_error_without_words_is_an_error(event):
    with pytest.raises(Unavailable):
        list(Reader().event(event))
