"""Answers in Gemini's format, row by row as wire.md §4d and §11 have it."""

import pytest

from app.errors import RateLimited, Rejected, Unavailable
from app.formats import tool_calls
from app.formats.answers import CallArguments, CallStart, Finish, Logprobs, Reasoning, Refusal, Text, Usage
from app.formats.gemini import Reader

SIGNED = tool_calls.with_extra("fc1", "gemini", "c2ln")


def answer(*parts, reason="STOP", **candidate):
    content = {"content": {"role": "model", "parts": list(parts)}} if parts else {}
    return {"candidates": [{**content, "finishReason": reason, "index": 0, **candidate}], "responseId": "r1"}


def pieces(event):
    return list(Reader("gemini-x").whole(event))


def call_ids(event):
    return [piece.id for piece in pieces(event) if isinstance(piece, CallStart)]


LENGTH = ["MAX_TOKENS", "CONTINUATION"]
FILTERED = [
    *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR", "ESCALATION"),
    *("PUP_LIMITED_DISABLED", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER"),
]
STOPS = [
    *("STOP", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE"),
    *("MALFORMED_RESPONSE", "OTHER", "NO_IMAGE", "A_REASON_OF_TOMORROW"),
]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        *((reason, "stop") for reason in STOPS),
        *((reason, "length") for reason in LENGTH),
        *((reason, "content_filter") for reason in FILTERED),
    ],
)
def test_finish_reasons(reason, expected):
    assert pieces(answer({"text": "so"}, reason=reason)) == [Text("so"), Finish(expected)]


@pytest.mark.parametrize(("reason", "expected"), [("STOP", "tool_calls"), ("MAX_TOKENS", "length")])
def test_a_stop_with_calls_is_for_the_calls(reason, expected):
    assert pieces(answer({"functionCall": {"id": "fc1", "name": "f"}}, reason=reason))[-1] == Finish(expected)


def test_what_is_said_of_a_filtered_answer_is_the_refusal():
    assert pieces(answer(reason="SAFETY", finishMessage="too hot")) == [Refusal("too hot"), Finish("content_filter")]


@pytest.mark.parametrize(
    ("feedback", "text"),
    [
        ({"blockReason": "SAFETY"}, "the prompt was blocked: SAFETY"),
        ({"blockReason": "SAFETY", "blockReasonMessage": "too hot"}, "too hot"),
    ],
)
def test_a_blocked_prompt_is_a_refusal(feedback, text):
    assert pieces({"promptFeedback": feedback, "responseId": "r1"}) == [Refusal(text), Finish("content_filter")]


def test_thoughts_are_reasoning():
    thought = {"text": "hm", "thought": True}
    assert pieces(answer(thought, {"text": "so", "thoughtSignature": "c2ln"})) == [
        Reasoning("hm"),
        Text("so"),
        Finish("stop"),
    ]


def test_a_calls_signature_rides_in_its_id():
    part = {"functionCall": {"id": "fc1", "name": "lookup", "args": {"q": "x"}}, "thoughtSignature": "c2ln"}
    start, arguments, _ = pieces(answer(part))
    assert start == CallStart(0, SIGNED, "lookup")
    assert arguments == CallArguments(0, '{"q":"x"}')


def test_missing_ids_are_made_up_the_same_way_each_time():
    calls = answer({"functionCall": {"name": "f"}}, {"functionCall": {"name": "f"}})
    first, second = call_ids(calls)
    assert first != second and first.startswith("call_")
    assert call_ids(calls) == [first, second]
    assert not {first, second} & {*call_ids(calls | {"responseId": "r2"})}


def test_usage():
    counts = {
        "promptTokenCount": 10,
        "toolUsePromptTokenCount": 2,
        "cachedContentTokenCount": 4,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 3,
        "totalTokenCount": 20,
    }
    usage = pieces(answer({"text": "so"}) | {"usageMetadata": counts})[-1]
    assert usage == Usage(prompt_tokens=12, completion_tokens=8, cached_tokens=4, reasoning_tokens=3)
    assert usage.shown()["total_tokens"] == counts["totalTokenCount"]


def test_logprobs():
    result = {
        "chosenCandidates": [{"token": "é", "logProbability": -0.5}, {"token": "!"}],
        "topCandidates": [{"candidates": [{"token": "e", "logProbability": -1}]}, {}],
    }
    logprobs = pieces(answer({"text": "é!"}, logprobsResult=result))[1]
    assert logprobs == Logprobs(
        [
            {
                "token": "é",
                "logprob": -0.5,
                "bytes": [195, 169],
                "top_logprobs": [{"token": "e", "logprob": -1, "bytes": [101]}],
            },
            {"token": "!", "logprob": 0.0, "bytes": [33], "top_logprobs": []},
        ]
    )


def test_candidates_are_choices():
    both = {
        "candidates": [
            {"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"},
            {"content": {"parts": [{"functionCall": {"id": "fc1", "name": "f"}}]}, "finishReason": "STOP", "index": 1},
        ]
    }
    assert pieces(both) == [
        Text("a", 0),
        Finish("stop", 0),
        CallStart(0, "fc1", "f", 1),
        CallArguments(0, "{}", 1),
        Finish("tool_calls", 1),
    ]


# The stream of wire.md §11.
STREAM = [
    {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "Let me "}]}, "index": 0}],
        "usageMetadata": {"promptTokenCount": 12, "totalTokenCount": 12},
        "modelVersion": "gemini-y",
        "responseId": "r9",
    },
    {
        "candidates": [
            {
                "content": {
                    "role": "model",
                    "parts": [
                        {
                            "functionCall": {"id": "fc1", "name": "lookup", "args": {"q": "x"}},
                            "thoughtSignature": "c2ln",
                        }
                    ],
                },
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 12,
            "candidatesTokenCount": 5,
            "thoughtsTokenCount": 2,
            "totalTokenCount": 19,
        },
        "modelVersion": "gemini-y",
        "responseId": "r9",
    },
]


def test_a_stream_is_read_event_by_event_and_ends_with_its_reason():
    reader = Reader("gemini-x")
    assert list(reader.event(STREAM[0])) == [Text("Let me "), Usage(12, 0)]
    assert (reader.id, reader.model, reader.complete) == ("r9", "gemini-y", False)
    assert list(reader.event(STREAM[1])) == [
        CallStart(0, SIGNED, "lookup"),
        CallArguments(0, '{"q":"x"}'),
        Finish("tool_calls"),
        Usage(12, 7, reasoning_tokens=2),
    ]
    assert reader.complete


def test_a_stream_of_several_candidates_ends_with_the_last():
    reader = Reader("gemini-x")
    list(reader.event({"candidates": [{"index": 0}, {"index": 1}]}))
    list(reader.event({"candidates": [{"index": 1, "finishReason": "STOP"}]}))
    assert not reader.complete
    list(reader.event({"candidates": [{"finishReason": "STOP"}]}))
    assert reader.complete


@pytest.mark.parametrize("empty", [{}, {"candidates": []}, {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}])
def test_a_whole_answer_without_an_end_is_none(empty):
    with pytest.raises(Unavailable):
        pieces(empty)


@pytest.mark.parametrize(
    ("code", "error"),
    [(400, Rejected), (404, Rejected), (413, Rejected), (429, RateLimited), (500, Unavailable), (403, Unavailable)],
)
def test_an_error_amid_a_stream(code, error):
    with pytest.raises(error) as failed:
        list(Reader("gemini-x").event({"error": {"code": code, "message": "what it says"}}))
    assert (failed.value.message == "what it says") is (code < 500 and code != 403)
