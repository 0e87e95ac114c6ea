"""Bedrock's format: nothing of a request is lost, botocore's validator takes the result, and a stream says what the
whole answer says."""

import base64
import json
import re

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import event, given, settings
from hypothesis import strategies as st

from app.errors import Rejected, Unsupported
from app.formats.converse import Reader, translate
from app.formats.openai import NEUTRAL
from tests.support.openai_answers import answered, streamed
from tests.support.openai_requests import arguments, leaves, requests, words

CONVERSE = botocore.session.get_session().get_service_model("bedrock-runtime").operation_model("Converse")
# What the service model says only in words, or as patterns that botocore does not check.
DOCUMENT_NAME = re.compile(r"[A-Za-z0-9()\[\]-]+( [A-Za-z0-9()\[\]-]+)*")
CALL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
METADATA = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,\-.]{0,256}", re.ASCII)

models = st.sampled_from(["us.amazon.nova-lite-v1:0", "us.anthropic.claude-sonnet-5"])
asked = requests("s3://bucket/filemux/{}".format)
many = settings(max_examples=300)


def translated(asked, model, *, drop_params=True):
    chat = asked.chat("bedrock", model, drop_params=drop_params)
    return translate(chat), chat.parameters.dropped


def accepted(asked, model):
    """What `translated` gives, after all that was refused was taken out of the conversation: each refusal names a part
    that Bedrock does not take there."""
    while True:
        try:
            return translated(asked, model)
        except Rejected as failure:
            refused = failure.param
        place = re.match(r"messages\[(\d+)\]\.content\[(\d+)\]", refused)
        message = asked.body["messages"][int(place[1])]
        part = message["content"][int(place[2])]
        assert is_refused(part, message["role"], asked.files), refused
        event(f"refused: {part['type']}")
        asked.media = [one for one in asked.media if not any(one in str(leaf) for leaf in leaves(part))]
        message["content"][int(place[2])] = {"type": "text", "text": "taken out"}


def is_refused(part, role, files):
    """Whether a part is by address, of a type without a block, or sound in a tool's result."""
    said = " ".join(str(leaf) for leaf in leaves(part))
    mime_type = files[part["file"]["file_id"]].mime_type if "file_id" in part.get("file", {}) else said
    sounds = part["type"] == "input_audio" or "audio/" in mime_type
    return "https://" in said or "application/zip" in mime_type or (role == "tool" and sounds)


def as_boto_takes_it(value):
    """A body as boto's users write it: with bytes where the wire has base64."""
    if isinstance(value, list):
        return [as_boto_takes_it(item) for item in value]
    if not isinstance(value, dict):
        return value
    made = {"bytes": lambda data: base64.b64decode(data, validate=True), "input": dict, "json": dict}
    return {key: made.get(key, as_boto_takes_it)(item) for key, item in value.items()}


# Where each parameter's value is to be found; for what is not listed here its being dropped is all there can be.
PLACES = {
    "temperature": ("inferenceConfig", "temperature"),
    "top_p": ("inferenceConfig", "topP"),
    "stop": ("inferenceConfig", "stopSequences"),
    "max_tokens": ("inferenceConfig", "maxTokens"),
    "max_completion_tokens": ("inferenceConfig", "maxTokens"),
    "service_tier": ("serviceTier", "type"),
    "user": ("requestMetadata", "user"),
    "safety_identifier": ("requestMetadata", "safety_identifier"),
    "metadata": ("requestMetadata",),
    "tools": ("toolConfig", "tools"),
}
# What is as it was; the others are translated, by the tables of tests/formats.
SAME = {"top_p", "max_completion_tokens", "service_tier", "user", "safety_identifier"}


def found(body, name, asked):
    """What became of a parameter; None for nothing."""
    if name == "reasoning_effort":
        return body.get("outputConfig", {}).get("effort") or body.get("additionalModelRequestFields")
    if name == "response_format":
        return body.get("outputConfig", {}).get("textFormat") or body.get("system")
    if name == "tool_choice":
        return body.get("toolConfig", {}).get("toolChoice") or (asked["tool_choice"] == "none" or None)
    for key in PLACES[name]:
        body = body.get(key, {})
    return None if body == {} else body


def expected_texts(asked):
    """All texts, without those of tools that are not to be called and never were."""
    called = any("tool_calls" in message for message in asked.body["messages"])
    unused = asked.body.get("tools", []) if asked.body.get("tool_choice") == "none" and not called else []
    return [text for text in asked.texts if text not in list(leaves(unused))]


@many
@given(asked, models)
def test_nothing_is_lost_without_a_word(asked, model):
    body, dropped = accepted(asked, model)
    said = [str(leaf) for leaf in leaves(body)]
    contents = [leaf.decode(errors="replace") for leaf in leaves(as_boto_takes_it(body)) if isinstance(leaf, bytes)]
    for text in expected_texts(asked):
        assert any(text in one for one in (*said, *contents)), text
    for media in asked.media:
        assert media in said
    calls = [call["function"] for message in asked.body["messages"] for call in message.get("tool_calls", ())]
    uses = [block["toolUse"] for turn in body["messages"] for block in turn["content"] if "toolUse" in block]
    assert [use["input"] for use in uses] == [json.loads(call["arguments"]) for call in calls]
    for name, value in asked.body.items():
        if name in ("messages", "stream") or name in dropped or value == NEUTRAL.get(name):
            continue
        if (name == "stop" and not any(value)) or (name == "tools" and asked.body.get("tool_choice") == "none"):
            continue
        there = found(body, name, asked.body)
        assert there == value if name in SAME else there is not None, name


