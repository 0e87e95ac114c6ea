"""OpenAI's answer, put together from pieces: as one object and as chunks, which say the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from app.formats.answers import (
    CallArguments,
    CallStart,
    Chunks,
    Finish,
    Head,
    Logprobs,
    Reasoning,
    Refusal,
    Text,
    Usage,
    completion,
)
from tests.support.openai_answers import answered, streamed

USAGE = Usage(12, 7, cached_tokens=4, cache_write_tokens=3, reasoning_tokens=2)
SHOWN_USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 7,
    "total_tokens": 19,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
TOKEN = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
NOTHING = {"role": "assistant", "content": None, "refusal": None}


class Told:
    """A reader whose vendor already speaks in pieces."""

    id, model, complete = "msg_1", "claude-x", True

    def whole(self, pieces):
        return iter(pieces)

    def event(self, piece):
        return iter([piece])


def whole_of(*pieces, dropped_params=()):
    """The answer as one object, of which the SDK finds nothing wrong."""
    body = completion(Head(7, dropped_params), Told(), pieces)
    ChatCompletion.model_validate_json(body)
    return json.loads(body)


def message_of(*pieces):
    [choice] = whole_of(*pieces)["choices"]
    return choice["message"]


def chunks_of(*pieces, include_usage=False, dropped_params=()):
    """The answer as chunks, of which the SDK finds nothing wrong, without the word that ends them."""
    chunks = Chunks(Head(7, dropped_params), Told(), include_usage=include_usage)
    sent = b"".join([*(event for piece in pieces for event in chunks.of(piece)), *chunks.end()])
    *events, done, rest = sent.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    bodies = [event.removeprefix(b"data: ") for event in events]
    for body in bodies:
        ChatCompletionChunk.model_validate_json(body)
    return [json.loads(body) for body in bodies]


def deltas_of(*pieces):
    """What the chunks of an answer with one choice add, one after the other."""
    return [chunk["choices"][0]["delta"] for chunk in chunks_of(*pieces)]


# --- whole ------------------------------------------------------------------------------------------------------


def test_an_answer_in_one_object():
    assert whole_of(Text("so "), Text("it is"), Finish("stop"), USAGE) == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 7,
        "model": "claude-x",
        "choices": [
            {"index": 0, "message": {**NOTHING, "content": "so it is"}, "logprobs": None, "finish_reason": "stop"}
        ],
        "usage": SHOWN_USAGE,
    }


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ((), NOTHING),
        ((Text(""),), {**NOTHING, "content": ""}),
        ((Refusal("I "), Refusal("won't")), {**NOTHING, "refusal": "I won't"}),
        (
            (Reasoning("h"), Reasoning("m"), Text("so")),
            {**NOTHING, "content": "so", "reasoning_content": "hm"},
        ),
        (
            (CallStart(0, "t1", "f"), CallArguments(0, '{"a"'), CallStart(1, "t2", "g"), CallArguments(0, ":1}")),
            {
                **NOTHING,
                "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                    {"id": "t2", "type": "function", "function": {"name": "g", "arguments": ""}},
                ],
            },
        ),
    ],
)
def test_what_a_message_holds(pieces, message):
    assert message_of(*pieces, Finish("stop")) == message


def test_log_probabilities_are_the_choices():
    [choice] = whole_of(Text("aa"), Logprobs([TOKEN]), Logprobs([TOKEN]), Finish("stop"))["choices"]
    assert choice["logprobs"] == {"content": [TOKEN, TOKEN], "refusal": None}


def test_choices_are_in_their_order():
    choices = whole_of(Text("b", 1), Text("a", 0), Finish("length", 1), Finish("stop", 0))["choices"]
    said = [(choice["index"], choice["message"]["content"], choice["finish_reason"]) for choice in choices]
    assert said == [(0, "a", "stop"), (1, "b", "length")]


def test_an_answer_without_counts_has_no_usage():
    assert "usage" not in whole_of(Finish("stop"))


@pytest.mark.parametrize(("written", "details"), [(0, {"cached_tokens": 4}), (3, SHOWN_USAGE["prompt_tokens_details"])])
def test_what_was_written_to_the_cache_is_shown_if_anything_was(written, details):
    assert Usage(12, 7, cached_tokens=4, cache_write_tokens=written).shown()["prompt_tokens_details"] == details


# --- chunks -----------------------------------------------------------------------------------------------------


def test_an_answer_in_chunks():
    head = {"id": "msg_1", "object": "chat.completion.chunk", "created": 7, "model": "claude-x"}
    choice = {"index": 0, "logprobs": None, "finish_reason": None}
    assert chunks_of(Text("so"), Finish("stop")) == [
        {**head, "choices": [{**choice, "delta": {**NOTHING, "content": ""}}]},
        {**head, "choices": [{**choice, "delta": {"content": "so"}}]},
        {**head, "choices": [{**choice, "delta": {}, "finish_reason": "stop"}]},
    ]


@pytest.mark.parametrize(
    ("piece", "delta"),
    [
        (Reasoning("hm"), {"reasoning_content": "hm"}),
        (Refusal("no"), {"refusal": "no"}),
        (
            CallStart(1, "t1", "f"),
            {"tool_calls": [{"index": 1, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        ),
        (CallArguments(1, "{}"), {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}),
        (Logprobs([TOKEN]), {}),
    ],
)
def test_each_piece_is_a_delta_behind_the_role(piece, delta):
    assert deltas_of(piece) == [NOTHING, delta]


def test_log_probabilities_stand_beside_the_delta():
    assert chunks_of(Logprobs([TOKEN]))[-1]["choices"][0]["logprobs"] == {"content": [TOKEN], "refusal": None}


def test_each_choice_begins_with_its_role():
    chunks = chunks_of(Text("a", 0), Text("b", 1), Text("c", 0), Finish("stop", 1), Finish("stop", 0))
    roles = [(chunk["choices"][0]["index"], chunk["choices"][0]["delta"].get("role")) for chunk in chunks]
    assert roles == [(0, "assistant"), (0, None), (1, "assistant"), (1, None), (0, None), (1, None), (0, None)]


def test_an_answer_that_says_nothing_has_a_role_and_a_reason():
    assert deltas_of(Finish("content_filter")) == [NOTHING, {}]


def test_the_usage_comes_last_however_early_it_is_known_and_the_last_one_counts():
    chunks = chunks_of(Usage(1, 1), Text("so"), USAGE, Finish("stop"), include_usage=True)
    assert [chunk["usage"] for chunk in chunks] == [None, None, None, SHOWN_USAGE]
    assert chunks[-1]["choices"] == []


@pytest.mark.parametrize(("pieces", "include_usage"), [((USAGE,), False), ((), True)])
def test_there_is_no_usage_that_nobody_wants_or_counted(pieces, include_usage):
    chunks = chunks_of(Text("so"), *pieces, Finish("stop"), include_usage=include_usage)
    assert len(chunks) == 3
    assert not any(chunk.get("usage") for chunk in chunks)


# --- both -------------------------------------------------------------------------------------------------------


def test_what_was_dropped_is_said_in_the_answer_and_in_the_first_chunk():
    dropped = {"dropped_params": ["seed", "user"]}
    pieces = Text("so"), Finish("stop"), USAGE
    assert whole_of(*pieces, dropped_params=("seed", "user"))["filemux"] == dropped
    first, *others = chunks_of(*pieces, include_usage=True, dropped_params=("seed", "user"))
    assert first["filemux"] == dropped
    assert len(others) == 3 and not any("filemux" in chunk for chunk in others)


def test_where_nothing_was_dropped_there_is_nothing_to_say():
    pieces = Text("so"), Finish("stop")
    assert not any("filemux" in body for body in (whole_of(*pieces), *chunks_of(*pieces)))


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
choices = st.integers(0, 2)
spoken = st.sampled_from([Text, Reasoning, Refusal]).flatmap(lambda kind: st.builds(kind, words, choices))
probable = st.builds(lambda choice: Logprobs([TOKEN], choice), choices)


@st.composite
def told(draw):
    """Pieces as a vendor may send them: calls are counted within their choice, and every choice comes to an end."""
    pieces, counted = [], [0, 0, 0]
    for kind in draw(st.lists(st.sampled_from(["said", "start", "arguments", "usage"]), max_size=12)):
        choice = draw(choices)
        if kind == "said":
            pieces.append(draw(spoken | probable))
        elif kind == "start":
            pieces.append(CallStart(counted[choice], draw(words), draw(words), choice))
            counted[choice] += 1
        elif kind == "arguments" and counted[choice]:
            pieces.append(CallArguments(draw(st.integers(0, counted[choice] - 1)), draw(words), choice))
        elif kind == "usage":
            pieces.append(draw(st.builds(Usage, *[st.integers(0, 10_000)] * 5)))
    ends = st.sampled_from(["stop", "length", "tool_calls", "content_filter"])
    return [*pieces, *(Finish(draw(ends), choice) for choice in range(3))]


@given(told())
def test_the_chunks_put_together_are_the_answer(pieces):
    assert streamed(Told(), pieces) == answered(Told(), pieces)
