"""OpenAI's chat completions ↔ Bedrock's Converse and ConverseStream (wire.md §6c, §6d).

Contract: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and botocore's service model
bedrock-runtime (1.44.5).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from app.errors import ProviderError, RateLimited, Rejected, Unavailable
from app.formats import claude, conversation, tool_calls
from app.formats.answers import CallArguments, CallStart, Finish, FinishReason, Piece, Reasoning, Text, Usage
from app.formats.media import Media
from app.formats.openai import (
    AssistantMessage,
    Chat,
    Parameters,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)

PROVIDER = "bedrock"
# MIME type → Converse's word for it, by the block that carries it.
DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
VIDEOS = {
    "video/x-matroska": "mkv",
    "video/quicktime": "mov",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/x-flv": "flv",
    "video/mpeg": "mpeg",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
AUDIO = {
    "audio/mpeg": "mp3",
    "audio/opus": "opus",
    "audio/wav": "wav",
    "audio/aac": "aac",
    "audio/x-aac": "x-aac",
    "audio/flac": "flac",
    "audio/x-flac": "flac",
    "audio/mp4": "m4a",
    "audio/x-m4a": "m4a",
    "audio/ogg": "ogg",
    "audio/x-matroska": "mka",
    "audio/webm": "webm",
}
_BLOCKS = {"document": DOCUMENTS, "image": IMAGES, "video": VIDEOS, "audio": AUDIO}
_FORMATS = {mime_type: (kind, name) for kind, names in _BLOCKS.items() for mime_type, name in names.items()}
_KINDS = tuple(_BLOCKS)
_RESULT_KINDS = ("document", "image", "video")

_CALL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9()\[\]-]+")
_MAX_NAME = 200
_METADATA = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,\-.]{0,256}", re.ASCII)
_MAX_METADATA = 16
# The service model names these five; `minimal` is below the lowest.
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_TIERS = frozenset({"default", "flex", "priority", "reserved"})
_FINISH: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "stop",
    "malformed_tool_use": "stop",
}
_STREAM_ERRORS: Mapping[str, type[ProviderError]] = {
    "throttlingException": RateLimited,
    "validationException": Rejected,
    "internalServerException": Unavailable,
    "modelStreamErrorException": Unavailable,
    "serviceUnavailableException": Unavailable,
}

# --- request ----------------------------------------------------------------------------------------------------


def translate(chat: Chat) -> dict[str, Any]:
    """The body of POST /model/{id}/converse. Raises Unsupported or Rejected with the parameter."""
    parameters = chat.parameters
    chat.refuse_names()
    chat.leave_out_details()
    system, messages = _conversation(chat)
    output = _answer_format(parameters, system)
    body: dict[str, Any] = {
        "messages": messages,
        **_inference(parameters),
        **_tools(chat, system),
        **_request_metadata(parameters),
    }
    body |= _effort(chat, body, output)
    if output:
        body["outputConfig"] = output
    if system:
        body["system"] = system
    match parameters.take("service_tier"):
        case None | "auto":
            pass
        case tier if tier in _TIERS:
            body["serviceTier"] = {"type": tier}
        case tier:
            parameters.refuse("service_tier", f"Bedrock has no tier {tier!r}; it has auto, default, flex and priority")
    parameters.finish()
    return body


def _answer_format(parameters: Parameters, system: list[dict[str, Any]]) -> dict[str, Any]:
    """The beginning of outputConfig."""
    wanted = parameters.take("response_format")
    if wanted is None or wanted.type == "text":
        return {}
    if wanted.type == "json_object":
        # There is no native form (wire.md §6d): the prompt asks for it.
        system.append({"text": "Answer with one JSON object and nothing else."})
        return {}
    asked = wanted.json_schema
    # The schema is text there, and always followed, strict or not. orjson writes no numbers of more than 64 bits.
    schema = json.dumps(asked.schema_, ensure_ascii=False, separators=(",", ":"))
    definition = {"schema": schema, "name": asked.name}
    if asked.description:
        definition["description"] = asked.description
    return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": definition}}}


def _inference(parameters: Parameters) -> dict[str, Any]:
    limit, older_limit = parameters.take("max_completion_tokens"), parameters.take("max_tokens")
    temperature = parameters.take("temperature")
    config = {
        "maxTokens": limit or older_limit,
        # Converse ends at 1, OpenAI at 2. Scaling would change what 1 and all below mean; clamping only what is above.
        "temperature": None if temperature is None else min(temperature, 1.0),
        "topP": parameters.take("top_p"),
        # An empty sequence stops nothing, and is refused.
        "stopSequences": [one for one in parameters.take("stop") or () if one] or None,
    }
    given = {name: value for name, value in config.items() if value is not None}
    return {"inferenceConfig": given} if given else {}


def _effort(chat: Chat, body: Mapping[str, Any], output: dict[str, Any]) -> dict[str, Any]:
    """Adds the effort to outputConfig; the rest of the body that belongs to it."""
    effort = chat.parameters.take("reasoning_effort")
    if effort is None:
        return {}
    if "anthropic.claude" not in chat.provider_model:
        if effort == "none":
            chat.parameters.refuse("reasoning_effort", f"Converse has no word for none with {chat.provider_model}")
        else:
            output["effort"] = _EFFORTS[effort]
        return {}
    choice = body.get("toolConfig", {}).get("toolChoice", {})
    limit = body.get("inferenceConfig", {}).get("maxTokens")
    told = claude.thinking(chat.provider_model, effort, limit, forced_call=bool(choice.keys() & {"any", "tool"}))
    if isinstance(told, str):
        chat.parameters.refuse("reasoning_effort", told)
        return {}
    if told.effort:
        output["effort"] = told.effort
    if told.thinking is None:
        return {}
    if told.thinking["type"] != "disabled":
        _leave_room_to_think(chat.parameters, body)
    return {"additionalModelRequestFields": {"thinking": told.thinking}}


def _leave_room_to_think(parameters: Parameters, body: Mapping[str, Any]) -> None:
    """Claude does not think with less chance than this; the answer can do without, and it is said in it."""
    inference = body.get("inferenceConfig", {})
    for name, sent in (("temperature", "temperature"), ("top_p", "topP")):
        if inference.get(sent, 1.0) < claude.LEAST_TO_THINK[name]:
            del inference[sent]
            parameters.dropped.append(name)


def _request_metadata(parameters: Parameters) -> dict[str, Any]:
    """What OpenAI keeps for looking a request up by, as what invocation logs are filtered by."""
    pairs: dict[str, str] = {}
    for name in ("metadata", "user", "safety_identifier"):
        value = parameters.take(name)
        if value is None:
            continue
        own = value if name == "metadata" else {name: value}
        fits = all(key and _METADATA.fullmatch(key) and _METADATA.fullmatch(text) for key, text in own.items())
        if fits and not own.keys() & pairs.keys() and len(own) + len(pairs) <= _MAX_METADATA:
            pairs |= own
        else:
            parameters.refuse(
                name, f"Bedrock takes {_MAX_METADATA} pairs of at most 256 letters, digits, spaces and :_@$#=/+,-."
            )
    return {"requestMetadata": pairs} if pairs else {}


def _tools(chat: Chat, system: list[dict[str, Any]]) -> dict[str, Any]:
    parameters = chat.parameters
    tools, choice = parameters.take("tools") or (), parameters.take("tool_choice")
    if parameters.take("parallel_tool_calls") is False:
        parameters.refuse("parallel_tool_calls", "Converse cannot keep a model from calling several tools at once")
    if not tools and choice not in (None, "none", "auto"):
        raise Rejected("tool_choice: there are no tools to choose from", param="tool_choice")
    config: dict[str, Any] = {"tools": [_tool_spec(tool) for tool in tools]}
    if not tools or choice == "none":
        called = dict.fromkeys(chat.function_names().values())
        if not called:
            return {}
        # A history with tool calls is refused without a toolConfig (https://github.com/langgenius/dify/issues/16421),
        # and there is no choice of none: the tools stay, those of the history if need be, and the prompt forbids them.
        system.append({"text": "Answer without calling a tool."})
        return {"toolConfig": config if tools else {"tools": [_spec(name, None) for name in called]}}
    match choice:
        case None:
            pass
        case "auto":
            config["toolChoice"] = {"auto": {}}
        case "required":
            config["toolChoice"] = {"any": {}}
        case named:
            config["toolChoice"] = {"tool": {"name": named.function.name}}
    return {"toolConfig": config}


def _tool_spec(tool: Tool) -> dict[str, Any]:
    function = tool.function
    made = _spec(function.name, function.parameters)
    if function.description:
        made["toolSpec"]["description"] = function.description
    if function.strict:
        made["toolSpec"]["strict"] = True
    return made


def _spec(name: str, schema: dict[str, Any] | None) -> dict[str, Any]:
    # A schema that does not say that it is an object's is refused; OpenAI takes that for granted.
    return {"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object", **(schema or {"properties": {}})}}}}


# --- messages ---------------------------------------------------------------------------------------------------


class _Names:
    """The names of a request's documents, as Converse allows them, each unlike all others in it.

    A name that stands twice anywhere in a conversation is refused (https://github.com/maximhq/bifrost/issues/7003);
    that letters of either case count as the same is unverified.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, filename: str) -> str:
        """The name of the next document. Dots are not allowed either."""
        wanted = _NOT_IN_NAMES.sub(" ", filename).strip()[:_MAX_NAME].strip() or "document"
        name, copy = wanted, 1
        while name.lower() in self._taken:
            copy += 1
            mark = f" ({copy})"
            name = wanted[: _MAX_NAME - len(mark)].strip() + mark
        self._taken.add(name.lower())
        return name


