"""OpenAI's chat completions ↔ Gemini's generateContent, the same at AI Studio and at Vertex AI (wire.md §4c, §4d, §5d).

Contract: https://ai.google.dev/api/generate-content.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import orjson

from app.errors import ProviderError, RateLimited, Rejected, Unavailable
from app.formats import conversation, tool_calls
from app.formats.answers import (
    CallArguments,
    CallStart,
    Finish,
    FinishReason,
    Logprobs,
    Piece,
    Reasoning,
    Refusal,
    Text,
    Usage,
)
from app.formats.media import Media
from app.formats.openai import (
    AssistantMessage,
    Chat,
    Message,
    Parameters,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
)

# Whose thought signatures a tool call's id carries: Vertex AI's are Gemini's too.
PROVIDER = "gemini"
# Google's word for a call that another model made, where Gemini 3 would refuse one without a signature
# (https://ai.google.dev/gemini-api/docs/thought-signatures). Unverified, as all of that rule is (wire.md §4d).
FOREIGN_SIGNATURE = "skip_thought_signature_validator"
# Before Gemini 3 calls have no ids: those made here are told by how they begin, and never sent.
_OWN_ID = "call_"
_KINDS = frozenset({"image", "audio", "video", "text"})
# What Gemini 3 takes inside a function's response (https://ai.google.dev/gemini-api/docs/function-calling).
_RESPONSE_TYPES = frozenset({"application/pdf", "text/plain", "image/png", "image/jpeg", "image/webp"})
# Google's own name for MP3 (wire.md §4d).
_INLINE_TYPES = {"audio/mpeg": "audio/mp3"}
_GENERATION = re.compile(r"gemini-(\d+(?:\.\d+)?|.*latest)")
_SAME_MEANING = {
    "temperature": "temperature",
    "top_p": "topP",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
# XHIGH is the highest, and not every model has every level: which do not, they say themselves.
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH", "max": "XHIGH"}
# The numbers of Google's own facade for OpenAI's clients (https://ai.google.dev/gemini-api/docs/openai); its highest,
# the most that every 2.5 model takes, stands for what is above it too.
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
_TIERS = {"default": "standard", "flex": "flex", "priority": "priority"}
# Whatever else there is (malformed calls, OTHER, NO_IMAGE …) is a stop, as is a reason that Google adds one day.
_FINISH: Mapping[str, FinishReason] = {
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "IMAGE_OTHER": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "ESCALATION": "content_filter",
    "PUP_LIMITED_DISABLED": "content_filter",
}

# --- request ----------------------------------------------------------------------------------------------------


def translate(chat: Chat) -> dict[str, Any]:
    """The body of :generateContent. Raises Unsupported or Rejected with the parameter."""
    parameters = chat.parameters
    chat.refuse_names()
    chat.leave_out_details()
    system, contents = _conversation(chat)
    body: dict[str, Any] = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": system}
    body |= _tools(parameters)
    config = _sampling(parameters) | _answer_format(parameters) | _thinking(parameters, chat.provider_model)
    if config:
        body["generationConfig"] = config
    match parameters.take("service_tier"):
        case None | "auto":
            pass
        case tier if tier in _TIERS:
            body["serviceTier"] = _TIERS[tier]
        case tier:
            parameters.refuse("service_tier", f"Gemini has no tier {tier!r}; it has auto, default, flex and priority")
    parameters.finish()
    return body


def _sampling(parameters: Parameters) -> dict[str, Any]:
    config = {sent: parameters.take(name) for name, sent in _SAME_MEANING.items()}
    limit, older_limit = parameters.take("max_completion_tokens"), parameters.take("max_tokens")
    config["maxOutputTokens"] = limit or older_limit
    if stop := parameters.take("stop"):
        config["stopSequences"] = list(stop)
    logprobs, top = parameters.take("logprobs"), parameters.take("top_logprobs")
    if top is not None and not logprobs:
        raise Rejected("top_logprobs: is only allowed with logprobs: true", param="top_logprobs")
    if logprobs:
        config |= {"responseLogprobs": True, "logprobs": top}
    return {name: value for name, value in config.items() if value is not None}


def _answer_format(parameters: Parameters) -> dict[str, Any]:
    wanted = parameters.take("response_format")
    if wanted is None or wanted.type == "text":
        return {}
    if wanted.type == "json_object":
        return {"responseMimeType": "application/json"}
    # The schema is always followed, strict or not; its name is OpenAI's own business.
    about = {"description": wanted.json_schema.description} if wanted.json_schema.description else {}
    return {"responseMimeType": "application/json", "responseJsonSchema": about | wanted.json_schema.schema_}


def _thinking(parameters: Parameters, model: str) -> dict[str, Any]:
    effort, generation = parameters.take("reasoning_effort"), _generation(model)
    if effort is None or (effort == "none" and generation < 2.5):
        return {}
    if generation < 2.5:
        parameters.refuse("reasoning_effort", f"{model} does not think")
    elif effort == "none" and (generation >= 3 or "2.5-pro" in model):
        parameters.refuse("reasoning_effort", f"{model} always thinks; minimal is the least")
    elif effort == "none":
        return {"thinkingConfig": {"thinkingBudget": 0}}
    elif generation >= 3:
        return {"thinkingConfig": {"thinkingLevel": _LEVELS[effort], "includeThoughts": True}}
    else:
        return {"thinkingConfig": {"thinkingBudget": _BUDGETS[effort], "includeThoughts": True}}
    return {}


def _generation(model: str) -> float:
    """A model's generation, such as 2.5; an alias that ends in `latest` is of the newest, another model of none."""
    found = _GENERATION.search(model)
    if found is None:
        return 0
    return math.inf if found[1].endswith("latest") else float(found[1])


