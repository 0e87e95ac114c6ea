"""The lines of a batch as OpenAI writes them: requests going in, answers coming out.

Contract: https://platform.openai.com/docs/guides/batch (wire.md §1e); the codes of what is wrong are Azure's (§2e).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

ENDPOINTS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/completions",
        "/v1/moderations",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/videos",
    }
)
CHAT_ENDPOINT = "/v1/chat/completions"
MIME_TYPE = "application/jsonl"
# One line is held in memory: a request, and the files that travel inside of it as base64.
MAX_LINE_BYTES = 32 * 1024 * 1024
# An answer may have images in it, several to a line.
MAX_RESULT_LINE_BYTES = 512 * 1024 * 1024
# Twice what any provider takes in one batch: a batch may be split among several.
MAX_LINES = 200_000
MAX_MODELS = 100
MAX_CUSTOM_ID = 512
# How many of a model's lines an error can name.
FIRST_LINES = 10
BOM = b"\xef\xbb\xbf"


class BadLine(Exception):
    """A line that no batch can have. `number` counts from 1; None is about the file as a whole."""

    def __init__(self, number: int | None, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.number, self.code, self.message, self.param = number, code, message, param

    def __str__(self) -> str:
        return self.message if self.number is None else f"line {self.number}: {self.message}"


@dataclass(frozen=True, slots=True)
class RequestLine:
    """One request of a batch. `endpoint` is its url, always with /v1; `body` is JSON."""

    number: int
    custom_id: str
    endpoint: str
    model: str
    body: bytes = field(repr=False)

    @classmethod
    def read(cls, number: int, content: bytes) -> RequestLine:
        """The request that a line holds. Raises BadLine."""
        try:
            line = orjson.loads(content)
        except orjson.JSONDecodeError as failure:
            raise BadLine(number, "invalid_json_line", f"is not valid JSON: {failure}") from None
        if not isinstance(line, dict):
            raise BadLine(number, "invalid_json_line", "must be a JSON object")
        custom_id, url, body = line.get("custom_id"), line.get("url"), line.get("body")
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID:
            reason = f"custom_id must be a text of 1 to {MAX_CUSTOM_ID} characters"
            raise BadLine(number, "invalid_request", reason, "custom_id")
        if line.get("method") != "POST":
            raise BadLine(number, "invalid_request", "method must be POST", "method")
        endpoint = with_v1(url) if isinstance(url, str) else None
        if endpoint not in ENDPOINTS:
            known = ", ".join(sorted(ENDPOINTS))
            raise BadLine(number, "invalid_url", f"url must be one of {known}", "url")
        if not isinstance(body, dict):
            raise BadLine(number, "invalid_request", "body must be an object, the request itself", "body")
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise BadLine(number, "model_not_found", "body.model must be a model name", "body.model")
        if body.get("stream"):
            raise BadLine(number, "invalid_request", "a batch does not stream: leave body.stream out", "body.stream")
        try:
            return cls(number, custom_id, endpoint, model, orjson.dumps(body))
        except orjson.JSONEncodeError as failure:
            raise BadLine(number, "invalid_request", f"body cannot be written as JSON: {failure}", "body") from None


def with_v1(url: str) -> str:
    """An endpoint with /v1, which Azure's users leave out."""
    return url if url.startswith("/v1/") else f"/v1{url}"


