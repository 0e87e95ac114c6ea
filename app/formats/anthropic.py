"""OpenAI's chat completions ↔ Anthropic's Messages (wire.md §3c, §3d).

Contract: https://docs.anthropic.com/en/api/messages and …/messages-streaming.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from app.errors import ProviderError, RateLimited, Rejected, Unavailable
from app.formats import claude, conversation, tool_calls
from app.formats.answers import (
    CallArguments,
    CallStart,
    Finish,
    FinishReason,
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
    Function,
    Parameters,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
)

PROVIDER = "anthropic"
IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_THINKING = ("thinking", "redacted_thinking")
_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FINISH: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

# --- request ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an account speaks: `samples` where temperature and top_p still exist (before 2026-10-21), and the answer's
    length where the caller names none, since Anthropic wants one."""

    samples: bool
    max_tokens: int


def translate(chat: Chat, dialect: Dialect) -> dict[str, Any]:
    """The body of POST /v1/messages. Raises Unsupported or Rejected with the parameter."""
    parameters = chat.parameters
    chat.refuse_names()
    chat.leave_out_details()
    body: dict[str, Any] = {"model": chat.provider_model}
    older_limit = parameters.take("max_tokens")
    limit = parameters.take("max_completion_tokens") or older_limit
    body["max_tokens"] = limit or dialect.max_tokens
    system, messages = _conversation(chat)
    if chat_format := _answer_format(parameters, system):
        body["output_config"] = chat_format
    if not messages:
        raise Rejected("messages: nobody says anything in them", param="messages")
    if system:
        body["system"] = system
    body["messages"] = messages
    _stop(parameters, body)
    _tools(chat, body)
    _effort(chat, limit, body)
    _sampling(parameters, dialect, body)
    if user := parameters.take("safety_identifier") or parameters.take("user"):
        body["metadata"] = {"user_id": user}
    # There is one place, and OpenAI's older name for it gives way.
    parameters.leave_out("user")
    _service_tier(parameters, body)
    parameters.finish()
    if chat.request.stream:
        body["stream"] = True
    return body


def _answer_format(parameters: Parameters, system: list[dict[str, Any]]) -> dict[str, Any] | None:
    wanted = parameters.take("response_format")
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        # There is no native form (wire.md §3d): the prompt asks for it.
        system.append({"type": "text", "text": "Answer with one JSON object and nothing else."})
        return None
    # The schema is always followed, strict or not; its name is OpenAI's own business.
    about = {"description": wanted.json_schema.description} if wanted.json_schema.description else {}
    return {"format": {"type": "json_schema", "schema": about | wanted.json_schema.schema_}}


def _stop(parameters: Parameters, body: dict[str, Any]) -> None:
    # An empty sequence stops nothing. White space alone is refused (https://github.com/BerriAI/litellm/issues/3286).
    stop = [sequence for sequence in parameters.take("stop") or () if sequence]
    taken = [sequence for sequence in stop if sequence.strip()]
    if len(taken) < len(stop):
        parameters.refuse("stop", "Anthropic takes no sequence that is white space only")
    if taken:
        body["stop_sequences"] = taken


def _sampling(parameters: Parameters, dialect: Dialect, body: dict[str, Any]) -> None:
    thinks = body.get("thinking", {}).get("type") in ("enabled", "adaptive")
    for name, least in claude.LEAST_TO_THINK.items():
        value = parameters.take(name)
        if value is None:
            continue
        if dialect.samples and not (thinks and value < least):
            body[name] = min(value, 1.0)
        else:
            # A 400 since 2026-10-21, and always where the model thinks; the answer can do without.
            parameters.dropped.append(name)


def _effort(chat: Chat, limit: int | None, body: dict[str, Any]) -> None:
    effort = chat.parameters.take("reasoning_effort")
    if effort is None:
        return
    forced_call = body.get("tool_choice", {}).get("type") in ("any", "tool")
    told = claude.thinking(chat.provider_model, effort, limit, forced_call=forced_call)
    if isinstance(told, str):
        chat.parameters.refuse("reasoning_effort", told)
        return
    if told.thinking:
        body["thinking"] = told.thinking
    if told.effort:
        body["output_config"] = {**body.get("output_config", {}), "effort": told.effort}
    if limit is None:
        # Thinking counts, and its budget is not to take the answer's room.
        body["max_tokens"] += told.budget_tokens


def _tools(chat: Chat, body: dict[str, Any]) -> None:
    parameters = chat.parameters
    functions = [tool.function for tool in parameters.take("tools") or ()]
    choice, parallel = parameters.take("tool_choice"), parameters.take("parallel_tool_calls")
    if not functions:
        if choice not in (None, "none", "auto"):
            raise Rejected("tool_choice: there are no tools to choose from", param="tool_choice")
        # That a history with calls is still refused without tools is unverified
        # (https://github.com/anthropics/anthropic-sdk-python/issues/494): those that it calls are told of, not allowed.
        functions = [Function(name=name) for name in dict.fromkeys(chat.function_names().values())]
        choice = "none"
    if functions:
        body["tools"] = [_tool(function) for function in functions]
        body["tool_choice"] = _tool_choice(choice, parallel)