def _tools(parameters: Parameters) -> dict[str, Any]:
    tools, choice = parameters.take("tools"), parameters.take("tool_choice")
    if not tools:
        if choice not in (None, "none", "auto"):
            raise Rejected("tool_choice: there are no tools to choose from", param="tool_choice")
        return {}
    declarations = [
        {
            "name": tool.function.name,
            **({"description": tool.function.description} if tool.function.description else {}),
            **({"parametersJsonSchema": tool.function.parameters} if tool.function.parameters else {}),
        }
        for tool in tools
    ]
    calling: dict[str, Any]
    match choice:
        case None | "auto":
            # `strict` has no place of its own: VALIDATED is AUTO with the schemas kept to.
            calling = {"mode": "VALIDATED" if any(tool.function.strict for tool in tools) else "AUTO"}
        case "required":
            calling = {"mode": "ANY"}
        case "none":
            calling = {"mode": "NONE"}
        case named:
            calling = {"mode": "ANY", "allowedFunctionNames": [named.function.name]}
    return {"tools": [{"functionDeclarations": declarations}], "toolConfig": {"functionCallingConfig": calling}}


# --- messages ---------------------------------------------------------------------------------------------------


def _conversation(chat: Chat) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The system's parts, and the turns: what follows one another in the same role is one turn."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    names, generation = chat.function_names(), _generation(chat.provider_model)
    for index, message in _in_order_of_calls(chat, names):
        where = f"messages[{index}]"
        match message:
            case SystemMessage() if not turns:
                system += _texts(message.content)
            case SystemMessage():
                # There is one instruction, and it stands before the conversation.
                conversation.add(turns, "user", _texts(message.content), key="parts")
            case UserMessage():
                conversation.add(turns, "user", _shown(chat, message, where), key="parts")
            case ToolMessage():
                conversation.add(
                    turns, "user", _result(chat, message, where, names, in_response=generation >= 3), key="parts"
                )
            case AssistantMessage():
                conversation.add(turns, "model", _said(message, where, signed=generation >= 3), key="parts")
    return system, turns


