"""A Gemini model's answer: one GenerateContentResponse, or the same in pieces (wire.md §4d, §11, §12)."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson

from app.sandbox.gemini_chat import GenerateContentRequest
from app.sandbox.gemini_contents import Content, FunctionCall, FunctionResponse
from app.sandbox.gemini_rules import Model, sign
from app.sandbox.model import Attachment, answer_text, said, tokens, tools_to_call

_THOUGHT = "thinking about it"
_BYTES_PER_TOKEN = 4
_RATINGS = [{"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}]


@dataclass(frozen=True)
class Completion:
    """What the model says to one request: `candidate_count` times the same candidate."""

    request: GenerateContentRequest
    model: Model
    # What the user asked last; the rest is the answer to it.
    asked: str
    text: str
    calls: Sequence[FunctionCall]
    finish_reason: str
    prompt_tokens: int
    id: str

    @classmethod
    def of(cls, request: GenerateContentRequest, model: Model, attachments: list[Attachment]) -> "Completion":
        """Let the simulated model answer."""
        asked, results = _last_text(request.contents), _results(request.contents[-1])
        names = [] if results else tools_to_call(asked, request.callable_functions, required=request.must_call)
        text, finish_reason = "", "STOP"
        if asked.startswith("refuse:"):
            names, finish_reason = [], "SAFETY"
        elif not names:
            last = "\n".join(map(_result_text, results)) if results else asked
            text, finish_reason = _written(answer_text(attachments, last), request)
        return cls(
            request=request,
            model=model,
            asked=asked,
            text=text,
            calls=[_call(name, asked, model) for name in names],
            finish_reason=finish_reason,
            prompt_tokens=_prompt_tokens(request, attachments),
            id=uuid4().hex[:22],
        )

    def body(self) -> dict[str, Any]:
        """Return the whole answer."""
        if self._is_blocked:
            return self._blocked()
        parts = [*self._thoughts(), *(self._call_parts() or [{"text": self.text, **self._text_signature()}])]
        candidates = [self._candidate(index, parts, self.text, is_last=True) for index in self._indexes()]
        return self._response(candidates, self._usage())

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Yield the answer piece by piece, each a response of its own; the usage is complete in the last one."""
        if self._is_blocked:
            yield self._blocked()
            return
        prompt_usage = {"promptTokenCount": self.prompt_tokens, "totalTokenCount": self.prompt_tokens}
        for index in self._indexes():
            pieces = [*self._thoughts(), *(self._call_parts() or self._text_pieces())]
            for position, piece in enumerate(pieces, 1):
                is_last = position == len(pieces)
                text = "" if piece.get("thought") else piece.get("text", "")
                usage = self._usage() if is_last and index == self._indexes()[-1] else prompt_usage
                yield self._response([self._candidate(index, [piece], text, is_last=is_last)], usage)

    @property
    def _is_blocked(self) -> bool:
        """Whether the prompt was refused before any candidate was made."""
        return self.asked.startswith("refuse:prompt")

    def _indexes(self) -> range:
        return range(self.request.generation_config.candidate_count)

    def _blocked(self) -> dict[str, Any]:
        usage = {"promptTokenCount": self.prompt_tokens, "totalTokenCount": self.prompt_tokens}
        return self._response([], usage) | {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}

    def _response(self, candidates: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        head = {"usageMetadata": usage, "modelVersion": self.model.name, "responseId": self.id}
        return {"candidates": candidates, **head} if candidates else head

    def _candidate(self, index: int, parts: list[dict[str, Any]], text: str, *, is_last: bool) -> dict[str, Any]:
        if self.finish_reason == "SAFETY":
            return {"finishReason": "SAFETY", "index": index, "safetyRatings": _RATINGS}
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": index}
        if is_last:
            candidate["finishReason"] = self.finish_reason
        config = self.request.generation_config
        if config.response_logprobs and text:
            candidate["logprobsResult"] = _logprobs(text, config.logprobs or 0)
        return candidate

    def _thoughts(self) -> list[dict[str, Any]]:
        shown = self.request.generation_config.thinking_config.include_thoughts
        return [{"text": _THOUGHT, "thought": True}] if shown and self._thinks else []

    def _call_parts(self) -> list[dict[str, Any]]:
        """Return the calls; of several, only the first one is signed."""
        parts: list[dict[str, Any]] = [{"functionCall": call.model_dump(exclude_none=True)} for call in self.calls]
        if parts and self.model.is_third:
            parts[0]["thoughtSignature"] = _encoded(sign(self.calls[0]))
        return parts

    def _text_pieces(self) -> list[dict[str, Any]]:
        """Return the text in tokens; its signature comes last, in a part without text."""
        pieces = [{"text": token} for token in tokens(self.text)]
        signature = self._text_signature()
        return [*pieces, {"text": "", **signature}] if signature or not pieces else pieces

    def _text_signature(self) -> dict[str, Any]:
        # Text may come back without it (https://ai.google.dev/gemini-api/docs/thought-signatures).
        signature = hashlib.sha256(self.text.encode()).digest()
        return {"thoughtSignature": _encoded(signature)} if self.model.is_third else {}

    @property
    def _thinks(self) -> bool:
        return self.model.can_think and self.request.generation_config.thinking_config.thinking_budget != 0

    def _usage(self) -> dict[str, Any]:
        candidate_tokens = len(tokens(self.text)) + sum(len(tokens(call.args["q"])) for call in self.calls)
        candidates_tokens = candidate_tokens * len(self._indexes())
        thoughts_tokens = len(tokens(_THOUGHT)) if self._thinks else 0
        usage = {
            "promptTokenCount": self.prompt_tokens,
            # Part of the prompt's tokens, not besides them.
            "cachedContentTokenCount": (self.prompt_tokens + 1) // 2 if "cached:" in self.asked else 0,
            "candidatesTokenCount": candidates_tokens,
            "thoughtsTokenCount": thoughts_tokens,
            "totalTokenCount": self.prompt_tokens + candidates_tokens + thoughts_tokens,
        }
        return {name: count for name, count in usage.items() if count}  # proto3 leaves zeros out


def _call(name: str, text: str, model: Model) -> FunctionCall:
    # Calls have no id before the third generation (wire.md §4d: it is optional).
    return FunctionCall(name=name, args={"q": text}, id=uuid4().hex[:8] if model.is_third else None)


def _last_text(contents: Sequence[Content]) -> str:
    """Return what the last turn of the user that has text says."""
    texts = (said(content.texts) for content in reversed(contents) if content.role == "user")
    return next(filter(None, texts), "")


def _results(content: Content) -> list[FunctionResponse]:
    """Return the function responses in the last turn, unless the user speaks in it."""
    return [] if said(content.texts) else content.responses


def _result_text(result: FunctionResponse) -> str:
    """Return what a function returned: the text under `output` or `error`, else all of it."""
    value = next((result.response[key] for key in ("output", "error") if key in result.response), result.response)
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _written(text: str, request: GenerateContentRequest) -> tuple[str, str]:
    """Return the text in the format and of the length that were asked for, and why it ends there."""
    config = request.generation_config
    if config.response_mime_type == "application/json":
        text = orjson.dumps({"answer": text}).decode()
    stops = (text.find(stop) for stop in config.stop_sequences)
    text = text[: min((stop for stop in stops if stop >= 0), default=len(text))]
    limit = config.max_output_tokens
    if limit is not None and limit < len(tokens(text)):
        return "".join(tokens(text)[:limit]), "MAX_TOKENS"
    return text, "STOP"


def _logprobs(text: str, top: int) -> dict[str, Any]:
    chosen = [{"token": token, "logProbability": -0.1} for token in tokens(text)]
    return {
        "chosenCandidates": chosen,
        "topCandidates": [{"candidates": [token] * top} for token in chosen],
    }


def _encoded(signature: bytes) -> str:
    return base64.b64encode(signature).decode()


def _prompt_tokens(request: GenerateContentRequest, attachments: list[Attachment]) -> int:
    written = sum(len(text) for content in request.contents for text in content.texts)
    return 1 + (written + sum(attachment.size_bytes for attachment in attachments)) // _BYTES_PER_TOKEN