def _tool(function: Function) -> dict[str, Any]:
    about = {"description": function.description} if function.description else {}
    # A schema that does not say that it is an object's is refused; OpenAI takes that for granted.
    schema = {"type": "object", **(function.parameters or {"properties": {}})}
    return {"name": function.name, **about, "input_schema": schema, **({"strict": True} if function.strict else {})}


def _tool_choice(choice: Any, parallel: bool | None) -> dict[str, Any]:
    told: dict[str, Any]
    match choice:
        case "none":
            return {"type": "none"}
        case None | "auto":
            told = {"type": "auto"}
        case "required":
            told = {"type": "any"}
        case named:
            told = {"type": "tool", "name": named.function.name}
    if parallel is False:
        told["disable_parallel_tool_use"] = True
    return told


def _service_tier(parameters: Parameters, body: dict[str, Any]) -> None:
    match parameters.take("service_tier"):
        case None | "auto":
            pass
        case "default":
            body["service_tier"] = "standard_only"
        case tier:
            parameters.refuse("service_tier", f"Anthropic has no tier {tier!r}; it has auto and default")


# --- messages ---------------------------------------------------------------------------------------------------


def _conversation(chat: Chat) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The system blocks, and the turns: what follows one another in the same role is one turn."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(chat.messages):
        where = f"messages[{index}]"
        match message:
            case SystemMessage() if not turns:
                system += _texts(message.content)
            case SystemMessage():
                # A system role within the conversation depends on the model (wire.md §3d).
                conversation.add(turns, "user", _texts(message.content))
            case UserMessage():
                conversation.add(turns, "user", _blocks(chat, message, where))
            case ToolMessage():
                conversation.add(turns, "user", [_tool_result(chat, message, where)])
            case AssistantMessage():
                conversation.add(turns, "assistant", _said(message, where))
    for turn in turns:
        # The results of tools stand before what the user says to them (wire.md §3d, unverified).
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    return system, turns


def _texts(parts: tuple[TextPart, ...]) -> list[dict[str, Any]]:
    return [block for part in parts for block in _text(part.text)]


def _text(text: str) -> list[dict[str, Any]]:
    # Blank text is refused (https://github.com/anthropics/claude-code/issues/23440).
    return [{"type": "text", "text": text}] if text.strip() else []


def _said(message: AssistantMessage, where: str) -> list[dict[str, Any]]:
    # Signed thinking comes back unchanged, or the turn is refused: what preceded the first call before all else.
    blocks = _thinking(message.tool_calls[0].id) if message.tool_calls else []
    for text in conversation.said(message, where):
        blocks += _text(text)
    for index, call in enumerate(message.tool_calls):
        if index:
            blocks += _thinking(call.id)
        call_id = tool_calls.vendor_id(call.id, _CALL_ID)
        arguments = call.function.parsed(f"{where}.tool_calls[{index}]")
        blocks.append({"type": "tool_use", "id": call_id, "name": call.function.name, "input": arguments})
    return blocks


def _thinking(call_id: str) -> list[dict[str, Any]]:
    """The thinking that an id carries. Ids come from clients, so nothing else that stands there is sent on."""
    carried = tool_calls.extra_of(call_id, PROVIDER)
    blocks = carried if isinstance(carried, list) else []
    return [block for block in blocks if isinstance(block, dict) and block.get("type") in _THINKING]


def _tool_result(chat: Chat, message: ToolMessage, where: str) -> dict[str, Any]:
    return {
        "type": "tool_result",
        "tool_use_id": tool_calls.vendor_id(message.tool_call_id, _CALL_ID),
        "content": _blocks(chat, message, where),
    }


def _blocks(chat: Chat, message: UserMessage | ToolMessage, where: str) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for one in conversation.shown(chat, message, where):
        blocks += _text(one) if isinstance(one, str) else [_media_block(one)]
    return blocks


def _media_block(media: Media) -> dict[str, Any]:
    if media.mime_type in IMAGES:
        return {"type": "image", "source": _source(media)}
    if media.mime_type == "application/pdf" or (media.mime_type == "text/plain" and not media.url):
        source = _source(media)
        if media.data is not None and media.mime_type == "text/plain":
            source = {"type": "text", "media_type": "text/plain", "data": media.text()}
        return {"type": "document", "source": source} | ({"title": media.filename} if media.filename else {})
    if media.kind == "text" and media.data is not None:
        return {"type": "text", "text": media.as_text_file()}
    raise media.refused(f"Anthropic takes PDF, text, png, jpeg, gif and webp, not {media.mime_type}")


def _source(media: Media) -> dict[str, Any]:
    if media.file_id is not None:
        return {"type": "file", "file_id": media.file_id}
    if media.url is not None:
        return {"type": "url", "url": media.url}
    return {"type": "base64", "media_type": media.mime_type, "data": media.data}