def _conversation(chat: Chat) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The system's texts, and the turns: what follows one another in the same role is one turn."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    names = _Names()
    for index, message in enumerate(chat.messages):
        where = f"messages[{index}]"
        match message:
            case SystemMessage() if not turns:
                system += _texts(message.content)
            case SystemMessage():
                # A system role within the conversation depends on the model (wire.md §6d).
                conversation.add(turns, "user", _texts(message.content))
            case UserMessage():
                conversation.add(turns, "user", _blocks(chat, message, where, names, _KINDS))
            case ToolMessage():
                conversation.add(turns, "user", [_tool_result(chat, message, where, names)])
            case AssistantMessage():
                said = _said(chat, message, where)
                if said and not turns:
                    raise Rejected(f"{where}: at Bedrock a conversation begins with a user's message", param=where)
                conversation.add(turns, "assistant", said)
    if not turns:
        raise Rejected("messages: at Bedrock a conversation has a user's message", param="messages")
    for turn in turns:
        _complete(turn)
    return system, turns


def _complete(turn: dict[str, Any]) -> None:
    """Brings a turn into the shape that Converse wants."""
    blocks = turn["content"]
    # The results of tools stand before what the user says to them.
    blocks.sort(key=lambda block: "toolResult" not in block)
    names = [block["document"]["name"] for block in blocks if "document" in block]
    if names and not any("text" in block for block in blocks):
        # A message with a document but no text is refused (service model, Message).
        blocks.append({"text": f"Documents: {', '.join(names)}"})


