"""Anthropic's answer to a request for a message: one JSON object, or the same as named events (wire.md §3d, §11)."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

import orjson

from app.sandbox.anthropic_blocks import Block, TextBlock, ToolResultBlock
from app.sandbox.anthropic_messages import MessagesRequest, NamedChoice, NoChoice
from app.sandbox.anthropic_thoughts import Thought, mint_call_id
from app.sandbox.model import Attachment, answer_text, said, tokens, tools_to_call

_THOUGHT = "thinking about it"
_BYTES_PER_TOKEN = 4
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]


@dataclass(frozen=True, kw_only=True)
class _Reply:
    """The blocks that the model says after its thought, and why it stops."""

    blocks: list[dict[str, Any]]
    stop_reason: StopReason
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model says to one request."""

    id: str
    model: str
    # What the user said last; the rest is the answer to it.
    asked: str
    blocks: list[dict[str, Any]]
    stop: dict[str, Any]
    usage: dict[str, Any]

    @classmethod
    def of(cls, request: MessagesRequest, attachments: Sequence[Attachment]) -> "Answer":
        """Let the simulated model answer."""
        text = _last_said(request)
        thought = _thought(request, text)
        thinking_tokens = len(tokens(_THOUGHT)) if thought else 0
        reply = _reply(request, attachments, text, thought)
        return cls(
            id=f"msg_01{uuid4().hex[:22]}",
            model=request.model,
            asked=text,
            blocks=[*([thought.block()] if thought else []), *reply.blocks],
            stop={
                "stop_reason": reply.stop_reason,
                "stop_sequence": reply.stop_sequence,
                "stop_details": reply.stop_details,
                "container": None,
            },
            usage=_usage(request, attachments, text, thinking_tokens, reply.blocks),
        )

    def body(self) -> dict[str, Any]:
        """Return the whole answer."""
        return self._head() | {"content": self.blocks, "usage": self.usage} | self.stop

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the answer piece by piece; the client finds each piece's name in it, too."""
        so_far = self.usage | {"output_tokens": 1, "output_tokens_details": None}
        nothing_yet = self._head() | {"content": [], "usage": so_far} | dict.fromkeys(self.stop)
        yield {"type": "message_start", "message": nothing_yet}
        yield {"type": "ping"}
        for index, block in enumerate(self.blocks):
            start, deltas = _pieces(block)
            yield {"type": "content_block_start", "index": index, "content_block": start}
            for delta in deltas:
                yield {"type": "content_block_delta", "index": index, "delta": delta}
            yield {"type": "content_block_stop", "index": index}
        yield {"type": "message_delta", "delta": self.stop, "usage": self.usage}
        yield {"type": "message_stop"}

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "type": "message", "role": "assistant", "model": self.model}


async def sse(events: Iterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Yield `events` as server-sent events, each with its name."""
    for event in events:
        yield f"event: {event['type']}\ndata: ".encode() + orjson.dumps(event) + b"\n\n"


def _pieces(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how a block starts in a stream, and what then is added to it."""
    match block["type"]:
        case "text":
            return block | {"text": ""}, [{"type": "text_delta", "text": token} for token in tokens(block["text"])]
        case "thinking":
            thought = [{"type": "thinking_delta", "thinking": token} for token in tokens(block["thinking"])]
            signed = {"type": "signature_delta", "signature": block["signature"]}
            return block | {"thinking": "", "signature": ""}, [*thought, signed]
        case "tool_use":
            arguments = orjson.dumps(block["input"]).decode()
            middle = len(arguments) // 2
            parts = ("", arguments[:middle], arguments[middle:])
            return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]
    return block, []


def _last_said(request: MessagesRequest) -> str:
    """Return the text of the last user message that has any."""
    for turn in reversed(request.turns):
        if turn.role == "user" and (text := _text(turn.blocks)):
            return text
    return ""


