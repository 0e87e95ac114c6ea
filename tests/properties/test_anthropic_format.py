"""Anthropic's format: nothing of a request is lost, the SDK's own types and the sandbox's rules take the result, and a
stream says what the whole answer says."""

import json
import re
from typing import get_args

import pytest
from anthropic.types import Message, RawMessageStreamEvent, StopReason
from anthropic.types.message_create_params import MessageCreateParams
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app.errors import Rejected, Unsupported
from app.formats.anthropic import Dialect, Reader, translate
from app.formats.openai import NEUTRAL
from app.sandbox.anthropic_messages import MessagesRequest
from app.sandbox.anthropic_rules import NEWEST_VERSION, check
from tests.support.openai_answers import answered, streamed
from tests.support.openai_requests import FILE_TYPES, arguments, leaves, requests, words

REQUEST, EVENT = TypeAdapter(MessageCreateParams), TypeAdapter(RawMessageStreamEvent)
NEWEST, OLDER = Dialect(samples=False, max_tokens=4096), Dialect(samples=True, max_tokens=4096)
# What a file part may hold, by the way in which the file is given.
ANYWHERE = {"application/pdf", "image/png", "image/jpeg"}
TAKEN = {
    "file_id": ANYWHERE | {"text/plain"},
    "file_url": ANYWHERE,
    "file_data": ANYWHERE | {"text/plain", "text/csv", "text/markdown"},
}

models = st.sampled_from(["claude-sonnet-5", "claude-sonnet-4-5"])
dialects = st.sampled_from([NEWEST, OLDER])
asked = requests("file_{}".format)
many = settings(max_examples=300)


def translated(asked, model, dialect, *, drop_params=True):
    chat = asked.chat("anthropic", model, drop_params=drop_params)
    return translate(chat, dialect), chat.parameters.dropped


def accepted(asked, model, dialect):
    """What `translated` gives, after all that was refused was taken out of the conversation: each refusal names a part
    that Anthropic does not take."""
    while True:
        try:
            return translated(asked, model, dialect)
        except Rejected as failure:
            refused = failure
        place = re.match(r"messages\[(\d+)\]\.content\[(\d+)\]", refused.param)
        content = asked.body["messages"][int(place[1])]["content"]
        part = content[int(place[2])]
        assert refused.code == "unsupported_file_type" and is_refused(part, asked.files), refused.message
        event(f"refused: {part['type']}")
        asked.media = [one for one in asked.media if not any(one in str(leaf) for leaf in leaves(part))]
        content[int(place[2])] = {"type": "text", "text": "taken out"}


def is_refused(part, files):
    """Whether a part is sound, or a file of a type that Anthropic does not take in this way."""
    match part:
        case {"type": "input_audio"}:
            return True
        case {"type": "file", "file": {"file_id": file_id}}:
            return files[file_id].mime_type not in TAKEN["file_id"]
        case {"type": "file", "file": source}:
            [way] = source.keys() & TAKEN.keys()
            extension = source.get("filename", source[way]).rpartition(".")[2]
            return not any(FILE_TYPES[mime_type] == extension for mime_type in TAKEN[way])
    return False


# Where each parameter's value is to be found; for what is not listed here its being dropped is all there can be.
PLACES = {
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "max_tokens": ("max_tokens",),
    "max_completion_tokens": ("max_tokens",),
    "stop": ("stop_sequences",),
    "user": ("metadata", "user_id"),
    "safety_identifier": ("metadata", "user_id"),
    "service_tier": ("service_tier",),
    "tools": ("tools",),
    "tool_choice": ("tool_choice",),
    "parallel_tool_calls": ("tool_choice", "disable_parallel_tool_use"),
}
# What is as it was; the others are translated, by the tables of tests/formats.
SAME = {"top_p", "max_completion_tokens", "user", "safety_identifier"}


def found(body, name):
    """What became of a parameter; None for nothing."""
    output = body.get("output_config", {})
    if name == "reasoning_effort":
        return output.get("effort") or body.get("thinking")
    if name == "response_format":
        return output.get("format") or body.get("system")
    for key in PLACES[name]:
        body = body.get(key, {})
    return None if body == {} else body


def asks_for_nothing(asked, name):
    """Whether a parameter changes nothing in this request."""
    value = asked[name]
    if name == "stop":
        return not any(value)
    # There are no calls that might be parallel.
    no_calls = name == "parallel_tool_calls" and ("tools" not in asked or asked.get("tool_choice") == "none")
    return no_calls or value == NEUTRAL.get(name)


@many
@given(asked, models, dialects)
def test_nothing_is_lost_without_a_word(asked, model, dialect):
    body, dropped = accepted(asked, model, dialect)
    said = [str(leaf) for leaf in leaves(body)]
    for text in asked.texts:
        assert any(text in one for one in said), text
    for media in asked.media:
        assert media in said
    details = [leaf for leaf in leaves(asked.body["messages"]) if leaf in ("low", "high")]
    assert len(details) == sum(name.endswith("detail") for name in dropped)
    calls = [call["function"] for message in asked.body["messages"] for call in message.get("tool_calls", ())]
    uses = [block for turn in body["messages"] for block in turn["content"] if block["type"] == "tool_use"]
    assert [use["input"] for use in uses] == [json.loads(call["arguments"]) for call in calls]
    for name, value in asked.body.items():
        if name in ("messages", "stream") or name in dropped or asks_for_nothing(asked.body, name):
            continue
        there = found(body, name)
        assert there == value if name in SAME else there is not None, name