def _texts(parts: tuple[TextPart, ...]) -> list[dict[str, Any]]:
    return [block for part in parts for block in _text(part.text)]


def _text(text: str) -> list[dict[str, Any]]:
    # Blank text is refused, white space included (https://github.com/NousResearch/hermes-agent/issues/55092).
    return [{"text": text}] if text.strip() else []


def _said(chat: Chat, message: AssistantMessage, where: str) -> list[dict[str, Any]]:
    # Signed reasoning comes back unchanged: what preceded the first call before all else.
    blocks = _reasoning(chat, message.tool_calls[0]) if message.tool_calls else []
    for text in conversation.said(message, where):
        blocks += _text(text)
    for index, call in enumerate(message.tool_calls):
        if index:
            blocks += _reasoning(chat, call)
        call_id = tool_calls.vendor_id(call.id, _CALL_ID)
        arguments = call.function.parsed(f"{where}.tool_calls[{index}]")
        blocks.append({"toolUse": {"toolUseId": call_id, "name": call.function.name, "input": arguments}})
    return blocks


def _reasoning(chat: Chat, call: ToolCall) -> list[dict[str, Any]]:
    """The reasoning that a call's id carries. A client may have forged it: nothing else gets in by this way."""
    if "anthropic.claude" not in chat.provider_model:
        # Another model may go on with the conversation, and only Claude's are known to sign and to want it back.
        return []
    carried = tool_calls.extra_of(call.id, PROVIDER)
    blocks = carried if isinstance(carried, list) else []
    return [block for block in blocks if isinstance(block, dict) and block.keys() == {"reasoningContent"}]


def _tool_result(chat: Chat, message: ToolMessage, where: str, names: _Names) -> dict[str, Any]:
    call_id = tool_calls.vendor_id(message.tool_call_id, _CALL_ID)
    content = _blocks(chat, message, where, names, _RESULT_KINDS)
    return {"toolResult": {"toolUseId": call_id, "content": content}}


def _blocks(
    chat: Chat, message: UserMessage | ToolMessage, where: str, names: _Names, kinds: tuple[str, ...]
) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for one in conversation.shown(chat, message, where):
        blocks += _text(one) if isinstance(one, str) else [_media_block(one, names, kinds)]
    return blocks


def _media_block(media: Media, names: _Names, kinds: tuple[str, ...]) -> dict[str, Any]:
    kind, name = _FORMATS.get(media.mime_type, ("", ""))
    if kind in kinds:
        block: dict[str, Any] = {"format": name, "source": _source(media)}
        if kind == "document":
            block["name"] = names.of(media.filename or kind)
        return {kind: block}
    if media.kind == "text" and media.data is not None:
        return {"text": media.as_text_file()}
    raise media.refused(f"Bedrock takes {', '.join(kinds)} and text here, not {media.mime_type}")


def _source(media: Media) -> dict[str, Any]:
    if media.url is not None:
        raise media.refused("Bedrock fetches nothing from the web; upload the file, or send its bytes as a data URL")
    if media.file_id is not None:
        return {"s3Location": {"uri": media.file_id}}
    return {"bytes": media.data}