# --- answer -----------------------------------------------------------------------------------------------------


class Reader:
    """Reads a message, whole or as its events."""

    def __init__(self) -> None:
        self.id, self.model, self.complete = "", "", False
        self._usage: dict[str, Any] = {}
        self._end: dict[str, Any] = {}
        # The block that is open, and the thinking that the next tool call carries.
        self._block: dict[str, Any] = {}
        self._thinking: list[dict[str, Any]] = []
        self._calls = 0
        self._has_arguments = False

    def whole(self, answer: dict[str, Any]) -> Iterator[Piece]:
        """The pieces of a message: those of the events in which it would have been streamed."""
        for event in _events_of(answer):
            yield from self.event(event)

    def event(self, event: dict[str, Any]) -> Iterator[Piece]:
        """The pieces of one event."""
        match event.get("type"):
            case "message_start":
                message = event["message"]
                self.id, self.model = str(message["id"]), str(message["model"])
                self._usage = dict(message.get("usage") or {})
            case "content_block_start":
                yield from self._opened(dict(event["content_block"]))
            case "content_block_delta":
                yield from self._continued(event["delta"])
            case "content_block_stop":
                yield from self._closed()
            case "message_delta":
                # One or more; what they count, they count from the beginning.
                self._usage |= _given(event.get("usage"))
                self._end |= _given(event["delta"])
            case "message_stop":
                yield from self._ended()
            case "error":
                raise stream_error(event.get("error") or {})

    def _opened(self, block: dict[str, Any]) -> Iterator[Piece]:
        self._block = block
        match block["type"]:
            case "text" if block.get("text"):
                yield Text(block["text"])
            case "thinking" if block.get("thinking"):
                yield Reasoning(block["thinking"])
            case "tool_use":
                call_id = tool_calls.with_extra(block["id"], PROVIDER, self._thinking)
                self._thinking = []
                yield CallStart(self._calls, call_id, block["name"])
                self._calls += 1
                self._has_arguments = bool(block.get("input"))
                if block.get("input"):
                    yield CallArguments(self._calls - 1, orjson.dumps(block["input"]).decode())

    def _continued(self, delta: Mapping[str, Any]) -> Iterator[Piece]:
        match delta["type"]:
            case "text_delta":
                yield Text(delta["text"])
            case "input_json_delta" if delta["partial_json"]:
                self._has_arguments = True
                yield CallArguments(self._calls - 1, delta["partial_json"])
            case "thinking_delta":
                self._block["thinking"] = self._block.get("thinking", "") + delta["thinking"]
                yield Reasoning(delta["thinking"])
            case "signature_delta":
                self._block["signature"] = self._block.get("signature", "") + delta["signature"]

    def _closed(self) -> Iterator[Piece]:
        block, self._block = self._block, {}
        if block.get("type") in _THINKING:
            self._thinking.append(block)
        elif block.get("type") == "tool_use" and not self._has_arguments:
            # OpenAI's clients parse the arguments, and nothing is no JSON.
            yield CallArguments(self._calls - 1, "{}")

    def _ended(self) -> Iterator[Piece]:
        reason, details = self._end.get("stop_reason"), self._end.get("stop_details", {})
        if reason == "refusal" and details.get("explanation"):
            yield Refusal(details["explanation"])
        yield Finish(_FINISH.get(str(reason), "stop"))
        yield _usage(self._usage)
        self.complete = True


def _given(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (values or {}).items() if value is not None}


def _events_of(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "message_start", "message": message}
    for block in message["content"]:
        yield {"type": "content_block_start", "content_block": block}
        yield {"type": "content_block_stop"}
    delta = {"stop_reason": message.get("stop_reason"), "stop_details": message.get("stop_details")}
    yield {"type": "message_delta", "delta": delta, "usage": message.get("usage")}
    yield {"type": "message_stop"}


def _usage(counts: Mapping[str, Any]) -> Usage:
    written, read = counts.get("cache_creation_input_tokens") or 0, counts.get("cache_read_input_tokens") or 0
    return Usage(
        # The three are disjoint (wire.md §3d).
        prompt_tokens=(counts.get("input_tokens") or 0) + written + read,
        completion_tokens=counts.get("output_tokens") or 0,
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=(counts.get("output_tokens_details") or {}).get("thinking_tokens") or 0,
    )


def stream_error(error: Mapping[str, Any]) -> ProviderError:
    """The error that an event of a stream tells of, by its type (wire.md §3b)."""
    message = str(error.get("message") or "the provider broke the stream off")[:2000]
    match error.get("type"):
        case "rate_limit_error":
            return RateLimited(message)
        case "invalid_request_error" | "request_too_large" | "not_found_error":
            return Rejected(message)
        case "overloaded_error" | "api_error" | "timeout_error":
            return Unavailable(message)
        case _:
            return Unavailable("the provider broke the stream off")