@many
@given(asked, models)
def test_botocore_takes_what_is_made(asked, model):
    body, _ = accepted(asked, model)
    report = ParamValidator().validate({"modelId": model, **as_boto_takes_it(body)}, CONVERSE.input_shape)
    assert not report.has_errors(), report.generate_report()
    assert all(METADATA.fullmatch(text) for pair in body.get("requestMetadata", {}).items() for text in pair)


@many
@given(asked, models)
def test_the_conversation_has_the_shape_that_converse_wants(asked, model):
    body, _ = accepted(asked, model)
    roles = [turn["role"] for turn in body["messages"]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] * (len(roles) % 2)
    names, called = [], False
    for turn in body["messages"]:
        kinds = [next(iter(block)) for block in turn["content"]]
        assert kinds and kinds == sorted(kinds, key=lambda kind: kind != "toolResult")
        assert "document" not in kinds or "text" in kinds
        assert turn["role"] == "user" or set(kinds) <= {"text", "toolUse"}
        inner = [result for block in turn["content"] for result in block.get("toolResult", {}).get("content", ())]
        names += [block["document"]["name"] for block in (*turn["content"], *inner) if "document" in block]
        assert all(block["text"].strip() for block in (*turn["content"], *inner) if "text" in block)
        ids = [block[kind]["toolUseId"] for block, kind in zip(turn["content"], kinds, strict=True) if "tool" in kind]
        assert all(CALL_ID.fullmatch(one) for one in ids)
        called = called or bool(ids)
    assert all(DOCUMENT_NAME.fullmatch(name) and len(name) <= 200 for name in names)
    assert len(names) == len({name.lower() for name in names})
    assert not called or "toolConfig" in body


@many
@given(asked, models)
def test_the_same_request_is_the_same_translation(asked, model):
    assert accepted(asked, model) == translated(asked, model)


@many
@given(asked, models)
def test_without_leave_to_drop_the_first_parameter_that_is_not_taken_is_named(asked, model):
    body, dropped = accepted(asked, model)
    if all(name.endswith("detail") for name in dropped):
        assert translated(asked, model, drop_params=False) == (body, dropped)
        return
    with pytest.raises(Unsupported) as refused:
        translated(asked, model, drop_params=False)
    assert refused.value.param in dropped


# --- answers ----------------------------------------------------------------------------------------------------

some = words.filter(bool)
counts = st.integers(0, 10_000)
usages = st.fixed_dictionaries(
    {"inputTokens": counts, "outputTokens": counts, "totalTokens": counts},
    optional={"cacheReadInputTokens": counts, "cacheWriteInputTokens": counts},
)
stop_reasons = st.sampled_from(CONVERSE.output_shape.members["stopReason"].enum)
texts = some.map(lambda text: {"text": text})
citations = st.lists(texts, max_size=2).map(lambda parts: {"citationsContent": {"content": parts, "citations": []}})
thoughts = st.fixed_dictionaries({"text": some}, optional={"signature": some}).map(
    lambda thought: {"reasoningContent": {"reasoningText": thought}}
)
redacted = st.binary(min_size=1, max_size=9).map(
    lambda content: {"reasoningContent": {"redactedContent": base64.b64encode(content).decode()}}
)


@st.composite
def answers(draw):
    """A whole answer, and the events in which it might have been streamed."""
    calls = st.builds(
        lambda name, args: {"toolUse": {"toolUseId": "t-1", "name": name, "input": args}}, some, arguments
    )
    blocks = draw(st.lists(texts | citations | thoughts | redacted | calls, max_size=6))
    reason, usage = draw(stop_reasons), draw(usages)
    events = [{"messageStart": {"role": "assistant"}}]
    for index, block in enumerate(blocks):
        if "toolUse" in block:
            start = {"toolUse": {name: block["toolUse"][name] for name in ("toolUseId", "name")}}
            events.append({"contentBlockStart": {"start": start, "contentBlockIndex": index}})
        deltas = [{"delta": delta, "contentBlockIndex": index} for delta in _deltas(draw, block)]
        events += [{"contentBlockDelta": delta} for delta in deltas]
        events.append({"contentBlockStop": {"contentBlockIndex": index}})
    events += [{"messageStop": {"stopReason": reason}}, {"metadata": {"usage": usage, "metrics": {"latencyMs": 1}}}]
    message = {"role": "assistant", "content": blocks}
    return {"output": {"message": message}, "stopReason": reason, "usage": usage}, events


def _deltas(draw, block):
    """A block's content in pieces."""

    def cut(content):
        places = sorted(draw(st.lists(st.integers(0, len(content)), max_size=3)))
        return [content[a:b] for a, b in zip([0, *places], [*places, len(content)], strict=True)]

    match block:
        case {"text": text}:
            return [{"text": piece} for piece in cut(text)]
        case {"citationsContent": {"content": parts}}:
            return [{"text": piece} for part in parts for piece in cut(part["text"])]
        case {"toolUse": {"input": {} as args}}:
            # A call without arguments may have no delta at all. Compact, as the whole answer's are written.
            text = json.dumps(args, separators=(",", ":"), ensure_ascii=False) if args or draw(st.booleans()) else ""
            return [{"toolUse": {"input": piece}} for piece in cut(text)]
        case {"reasoningContent": {"reasoningText": thought}}:
            return [{"reasoningContent": {name: piece}} for name, text in thought.items() for piece in cut(text)]
        case {"reasoningContent": {"redactedContent": data}}:
            pieces = [base64.b64encode(piece).decode() for piece in cut(base64.b64decode(data))]
            return [{"reasoningContent": {"redactedContent": piece}} for piece in pieces]


@many
@given(answers())
def test_a_stream_says_what_the_whole_answer_says(answer):
    whole, events = answer
    reader = Reader("chatcmpl-1", "nova")
    assert streamed(reader, events) == answered(Reader("chatcmpl-1", "nova"), whole)