# --- answer -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Thought:
    """A block of reasoning as it grows; whole, and only then, what is signed or encrypted in it is wanted back."""

    text: str = ""
    signature: str = ""
    redacted: bytes = b""

    def block(self) -> dict[str, Any] | None:
        """As Converse wants it back. Models that do not sign their reasoning do not want it."""
        if self.signature:
            return {"reasoningContent": {"reasoningText": {"text": self.text, "signature": self.signature}}}
        if self.redacted:
            return {"reasoningContent": {"redactedContent": base64.b64encode(self.redacted).decode()}}
        return None


class Reader:
    """Reads an answer of Converse, whole or as its events. It has no id and no model: they are given."""

    def __init__(self, answer_id: str, provider_model: str) -> None:
        self.id, self.model, self.complete = answer_id, provider_model, False
        # The block that is open, and the reasoning that the next tool call carries.
        self._thought = _Thought()
        self._lacks_arguments = False
        self._reasoning: list[dict[str, Any]] = []
        self._calls = 0

    def whole(self, answer: dict[str, Any]) -> Iterator[Piece]:
        """The pieces of an answer that came at once: those of the events in which it would have been streamed."""
        for event in _events_of(answer):
            yield from self.event(event)

    def event(self, event: dict[str, Any]) -> Iterator[Piece]:
        """The pieces of one event, its type → its content. Citations and images have no place in OpenAI's answers."""
        match event:
            case {"contentBlockStart": {"start": {"toolUse": call}}}:
                call_id = tool_calls.with_extra(call["toolUseId"], PROVIDER, self._reasoning)
                self._reasoning, self._lacks_arguments = [], True
                yield CallStart(self._calls, call_id, call["name"])
                self._calls += 1
            case {"contentBlockDelta": {"delta": delta}}:
                yield from self._continued(delta)
            case {"contentBlockStop": _}:
                yield from self._closed()
            case {"messageStop": {"stopReason": reason}}:
                yield Finish(_FINISH.get(reason, "stop"))
                self.complete = True
            case {"metadata": {"usage": counts}}:
                yield _usage(counts)
            case {"exception": failure}:
                raise stream_error(failure)

    def _continued(self, delta: Mapping[str, Any]) -> Iterator[Piece]:
        match delta:
            case {"text": text} if text:
                yield Text(text)
            case {"toolUse": {"input": text}} if text:
                self._lacks_arguments = False
                yield CallArguments(self._calls - 1, text)
            case {"reasoningContent": {"text": text}} if text:
                self._thought.text += text
                yield Reasoning(text)
            case {"reasoningContent": {"signature": text}}:
                self._thought.signature += text
            case {"reasoningContent": {"redactedContent": data}}:
                self._thought.redacted += base64.b64decode(data)

    def _closed(self) -> Iterator[Piece]:
        if self._lacks_arguments:
            # OpenAI's clients parse the arguments, and nothing is no JSON.
            self._lacks_arguments = False
            yield CallArguments(self._calls - 1, "{}")
        if block := self._thought.block():
            self._reasoning.append(block)
        self._thought = _Thought()


def _events_of(answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for block in answer["output"]["message"]["content"]:
        if "toolUse" in block:
            yield {"contentBlockStart": {"start": block}}
        for delta in _deltas_of(block):
            yield {"contentBlockDelta": {"delta": delta}}
        yield {"contentBlockStop": {}}
    yield {"messageStop": {"stopReason": answer["stopReason"]}}
    yield {"metadata": {"usage": answer["usage"]}}


def _deltas_of(block: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    match block:
        case {"toolUse": {"input": arguments}}:
            yield {"toolUse": {"input": orjson.dumps(arguments).decode()}}
        case {"reasoningContent": {"reasoningText": thought}}:
            for name, text in thought.items():
                yield {"reasoningContent": {name: text}}
        case {"citationsContent": {"content": cited}}:
            # A stream sends what is cited as any other text.
            yield from cited
        case _:
            yield block


def _usage(counts: Mapping[str, Any]) -> Usage:
    written, read = counts.get("cacheWriteInputTokens") or 0, counts.get("cacheReadInputTokens") or 0
    return Usage(
        # The three are disjoint (https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html).
        prompt_tokens=counts["inputTokens"] + written + read,
        completion_tokens=counts["outputTokens"],
        cached_tokens=read,
        cache_write_tokens=written,
    )


def stream_error(failure: Mapping[str, Any]) -> ProviderError:
    """The error that a stream breaks off with: the frame's exception type as `type`, and its `message`."""
    found = _STREAM_ERRORS.get(str(failure.get("type")))
    message = failure.get("message") if found else None
    return (found or Unavailable)(str(message or "the provider broke the stream off")[:2000])