def _last_results(request: MessagesRequest) -> list[str] | None:
    """Return what the tools returned, one line each, if that is what the conversation ends in."""
    blocks = request.turns[-1].blocks
    if not isinstance(blocks[-1], ToolResultBlock):
        return None
    return [text for block in blocks if isinstance(block, ToolResultBlock) and (text := _text(block.content))]


def _text(blocks: Sequence[Block]) -> str:
    return said(block.text for block in blocks if isinstance(block, TextBlock))


def _thought(request: MessagesRequest, text: str) -> Thought | None:
    if not request.thinks:
        return None
    shown = "" if getattr(request.thinking, "display", None) == "omitted" else _THOUGHT
    # Anthropic seals what its filters would not let out; here the user's text asks for that.
    return Thought.new(shown, redacted="redacted:" in text)


def _reply(request: MessagesRequest, attachments: Sequence[Attachment], text: str, thought: Thought | None) -> _Reply:
    if "refuse:" in text:
        details = {"type": "refusal", "category": "general_harms", "explanation": "The model will not answer this."}
        return _Reply(blocks=[], stop_reason="refusal", stop_details=details)
    results = _last_results(request)
    if results is not None:
        return _said(request, answer_text(attachments, "\n".join(results)), thought)
    if names := _called(request, text):
        # A call is not cut by max_tokens: half a call is of use to nobody.
        call = {"type": "tool_use", "input": {"q": text}}
        calls = [call | {"id": mint_call_id(thought), "name": name} for name in names]
        return _Reply(blocks=calls, stop_reason="tool_use")
    return _said(request, answer_text(attachments, text), thought)


def _called(request: MessagesRequest, text: str) -> list[str]:
    choice = request.tool_choice
    if isinstance(choice, NoChoice):
        return []
    names = [choice.name] if isinstance(choice, NamedChoice) else [tool.name for tool in request.tools]
    called = tools_to_call(text, names, required=request.must_call)
    return called[:1] if choice is not None and choice.disable_parallel_tool_use else called


def _said(request: MessagesRequest, text: str, thought: Thought | None) -> _Reply:
    """Return the text as the request limits it: by its format, its stop sequences, and its number of tokens."""
    if request.output_config and request.output_config.format:
        text = orjson.dumps({"answer": text}).decode()
    reason: StopReason = "end_turn"
    found = [(text.index(sequence), sequence) for sequence in request.stop_sequences if sequence in text]
    stop_sequence = None
    if found:
        at, stop_sequence = min(found)
        text, reason = text[:at], "stop_sequence"
    # Thinking counts toward max_tokens.
    room = max(request.max_tokens - (len(tokens(_THOUGHT)) if thought else 0), 0)
    if len(tokens(text)) > room:
        text, reason, stop_sequence = "".join(tokens(text)[:room]), "max_tokens", None
    blocks = [{"type": "text", "text": text, "citations": None}] if text else []
    return _Reply(blocks=blocks, stop_reason=reason, stop_sequence=stop_sequence)


def _usage(
    request: MessagesRequest,
    attachments: Sequence[Attachment],
    text: str,
    thinking_tokens: int,
    blocks: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    messages = [*request.system, *(block for turn in request.turns for block in turn.blocks)]
    nested = [part for block in messages if isinstance(block, ToolResultBlock) for part in block.content]
    letters = sum(len(block.text) for block in (*messages, *nested) if isinstance(block, TextBlock))
    input_tokens = 2 + (letters + sum(attachment.size_bytes for attachment in attachments)) // _BYTES_PER_TOKEN
    # The counts are disjoint (wire.md §3d).
    cached_tokens = input_tokens // 2 if "cached:" in text else 0
    said_tokens = sum(len(tokens(block.get("text") or orjson.dumps(block["input"]).decode())) for block in blocks)
    return {
        "input_tokens": input_tokens - cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached_tokens,
        "output_tokens": thinking_tokens + said_tokens,
        "output_tokens_details": {"thinking_tokens": thinking_tokens},
    }
