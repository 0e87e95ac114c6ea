"""Gemini's format: nothing of a request is lost, Google's own types take the result, and a stream says what the whole
answer says."""

import json

import pytest
from google.genai import types
from hypothesis import event, given, settings
from hypothesis import strategies as st

from app.errors import Rejected, Unsupported
from app.formats.gemini import Reader, translate
from app.formats.openai import NEUTRAL
from tests.support.openai_answers import answered, streamed
from tests.support.openai_requests import arguments, leaves, requests, words

MODELS = ["gemini-2.0-flash", "gemini-2.5-flash", "gemini-2.5-pro", "gemini-3-pro", "gemini-flash-latest"]
VENDOR_TYPES = {
    "systemInstruction": types.Content,
    "generationConfig": types.GenerationConfig,
    "toolConfig": types.ToolConfig,
}
models = st.sampled_from(MODELS)
asked = requests("https://generativelanguage.googleapis.com/v1/files/{}".format)
# Refusals are few where whatever Gemini does not have may be dropped.
many = settings(max_examples=300)


def translated(asked, model, *, drop_params=True):
    chat = asked.chat("gemini", model, drop_params=drop_params)
    return translate(chat), chat.parameters.dropped


def or_refused(asked, model):
    """What `translated` gives, or None when the request was refused for what is in it."""
    try:
        return translated(asked, model)
    except Rejected as failure:
        refused = failure
    event(f"refused: {refused.code}")
    names_a_file = refused.code == "unsupported_file_type" and refused.param.startswith("messages[")
    names_top_logprobs = refused.param == "top_logprobs" and not asked.body.get("logprobs")
    assert names_a_file or names_top_logprobs, refused.message
    return None


# Where each parameter's value is to be found; for what is not listed here its being dropped is all there can be.
PLACES = {
    "temperature": ("generationConfig", "temperature"),
    "top_p": ("generationConfig", "topP"),
    "n": ("generationConfig", "candidateCount"),
    "seed": ("generationConfig", "seed"),
    "presence_penalty": ("generationConfig", "presencePenalty"),
    "frequency_penalty": ("generationConfig", "frequencyPenalty"),
    "stop": ("generationConfig", "stopSequences"),
    "max_completion_tokens": ("generationConfig", "maxOutputTokens"),
    "top_logprobs": ("generationConfig", "logprobs"),
    "reasoning_effort": ("generationConfig", "thinkingConfig"),
    "response_format": ("generationConfig", "responseMimeType"),
    "service_tier": ("serviceTier",),
    "tools": ("tools",),
    "tool_choice": ("toolConfig",),
}
# What is as it was; the others are translated, by the tables of tests/formats.
SAME = {"temperature", "top_p", "n", "seed", "presence_penalty", "frequency_penalty", "max_completion_tokens"}


def found(body, place):
    for key in place:
        body = body.get(key, {})
    return body


@many
@given(asked, models)
def test_nothing_is_lost_without_a_word(asked, model):
    outcome = or_refused(asked, model)
    if outcome is None:
        return
    body, dropped = outcome
    said = [str(leaf) for leaf in leaves(body)]
    for text in asked.texts:
        assert any(text in one for one in said), text
    for media in asked.media:
        assert media in said
    details = [leaf for leaf in leaves(asked.body["messages"]) if leaf in ("low", "high")]
    assert len(details) == sum(name.endswith("detail") for name in dropped)
    if "max_tokens" in asked.body:
        assert "maxOutputTokens" in body["generationConfig"]
    for name, value in asked.body.items():
        if name in ("messages", "stream", "max_tokens", "logprobs") or name in dropped:
            continue
        if value == NEUTRAL.get(name) or (name == "reasoning_effort" and value == "none" and model < "gemini-2.5"):
            continue
        there = found(body, PLACES[name])
        assert there == value if name in SAME else there not in ({}, None), name


@many
@given(asked, models)
def test_googles_types_take_what_is_made(asked, model):
    outcome = or_refused(asked, model)
    if outcome is None:
        return
    body, _ = outcome
    for content in body.pop("contents"):
        types.Content.model_validate(content)
    for tool in body.pop("tools", []):
        types.Tool.model_validate(tool)
    if tier := body.pop("serviceTier", None):
        assert tier in [one.value for one in types.ServiceTier]
    for name, content in body.items():
        VENDOR_TYPES[name].model_validate(content)


@many
@given(asked, models)
def test_the_same_request_is_the_same_translation(asked, model):
    assert or_refused(asked, model) == or_refused(asked, model)


@many
@given(asked, models)
def test_without_leave_to_drop_the_first_parameter_that_is_not_taken_is_named(asked, model):
    outcome = or_refused(asked, model)
    if outcome is None:
        return
    body, dropped = outcome
    if all(name.endswith("detail") for name in dropped):
        assert translated(asked, model, drop_params=False) == (body, dropped)
        return
    with pytest.raises(Unsupported) as refused:
        translated(asked, model, drop_params=False)
    assert refused.value.param in dropped


# --- answers ----------------------------------------------------------------------------------------------------

COUNTS = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount")
HEAD = {"responseId": "r1", "modelVersion": "gemini-y"}


def maybe(values, name):
    """The key with a value, or neither."""
    return st.just({}) | values.map(lambda value: {name: value})


texts = words.map(lambda text: {"text": text})
thoughts = words.map(lambda text: {"text": text, "thought": True})
functions = st.builds(
    lambda name, args, own_id: {"functionCall": {"name": name, "args": args, **own_id}},
    words,
    arguments,
    maybe(words.map("fc-{}".format), "id"),
)
calls = st.builds(lambda call, signature: call | signature, functions, maybe(st.just("c2ln"), "thoughtSignature"))
reasons = st.sampled_from([one.value for one in types.FinishReason][1:])
tokens = st.builds(lambda text, log: {"token": text, "logProbability": log}, words, st.floats(-10, 0))
logprobs = st.lists(st.tuples(tokens, st.lists(tokens, max_size=2)), max_size=2).map(
    lambda pairs: {
        "chosenCandidates": [token for token, _ in pairs],
        "topCandidates": [{"candidates": others} for _, others in pairs],
    }
)
ends = st.builds(
    lambda reason, probabilities, message: {"finishReason": reason, "logprobsResult": probabilities, **message},
    reasons,
    logprobs,
    maybe(words, "finishMessage"),
)
usages = st.fixed_dictionaries({name: st.integers(0, 10_000) for name in COUNTS})


@st.composite
def answers(draw):
    """A whole answer, and the events in which it might have been streamed, those of several candidates mixed."""
    candidates, streams = [], []
    for index in range(draw(st.integers(1, 3))):
        parts, end = draw(st.lists(texts | thoughts | calls, max_size=5)), draw(ends)
        candidates.append({"index": index, "content": {"parts": parts}, **end})
        streams.append([*({"index": index, "content": {"parts": [part]}} for part in parts), {"index": index, **end}])
    whose_turn = draw(st.permutations([index for index, stream in enumerate(streams) for _ in stream]))
    events = [{**HEAD, "candidates": [streams[index].pop(0)], "usageMetadata": draw(usages)} for index in whose_turn]
    return {**HEAD, "candidates": candidates, "usageMetadata": events[-1]["usageMetadata"]}, events


@many
@given(answers())
def test_a_stream_says_what_the_whole_answer_says(answer):
    whole, events = answer
    types.GenerateContentResponse.model_validate_json(json.dumps(whole))
    assert streamed(Reader("gemini-x"), events) == answered(Reader("gemini-x"), whole)