def _in_order_of_calls(chat: Chat, names: Mapping[str, str]) -> Iterator[tuple[int, Message]]:
    """The messages and their positions, results that follow one another in the order of their calls: where calls have
    no ids, that is how two calls of one function are told apart."""
    if not names:
        yield from enumerate(chat.messages)
        return
    order = {call_id: place for place, call_id in enumerate(names)}
    for _, run in groupby(enumerate(chat.messages), lambda item: isinstance(item[1], ToolMessage)):
        yield from sorted(run, key=lambda item: order.get(getattr(item[1], "tool_call_id", ""), -1))


def _texts(parts: tuple[TextPart, ...]) -> list[dict[str, Any]]:
    # A part without content is refused.
    return [{"text": part.text} for part in parts if part.text]


def _said(message: AssistantMessage, where: str, *, signed: bool) -> list[dict[str, Any]]:
    # Text's own signature may stay away, says Google; OpenAI has no place for it.
    parts: list[dict[str, Any]] = [{"text": text} for text in conversation.said(message, where) if text]
    for index, call in enumerate(message.tool_calls):
        function = {"name": call.function.name, "args": call.function.parsed(f"{where}.tool_calls[{index}]")}
        signature = tool_calls.extra_of(call.id, PROVIDER)
        if signature is None and signed and index == 0:
            # Of calls that were made together only the first is signed.
            signature = FOREIGN_SIGNATURE
        signature_field = {"thoughtSignature": signature} if signature else {}
        parts.append({"functionCall": _call_id(call.id) | function, **signature_field})
    return parts


def _call_id(call_id: str) -> dict[str, str]:
    own = tool_calls.without_extra(call_id)
    return {} if own.startswith(_OWN_ID) else {"id": own}


def _result(
    chat: Chat, message: ToolMessage, where: str, names: Mapping[str, str], *, in_response: bool
) -> list[dict[str, Any]]:
    """The function's response; its media stand in it from Gemini 3 on, and beside it where they cannot."""
    name = names.get(message.tool_call_id) or message.name
    if name is None:
        here = f"{where}.tool_call_id"
        raise Rejected(f"{here}: no tool call before it has this id", param=here)
    texts: list[str] = []
    inside: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    for part in _shown(chat, message, where):
        if "text" in part:
            texts.append(part["text"])
        elif in_response and part.get("inlineData", {}).get("mimeType") in _RESPONSE_TYPES:
            inside.append(part)
        else:
            # A reference inside is a matter of dispute: not every client library of Google's allows it at AI Studio.
            beside.append(part)
    response = {**_call_id(message.tool_call_id), "name": name, "response": {"output": "\n".join(texts)}}
    return [{"functionResponse": response | ({"parts": inside} if inside else {})}, *beside]


def _shown(chat: Chat, message: UserMessage | ToolMessage, where: str) -> list[dict[str, Any]]:
    return [
        {"text": one} if isinstance(one, str) else _media_part(one)
        for one in conversation.shown(chat, message, where)
        if one != ""
    ]


def _media_part(media: Media) -> dict[str, Any]:
    if media.mime_type != "application/pdf" and media.kind not in _KINDS:
        raise media.refused(f"Gemini takes PDF, text, images, audio and video, not {media.mime_type}")
    if media.data is None:
        return {"fileData": {"mimeType": media.mime_type, "fileUri": media.file_id or media.url}}
    if media.kind == "text":
        return {"text": media.as_text_file()}
    mime_type = _INLINE_TYPES.get(media.mime_type, media.mime_type)
    return {"inlineData": {"mimeType": mime_type, "data": media.data}}


# --- answer -----------------------------------------------------------------------------------------------------


