"""OpenAI's answer to a chat: one JSON object, or the same as server-sent events (wire.md §1d, §8.5, §11)."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson

from app.sandbox.model import Attachment, answer_text, tokens, tools_to_call
from app.sandbox.openai_chat import ChatRequest
from app.sandbox.openai_parts import TextPart

_BYTES_PER_TOKEN = 4


@dataclass(frozen=True)
class Completion:
    """What the model says to one request: `n` times the same choice."""

    request: ChatRequest
    text: str
    tools: list[str]
    prompt_tokens: int
    created: int
    id: str

    @classmethod
    def of(cls, request: ChatRequest, attachments: list[Attachment], created: int) -> "Completion":
        """Let the simulated model answer."""
        results, asked = request.last_results, request.last_user_text
        called = [] if results else tools_to_call(asked, request.callable_tools, required=request.must_call)
        return cls(
            request=request,
            text=asked if called else answer_text(attachments, "\n".join(results) if results else asked),
            tools=called[:1] if request.parallel_tool_calls is False else called,
            prompt_tokens=_prompt_tokens(request, attachments),
            created=created,
            id=f"chatcmpl-{uuid4().hex}",
        )

    def body(self) -> dict[str, Any]:
        """Return the whole answer."""
        return self._head("chat.completion") | {
            "choices": [self._choice(index) for index in self._indexes()],
            "usage": self.usage(),
        }

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Yield the answer piece by piece: the role, the content, the finish reason, the usage if asked for."""
        options = self.request.stream_options
        with_usage = options is not None and options.include_usage
        for index in self._indexes():
            for delta in self._deltas(index):
                yield self.chunk([_delta(index, delta)], with_usage=with_usage)
            yield self.chunk([_delta(index, {}, self._finish_reason)], with_usage=with_usage)
        if with_usage:
            yield self.chunk([], with_usage=True) | {"usage": self.usage()}

    def chunk(self, choices: list[dict[str, Any]], *, with_usage: bool) -> dict[str, Any]:
        """Return one chunk; only with `include_usage` do chunks have a usage, null until the last."""
        usage: dict[str, Any] = {"usage": None} if with_usage else {}
        return self._head("chat.completion.chunk") | {"choices": choices} | usage

    def usage(self) -> dict[str, Any]:
        """Return how many tokens this took."""
        completion_tokens = len(tokens(self.text)) * len(self._indexes())
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }

    @property
    def _finish_reason(self) -> str:
        return "tool_calls" if self.tools else "stop"

    def _indexes(self) -> range:
        return range(self.request.n or 1)

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.request.model,
            "service_tier": "default",
            "system_fingerprint": "fp_sandbox",
        }

    def _choice(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": None, "annotations": []}
        if self.tools:
            message |= {"content": None, "tool_calls": self._calls(index)}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": self._finish_reason}

    def _calls(self, index: int) -> list[dict[str, Any]]:
        """Return the calls of one choice; no id is given twice."""
        arguments = orjson.dumps({"q": self.text}).decode()
        return [
            {
                "id": f"call_{self.id[-8:]}{index}{position}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for position, name in enumerate(self.tools)
        ]

    def _deltas(self, index: int) -> Iterator[dict[str, Any]]:
        if not self.tools:
            yield {"role": "assistant", "content": "", "refusal": None}
            yield from ({"content": token} for token in tokens(self.text))
            return
        yield {"role": "assistant", "content": None, "refusal": None}
        for position, call in enumerate(self._calls(index)):
            arguments = call["function"]["arguments"]
            middle = len(arguments) // 2
            yield {"tool_calls": [{"index": position, **call, "function": call["function"] | {"arguments": ""}}]}
            for piece in (arguments[:middle], arguments[middle:]):
                yield {"tool_calls": [{"index": position, "function": {"arguments": piece}}]}


async def events(chunks: Iterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Yield `chunks` as server-sent events, and the word that ends them."""
    for chunk in chunks:
        yield b"data: " + orjson.dumps(chunk) + b"\n\n"
    yield b"data: [DONE]\n\n"


def _delta(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _prompt_tokens(request: ChatRequest, attachments: list[Attachment]) -> int:
    said = sum(
        len(part.text) for message in request.messages for part in message.content or () if isinstance(part, TextPart)
    )
    attached_bytes = sum(attachment.size_bytes for attachment in attachments)
    return 1 + (said + attached_bytes) // _BYTES_PER_TOKEN
