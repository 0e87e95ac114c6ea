"""File ids inside a chat payload: where they are, and the payload with others in their place. Pure.

The caller's own bytes are scanned and spliced: whatever is not `model` or a file id stays as it was sent, to the last
space and digit. Parsing and dumping would not keep numbers over 64 bits, the order of escapes, or duplicate keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson

from app.formats import tool_calls

# A string (with the colon that makes it a key), an opening or closing bracket, or a comma. The body is valid JSON, so
# nothing else matters; numbers and literals are skipped over.
_TOKEN = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"(\s*:)?|([\[{])|([\]}])|,', re.DOTALL)
_STRING, _KEY, _OPEN, _CLOSE = 1, 2, 3, 4
_MARK = tool_calls.MARK.encode()
_CALL_IDS = (b"id", b"tool_call_id")
# Without any of these there is nothing to find but the model; an escape may hide one.
_WORDS = (b"file_id", b"\\u", _MARK)
_PLAIN_MODEL = re.compile(rb'"model"\s*:\s*("[^"\\]*")')


@dataclass(frozen=True, slots=True)
class Reference:
    """A file id in the payload: its text, and the span of its JSON string, quotes included."""

    file_id: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in a payload: the strings of its top-level `model`, the file ids in its messages, and the tool
    call ids that carry something for another vendor."""

    models: tuple[tuple[int, int], ...]
    references: tuple[Reference, ...]
    laden_ids: tuple[Reference, ...] = ()


def find(body: bytes) -> Found:
    """Scan a chat payload that is valid JSON.

    A file id is the value of the key `file_id` anywhere inside `messages`: OpenAI's `file` parts in any role, tool
    content of any depth. Text, tool arguments, `metadata` and schemas are not looked into.
    """
    if not any(word in body for word in _WORDS) and body.count(b'"model"') == 1:
        # Nothing to rewrite, and the only `"model"` there is must be the key; no need to read every token.
        plain = _PLAIN_MODEL.search(body)
        if plain is not None:
            return Found((plain.span(1),), ())
    models: list[tuple[int, int]] = []
    references: list[Reference] = []
    laden: list[Reference] = []
    for path, start, end in _strings(body):
        if path == (b"model",):
            models.append((start, end))
        elif len(path) > 1 and path[0] == b"messages":
            if path[-1] == b"file_id":
                references.append(_reference(body, start, end))
            elif path[-1] in _CALL_IDS and _MARK in body[start:end]:
                laden.append(_reference(body, start, end))
    return Found(tuple(models), tuple(references), tuple(laden))


def _reference(body: bytes, start: int, end: int) -> Reference:
    return Reference(str(orjson.loads(body[start:end])), start, end)


def rewrite(
    body: bytes, found: Found, model: str, replacement: Callable[[str], str | bytes | None], *, unladen: bool = False
) -> bytes:
    """The payload for a provider: its model, and for each file id the provider's (a str), or JSON (bytes) in place of
    the whole content part, or what stands there (None). `unladen` takes off what tool call ids carry."""
    splices = [(start, end, orjson.dumps(model)) for start, end in found.models]
    for reference in found.references:
        match replacement(reference.file_id):
            case str(provider_file_id):
                splices.append((reference.start, reference.end, orjson.dumps(provider_file_id)))
            case bytes(part):
                splices.append((*_part_around(body, reference), part))
    if unladen:
        for laden in found.laden_ids:
            own_id = tool_calls.without_extra(laden.file_id)
            splices.append((laden.start, laden.end, orjson.dumps(own_id)))
    pieces, position = [], 0
    for start, end, content in sorted(splices):
        pieces += [body[position:start], content]
        position = end
    pieces.append(body[position:])
    return b"".join(pieces)


def _part_around(body: bytes, reference: Reference) -> tuple[int, int]:
    """The span of the content part that holds a reference: the object that is an item of the nearest array."""
    opened: list[tuple[int, bool]] = []
    wanted: int | None = None
    for token in _TOKEN.finditer(body):
        if token.lastindex == _OPEN:
            opened.append((token.start(), token[3] == b"["))
        elif token.lastindex == _CLOSE:
            start, _ = opened.pop()
            if start == wanted:
                return start, token.end()
        elif token.start() == reference.start:
            arrays = [depth for depth, (_, is_array) in enumerate(opened) if is_array]
            wanted = opened[arrays[-1] + 1][0]
    raise ValueError("the reference is not inside a content part")


def position(body: bytes, reference: Reference) -> str:
    """Where a reference stands, such as `messages[0].content[1].file.file_id`."""
    for path, start, _ in _strings(body, counting=True):
        if start == reference.start:
            text = "".join(f".{part.decode()}" if isinstance(part, bytes) else f"[{part}]" for part in path)
            return text.removeprefix(".")
    raise ValueError("the reference is not of this body")


def _strings(body: bytes, *, counting: bool = False) -> Iterator[tuple[tuple[bytes | int | None, ...], int, int]]:
    """Each string value with its path; with `counting`, array indexes are part of the path."""
    # One entry per open bracket: the key being read in an object, the index in an array (None without counting).
    path: list[bytes | int | None] = []
    for token in _TOKEN.finditer(body):
        kind = token.lastindex
        if kind == _STRING:
            yield tuple(path), token.start(), token.end()
        elif kind == _KEY:
            path[-1] = _unescaped(token[1])
        elif kind == _OPEN:
            path.append(0 if counting and token[3] == b"[" else None)
        elif kind == _CLOSE:
            path.pop()
        elif counting and path and isinstance(path[-1], int):
            path[-1] += 1


def _unescaped(key: bytes) -> bytes:
    return str(orjson.loads(b'"' + key + b'"')).encode() if b"\\" in key else key