class Lines:
    """Takes a file apart as it comes: `of` gives the lines that a chunk has completed, `rest` the last one.

    Empty lines count, but are not given. Raises BadLine for a line that is too long, or too many of them.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._number = 0

    def of(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """The lines that end in this chunk, each with its number."""
        if self._number == 0 and not self._pieces and chunk.startswith(BOM):
            raise BadLine(None, "invalid_json_line", "the file begins with a byte order mark; send it without")
        first, *others = chunk.split(b"\n")
        self._hold(first)
        for line in others:
            yield from self._ended()
            self._hold(line)

    def rest(self) -> Iterator[tuple[int, bytes]]:
        """The line that no newline ended."""
        if self._pieces:
            yield from self._ended()

    def _hold(self, piece: bytes) -> None:
        self._held_bytes += len(piece)
        if self._held_bytes > self._max_line_bytes:
            reason = f"is longer than {self._max_line_bytes} bytes"
            raise BadLine(self._number + 1, "invalid_request", reason)
        if piece:
            self._pieces.append(piece)

    def _ended(self) -> Iterator[tuple[int, bytes]]:
        self._number += 1
        if self._number > MAX_LINES:
            raise BadLine(None, "too_many_tasks", f"the file has more than {MAX_LINES} lines")
        line = b"".join(self._pieces).strip()
        self._pieces.clear()
        self._held_bytes = 0
        if line:
            yield self._number, line


@dataclass(slots=True)
class ModelLines:
    """The lines that name one model: how many, and the first of them."""

    lines: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, number: int) -> None:
        """Count one more."""
        self.lines += 1
        if len(self.first) < FIRST_LINES:
            self.first.append(number)

    def __str__(self) -> str:
        more = f" and {self.lines - len(self.first)} more" if self.lines > len(self.first) else ""
        return f"line{'s' if self.lines > 1 else ''} {', '.join(map(str, self.first))}{more}"


class Inspection:
    """Reads a whole file's lines and says what is in it: `endpoint`, and how many lines name which model."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.lines = 0
        self.models: dict[str, ModelLines] = {}
        self._found = Lines()
        # 64 bits of each, so that it stays small; Python's own hash, which nobody outside can aim at.
        self._custom_ids: set[int] = set()

    def feed(self, chunk: bytes) -> None:
        """Read on. Raises BadLine."""
        for number, content in self._found.of(chunk):
            self._add(RequestLine.read(number, content))

    def finish(self) -> None:
        """The file has ended. Raises BadLine."""
        for number, content in self._found.rest():
            self._add(RequestLine.read(number, content))
        if not self.lines:
            raise BadLine(None, "empty_file", "the file has no lines")

    def _add(self, line: RequestLine) -> None:
        self.lines += 1
        self.endpoint = self.endpoint or line.endpoint
        if line.endpoint != self.endpoint:
            reason = f"url is {line.endpoint}, but that of the lines before is {self.endpoint}; a batch has one"
            raise BadLine(line.number, "url_mismatch", reason, "url")
        digest = hash(line.custom_id)
        if digest in self._custom_ids:
            reason = f"custom_id {line.custom_id[:100]!r} is that of another line"
            raise BadLine(line.number, "duplicate_custom_id", reason, "custom_id")
        self._custom_ids.add(digest)
        if line.model not in self.models and len(self.models) == MAX_MODELS:
            reason = f"names one model more than the {MAX_MODELS} that a batch may have"
            raise BadLine(line.number, "model_mismatch", reason, "body.model")
        self.models.setdefault(line.model, ModelLines()).add(line.number)

    def facts(self) -> dict[str, Any]:
        """What was found, as JSON values."""
        models = {model: {"lines": one.lines, "first": one.first} for model, one in self.models.items()}
        return {"endpoint": self.endpoint, "lines": self.lines, "models": models}


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one request: an answer with its HTTP status, or why it never ran (`code`, `message`).

    `key` is what the provider matches it by; `body` is OpenAI's JSON, of an answer or of an error.
    """

    key: str
    status: int | None = None
    body: bytes = field(default=b"", repr=False)
    code: str | None = None
    message: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it belongs to a batch's output, and not to its errors."""
        return self.status is not None and 200 <= self.status < 300

    def line(self, custom_id: str, line_id: str) -> bytes:
        """The line of an output or error file, newline included."""
        head: dict[str, Any] = {"id": line_id, "custom_id": custom_id}
        if self.status is None:
            head |= {"response": None, "error": {"code": self.code, "message": self.message}}
        else:
            body = orjson.Fragment(self.body)
            head |= {
                "response": {"status_code": self.status, "request_id": line_id, "body": body},
                "error": None,
            }
        return orjson.dumps(head) + b"\n"


def error_body(status: int, message: str, kind: str | None = None, code: str | None = None) -> bytes:
    """OpenAI's body of an error."""
    kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def metadata_of(value: Any) -> Mapping[str, str]:
    """A batch's metadata as OpenAI allows it (wire.md §8.3). Raises ValueError."""
    if not isinstance(value, dict) or len(value) > 16:
        raise ValueError("must be an object of at most 16 pairs")
    for key, text in value.items():
        if len(key) > 64 or not isinstance(text, str) or len(text) > 512:
            raise ValueError("may have keys of 64 and texts of 512 characters")
    return value