def exhausted(value):
    """The same with lists for the iterators in which pydantic keeps what it has not looked at yet."""
    if isinstance(value, dict):
        return {key: exhausted(item) for key, item in value.items()}
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return value
    return [exhausted(item) for item in value]


@many
@given(asked, models)
def test_the_sdks_types_take_what_is_made(asked, model):
    body, _ = accepted(asked, model, NEWEST)
    assert exhausted(REQUEST.validate_python(body, strict=True, extra="forbid")) == body


@many
@given(asked, models, dialects)
def test_the_sandbox_takes_what_is_made(asked, model, dialect):
    # It must be the model's turn, and with nothing that it should have thought about.
    asked.body["messages"] += [{"role": "assistant", "content": "so"}, {"role": "user", "content": "go on"}]
    body, _ = accepted(asked, model, dialect)
    check(MessagesRequest.model_validate(body), "2023-06-01" if dialect.samples else NEWEST_VERSION)


@many
@given(asked, models, dialects)
def test_the_same_request_is_the_same_translation(asked, model, dialect):
    assert accepted(asked, model, dialect) == translated(asked, model, dialect)


def is_left_out(asked, name):
    """Whether a parameter is dropped without leave to."""
    return name in ("temperature", "top_p") or (name == "user" and "safety_identifier" in asked)


@many
@given(asked, models, dialects)
def test_without_leave_to_drop_the_first_parameter_that_is_not_taken_is_named(asked, model, dialect):
    body, dropped = accepted(asked, model, dialect)
    refused_names = [name for name in dropped if not name.endswith("detail") and not is_left_out(asked.body, name)]
    if not refused_names:
        assert translated(asked, model, dialect, drop_params=False) == (body, dropped)
        return
    with pytest.raises(Unsupported) as refused:
        translated(asked, model, dialect, drop_params=False)
    assert refused.value.param in refused_names


# --- answers ----------------------------------------------------------------------------------------------------

counts = st.integers(0, 10_000)
input_counts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
usages = st.fixed_dictionaries(
    {
        **dict.fromkeys(input_counts, counts),
        "output_tokens": counts,
        "output_tokens_details": st.none() | counts.map(lambda count: {"thinking_tokens": count}),
    }
)
texts = words.map(lambda text: {"type": "text", "text": text, "citations": None})
thoughts = st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "c2ln"}, words)
redacted = words.map(lambda data: {"type": "redacted_thinking", "data": data})
calls = st.builds(
    lambda name, args: {"type": "tool_use", "id": "toolu_1", "name": name, "input": args}, words, arguments
)
refusals = st.none() | (st.none() | words).map(
    lambda text: {"type": "refusal", "category": "general_harms", "explanation": text}
)


@st.composite
def answers(draw):
    """A whole answer, and the events in which it might have been streamed."""
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x"}
    blocks = draw(st.lists(texts | thoughts | redacted | calls, max_size=6))
    reason, usage = draw(st.sampled_from(get_args(StopReason))), draw(usages)
    details = draw(refusals) if reason == "refusal" else None
    end = {"stop_reason": reason, "stop_sequence": None, "stop_details": details}
    nothing_yet = {"content": [], "usage": usage | {"output_tokens": 1}, **dict.fromkeys(end)}
    events = [{"type": "message_start", "message": head | nothing_yet}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        start, deltas = _pieces(draw, block)
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    # What was counted at the start may be repeated at the end; there may be news of the message before.
    counted = {name: count for name, count in usage.items() if name not in input_counts or draw(st.booleans())}
    if draw(st.booleans()):
        news = {"delta": dict.fromkeys(end), "usage": counted | {"output_tokens": 1}}
        events.append({"type": "message_delta", **news})
    events += [{"type": "message_delta", "delta": end, "usage": counted}, {"type": "message_stop"}]
    return head | {"content": blocks, "usage": usage} | end, events


def _pieces(draw, block):
    """How a block starts in a stream, and what is added to it."""

    def cut(content):
        places = sorted(draw(st.lists(st.integers(0, len(content)), max_size=3)))
        return [content[a:b] for a, b in zip([0, *places], [*places, len(content)], strict=True)]

    match block:
        case {"type": "text", "text": text}:
            return block | {"text": ""}, [{"type": "text_delta", "text": piece} for piece in cut(text)]
        case {"type": "thinking", "thinking": text, "signature": signature}:
            thought = [{"type": "thinking_delta", "thinking": piece} for piece in cut(text)]
            signed = [{"type": "signature_delta", "signature": piece} for piece in cut(signature)]
            return block | {"thinking": "", "signature": ""}, thought + signed
        case {"type": "tool_use", "input": args}:
            # A call without arguments may have no delta at all. Compact, as the whole answer's are written.
            text = json.dumps(args, separators=(",", ":"), ensure_ascii=False) if args or draw(st.booleans()) else ""
            return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in cut(text)]
    return block, []


@many
@given(answers())
def test_a_stream_says_what_the_whole_answer_says(answer):
    whole, events = answer
    Message.model_validate(whole)
    for one in events:
        # The SDK reads no more of a ping than its name.
        assert one["type"] == "ping" or EVENT.validate_python(one)
    assert streamed(Reader(), events) == answered(Reader(), whole)
