"""Bedrock's answer to a conversation: one JSON object, or the same as a stream of frames (wire.md §6d, §11, §12)."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.sandbox.anthropic_thoughts import Thought, mint_call_id
from app.sandbox.bedrock_blocks import Message, ToolResult
from app.sandbox.bedrock_catalog import Model
from app.sandbox.bedrock_request import ConverseRequest
from app.sandbox.event_stream import event_frame, exception_frame
from app.sandbox.model import Attachment, answer_text, said, tokens, tools_to_call

_THOUGHT = "thinking about it"
_BYTES_PER_TOKEN = 4
_FILTERED = "The generated text has been blocked by our content filters."
# How long the model pretends to have thought.
_METRICS = {"latencyMs": 1}

Event = tuple[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model says to one request."""

    blocks: list[dict[str, Any]]
    stop_reason: str
    usage: dict[str, int]
    # The members that repeat what the request asked for.
    echo: dict[str, Any]
    # What the user said last.
    asked: str
    # Whether the stream breaks off after its first text, as the user's text asked for.
    throttled: bool

    @classmethod
    def of(cls, request: ConverseRequest, model: Model, attachments: Sequence[Attachment]) -> "Answer":
        """Let the simulated model answer."""
        text = _last_said(request.messages)
        # Claude seals what its filters would not let out; here the user's text asks for that.
        thought = Thought.new(_THOUGHT, redacted="redacted:" in text) if request.thinking else None
        blocks, stop_reason = _reply(request, model, attachments, text, thought)
        blocks = [*([_thought_block(thought)] if thought else []), *blocks]
        asked = {"performanceConfig": request.performance_config, "serviceTier": request.service_tier}
        return cls(
            blocks=blocks,
            stop_reason=stop_reason,
            usage=_usage(request, attachments, text, blocks),
            echo={name: value.model_dump(exclude_none=True) for name, value in asked.items() if value is not None},
            asked=text,
            throttled="throttle:" in text,
        )

    def body(self) -> dict[str, Any]:
        """Return the whole answer."""
        output = {"message": {"role": "assistant", "content": self.blocks}}
        return {"output": output, "stopReason": self.stop_reason, **self._metadata()}

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the answer piece by piece."""
        for name, payload in self._events():
            yield event_frame(name, payload)
            if self.throttled and "text" in payload.get("delta", ()):
                yield exception_frame("throttlingException", "Too many tokens, please wait before trying again.")
                return

    def _events(self) -> Iterator[Event]:
        yield "messageStart", {"role": "assistant"}
        for index, block in enumerate(self.blocks):
            for name, content in _pieces(block):
                yield name, content | {"contentBlockIndex": index}
            yield "contentBlockStop", {"contentBlockIndex": index}
        yield "messageStop", {"stopReason": self.stop_reason}
        yield "metadata", self._metadata()

    def _metadata(self) -> dict[str, Any]:
        return {"usage": self.usage, "metrics": _METRICS, **self.echo}


def _pieces(block: dict[str, Any]) -> Iterator[Event]:
    """Yield the events of a block; only a call has one that it starts with."""
    match block:
        case {"text": text}:
            yield from (("contentBlockDelta", {"delta": {"text": token}}) for token in tokens(text))
        case {"toolUse": {"input": arguments, **start}}:
            yield "contentBlockStart", {"start": {"toolUse": start}}
            written = orjson.dumps(arguments).decode()
            middle = len(written) // 2
            for part in (written[:middle], written[middle:]):
                yield "contentBlockDelta", {"delta": {"toolUse": {"input": part}}}
        case {"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}}:
            for piece in (*({"text": token} for token in tokens(text)), {"signature": signature}):
                yield "contentBlockDelta", {"delta": {"reasoningContent": piece}}
        case _:
            yield "contentBlockDelta", {"delta": block}


def _thought_block(thought: Thought) -> dict[str, Any]:
    # The seal is base64, and so is what a blob is written as.
    shown = {"reasoningText": {"text": thought.shown, "signature": thought.seal}}
    return {"reasoningContent": {"redactedContent": thought.seal} if thought.redacted else shown}


def _last_said(messages: Sequence[Message]) -> str:
    """Return the text of the last user message that has any."""
    texts = (said(message.texts) for message in reversed(messages) if message.role == "user")
    return next(filter(None, texts), "")


def _result_text(result: ToolResult) -> str:
    texts = [orjson.dumps(block.data).decode() if block.data is not None else block.text for block in result.content]
    return said(text for text in texts if text is not None)


def _reply(
    request: ConverseRequest, model: Model, attachments: Sequence[Attachment], text: str, thought: Thought | None
) -> tuple[list[dict[str, Any]], str]:
    """Return what the model says after its thought, and why it stops."""
    last = next(message for message in reversed(request.messages) if message.role == "user")
    # A user who goes on in the same message as the results asks something new.
    results = [] if said(last.texts) else last.results
    if "refuse:" in text:
        return [{"text": _FILTERED}], "content_filtered"
    if results:
        texts = filter(None, map(_result_text, results))
        return _said(request, model, answer_text(attachments, "\n".join(texts)), thought)
    if names := _called(request, text):
        # A call is not cut by maxTokens: half a call is of use to nobody.
        calls = [{"toolUseId": mint_call_id(thought), "name": name, "input": {"q": text}} for name in names]
        return [{"toolUse": call} for call in calls], "tool_use"
    return _said(request, model, answer_text(attachments, text), thought)


def _called(request: ConverseRequest, text: str) -> list[str]:
    choice = request.tool_choice
    names = [choice.tool.name] if choice and choice.tool else [spec.name for spec in request.tools]
    called = tools_to_call(text, names, required=request.must_call)
    # Converse has no word for one call at a time; Claude's own way to say so passes through.
    native = request.additional_model_request_fields.tool_choice
    return called[:1] if native and native.disable_parallel_tool_use else called


def _said(
    request: ConverseRequest, model: Model, text: str, thought: Thought | None
) -> tuple[list[dict[str, Any]], str]:
    """Return the text as the request limits it: by its format, its stop sequences, and its number of tokens."""
    if request.output_config.text_format:
        text = orjson.dumps({"answer": text}).decode()
    config, stop_reason = request.inference_config, "end_turn"
    found = [text.index(sequence) for sequence in config.stop_sequences if sequence in text]
    if found:
        text, stop_reason = text[: min(found)], "stop_sequence"
    # Thinking counts toward the limit.
    room = max((config.max_tokens or model.max_tokens) - (len(tokens(_THOUGHT)) if thought else 0), 0)
    if len(tokens(text)) > room:
        text, stop_reason = "".join(tokens(text)[:room]), "max_tokens"
    return [{"text": text}] if text else [], stop_reason


def _usage(
    request: ConverseRequest, attachments: Sequence[Attachment], text: str, blocks: Sequence[dict[str, Any]]
) -> dict[str, int]:
    pieces = [*request.system, *(piece for message in request.messages for piece in message.pieces())]
    letters = sum(len(getattr(piece, "text", None) or "") for piece in pieces)
    read_tokens = 2 + (letters + sum(attachment.size_bytes for attachment in attachments)) // _BYTES_PER_TOKEN
    cached_tokens = read_tokens // 2 if "cached:" in text else 0
    output_tokens = sum(len(tokens(_written(block))) for block in blocks)
    # The counts are disjoint, and the total is that of all:
    # https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    return {
        "inputTokens": read_tokens - cached_tokens,
        "outputTokens": output_tokens,
        "totalTokens": read_tokens + output_tokens,
        "cacheReadInputTokens": cached_tokens,
        "cacheWriteInputTokens": 0,
    }


def _written(block: dict[str, Any]) -> str:
    """Return what the model had to write for a block."""
    if "toolUse" in block:
        return orjson.dumps(block["toolUse"]["input"]).decode()
    return str(block.get("text", _THOUGHT))
