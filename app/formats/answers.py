"""OpenAI's answer to a chat: pieces, put together as one object or sent as chunks.

Every format reads its vendor's answer as pieces, streamed or not, so the two cannot differ in what they say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import orjson

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class Text:
    """The next part of what the model says."""

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The next part of what it thinks: `reasoning_content`, as many call it, for OpenAI has no field."""

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The next part of why it does not answer."""

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class CallStart:
    """A tool call begins; `index` counts the calls of its choice."""

    index: int
    id: str
    name: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The next part of a tool call's arguments, JSON as text."""

    index: int
    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Logprobs:
    """The next tokens' log probabilities, in OpenAI's shape."""

    content: Sequence[dict[str, Any]]
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """A choice is complete."""

    reason: FinishReason
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, OpenAI's way: `prompt_tokens` counts the cached ones too, `completion_tokens` the reasoning."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def shown(self) -> dict[str, Any]:
        """As OpenAI's object."""
        prompt = {"cached_tokens": self.cached_tokens}
        if self.cache_write_tokens:
            prompt["cache_write_tokens"] = self.cache_write_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": prompt,
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        }


Piece = Text | Reasoning | Refusal | CallStart | CallArguments | Logprobs | Finish | Usage


class Reader(Protocol):
    """Reads one vendor answer; `id` and `model` are known from its beginning on, `complete` says that it ended."""

    id: str
    model: str
    complete: bool

    def whole(self, answer: dict[str, Any]) -> Iterator[Piece]:
        """The pieces of an answer that came at once."""

    def event(self, event: dict[str, Any]) -> Iterator[Piece]:
        """The pieces of one event of a stream. Raises ProviderError for an event that says the vendor failed."""


@dataclass(frozen=True, slots=True)
class Head:
    """What every object and chunk of one answer begins with. `created_at` is Unix seconds."""

    created_at: int
    dropped_params: Sequence[str] = ()

    def shown(self, kind: str, reader: Reader) -> dict[str, Any]:
        """The first keys."""
        return {"id": reader.id, "object": kind, "created": self.created_at, "model": reader.model}

    def facts(self) -> dict[str, Any]:
        """The `filemux` object, if there is something to say."""
        return {"filemux": {"dropped_params": list(self.dropped_params)}} if self.dropped_params else {}


@dataclass(slots=True)
class _Choice:
    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    calls: dict[int, tuple[CallStart, list[str]]] = field(default_factory=dict)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    reason: FinishReason = "stop"

    def add(self, piece: Piece) -> None:
        match piece:
            case Text(text):
                self.texts.append(text)
            case Reasoning(text):
                self.reasoning.append(text)
            case Refusal(text):
                self.refusal.append(text)
            case CallStart(index):
                self.calls[index] = (piece, [])
            case CallArguments(index, text):
                self.calls[index][1].append(text)
            case Logprobs(content):
                self.logprobs.extend(content)
            case Finish(reason):
                self.reason = reason

    def shown(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(self.texts) if self.texts else None,
            "refusal": "".join(self.refusal) if self.refusal else None,
        }
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": start.id,
                    "type": "function",
                    "function": {"name": start.name, "arguments": "".join(arguments)},
                }
                for _, (start, arguments) in sorted(self.calls.items())
            ]
        logprobs = {"content": self.logprobs, "refusal": None} if self.logprobs else None
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": self.reason}


def completion(head: Head, reader: Reader, pieces: Iterable[Piece]) -> bytes:
    """The whole answer as OpenAI's chat.completion."""
    choices: dict[int, _Choice] = {}
    usage: Usage | None = None
    for piece in pieces:
        if isinstance(piece, Usage):
            usage = piece
        else:
            choices.setdefault(piece.choice, _Choice()).add(piece)
    body = head.shown("chat.completion", reader)
    body["choices"] = [choice.shown(index) for index, choice in sorted(choices.items())]
    if usage is not None:
        body["usage"] = usage.shown()
    return orjson.dumps(body | head.facts())


class Chunks:
    """The answer as OpenAI's server-sent events; `dropped_params` ride on the first."""

    def __init__(self, head: Head, reader: Reader, *, include_usage: bool) -> None:
        self._head, self._reader, self._include_usage = head, reader, include_usage
        self._begun: set[int] = set()
        self._facts = head.facts()
        self._usage: Usage | None = None

    def of(self, piece: Piece) -> Iterator[bytes]:
        """The events for one piece; the usage waits for the end, where OpenAI sends it."""
        if isinstance(piece, Usage):
            self._usage = piece
            return
        if piece.choice not in self._begun:
            self._begun.add(piece.choice)
            content = "" if isinstance(piece, Text) else None
            yield self._event([_delta(piece.choice, {"role": "assistant", "content": content, "refusal": None})])
        if isinstance(piece, Finish):
            yield self._event([_delta(piece.choice, {}, piece.reason)])
        elif isinstance(piece, Logprobs):
            logprobs = {"content": list(piece.content), "refusal": None}
            yield self._event([_delta(piece.choice, {}) | {"logprobs": logprobs}])
        else:
            yield self._event([_delta(piece.choice, _said(piece))])

    def end(self) -> Iterator[bytes]:
        """The usage, if it was asked for, and the word that ends the stream."""
        if self._include_usage and self._usage is not None:
            yield self._event([], self._usage.shown())
        yield b"data: [DONE]\n\n"

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        body = self._head.shown("chat.completion.chunk", self._reader) | {"choices": choices}
        if self._include_usage:
            body["usage"] = usage
        body |= self._facts
        self._facts = {}
        return b"data: " + orjson.dumps(body) + b"\n\n"


def _said(piece: Text | Reasoning | Refusal | CallStart | CallArguments) -> dict[str, Any]:
    match piece:
        case Text(text):
            return {"content": text}
        case Reasoning(text):
            return {"reasoning_content": text}
        case Refusal(text):
            return {"refusal": text}
        case CallStart(index, call_id, name):
            function = {"name": name, "arguments": ""}
            return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
        case CallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


def _delta(choice: int, delta: dict[str, Any], reason: FinishReason | None = None) -> dict[str, Any]:
    return {"index": choice, "delta": delta, "logprobs": None, "finish_reason": reason}