class Reader:
    """Reads a GenerateContentResponse, whole or in the pieces in which it is streamed: each is one, of what is new."""

    def __init__(self, provider_model: str) -> None:
        self.id, self.model, self.complete = "", provider_model, False
        self._usage: dict[str, int] = {}
        self._calls: Counter[int] = Counter()
        self._begun: set[int] = set()
        self._ended: set[int] = set()

    def whole(self, answer: dict[str, Any]) -> Iterator[Piece]:
        """The pieces of an answer that came at once."""
        yield from self.event(answer)
        if not self.complete:
            raise Unavailable("the provider's answer has no end")

    def event(self, event: dict[str, Any]) -> Iterator[Piece]:
        """The pieces of one event."""
        if "error" in event:
            raise stream_error(event["error"])
        self.id = event.get("responseId") or self.id
        self.model = event.get("modelVersion") or self.model
        candidates = event.get("candidates") or []
        for candidate in candidates:
            yield from self._candidate(candidate)
        feedback = event.get("promptFeedback") or {}
        if not candidates and (reason := feedback.get("blockReason")):
            self._ended.add(0)
            yield Refusal(feedback.get("blockReasonMessage") or f"the prompt was blocked: {reason}")
            yield Finish("content_filter")
        # It repeats, and the last word counts.
        if counts := event.get("usageMetadata"):
            self._usage |= counts
            yield _usage(self._usage)
        self.complete = bool(self._ended) and self._begun <= self._ended

    def _candidate(self, candidate: Mapping[str, Any]) -> Iterator[Piece]:
        choice = candidate.get("index") or 0
        self._begun.add(choice)
        for part in (candidate.get("content") or {}).get("parts") or ():
            if call := part.get("functionCall"):
                yield from self._call(call, part.get("thoughtSignature"), choice)
            elif text := part.get("text"):
                yield Reasoning(text, choice) if part.get("thought") else Text(text, choice)
        if logprobs := _logprobs(candidate.get("logprobsResult") or {}):
            yield Logprobs(logprobs, choice)
        if reason := candidate.get("finishReason"):
            self._ended.add(choice)
            finish = _FINISH.get(reason, "stop")
            if finish == "content_filter" and candidate.get("finishMessage"):
                yield Refusal(candidate["finishMessage"], choice)
            yield Finish("tool_calls" if reason == "STOP" and self._calls[choice] else finish, choice)

    def _call(self, call: Mapping[str, Any], signature: str | None, choice: int) -> Iterator[Piece]:
        index, arguments = self._calls[choice], orjson.dumps(call.get("args") or {})
        self._calls[choice] += 1
        own_id = call.get("id") or self._made_id(choice, index, call["name"], arguments)
        yield CallStart(index, tool_calls.with_extra(own_id, PROVIDER, signature), call["name"], choice)
        yield CallArguments(index, arguments.decode(), choice)

    def _made_id(self, choice: int, index: int, name: str, arguments: bytes) -> str:
        # Its own in the whole conversation, by the answer's id; and unless that is missing, by nothing else.
        unlike = orjson.dumps([self.id, choice, index, name]) + arguments
        return f"{_OWN_ID}{hashlib.sha256(unlike).hexdigest()[:24]}"


def _logprobs(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    tops = [top.get("candidates") or [] for top in result.get("topCandidates") or []]
    return [
        # The tops are as many as the chosen, or none.
        _token(token) | {"top_logprobs": [_token(one) for top in tops[place : place + 1] for one in top]}
        for place, token in enumerate(result.get("chosenCandidates") or [])
    ]


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    # Zero is left out, as proto3's JSON leaves it.
    text = token.get("token") or ""
    return {"token": text, "logprob": token.get("logProbability") or 0.0, "bytes": list(text.encode())}


def _usage(counts: Mapping[str, int]) -> Usage:
    thoughts = counts.get("thoughtsTokenCount", 0)
    return Usage(
        prompt_tokens=counts.get("promptTokenCount", 0) + counts.get("toolUsePromptTokenCount", 0),
        completion_tokens=counts.get("candidatesTokenCount", 0) + thoughts,
        # Inside the prompt already.
        cached_tokens=counts.get("cachedContentTokenCount", 0),
        reasoning_tokens=thoughts,
    )


def stream_error(error: Mapping[str, Any]) -> ProviderError:
    """The error that an event of a stream tells of, by its code (wire.md §4b)."""
    message = str(error.get("message") or "the provider broke the stream off")[:2000]
    match error.get("code"):
        case 429:
            return RateLimited(message)
        case 400 | 404 | 413:
            return Rejected(message)
        case _:
            return Unavailable("the provider broke the stream off")
