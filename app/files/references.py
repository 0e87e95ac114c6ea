"""File ids inside a chat payload: where they are, and the payload with others in their place. Pure.

The caller's own bytes are scanned and spliced: whatever is not `model` or a file id stays as it was sent, to the last
space and digit. Parsing and dumping would not keep numbers over 64 bits, the order of escapes, or duplicate keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass

import orjson

from app.formats import tool_calls

# A string (with the colon that makes it a key), an opening or closing bracket, or a comma. The body is valid JSON, so
# nothing else matters; numbers and literals are skipped over. Possessive: a repetition that could be taken back costs
# 130 bytes for each escape.
_TOKEN = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"(\s*:)?|([\[{])|([\]}])|,', re.DOTALL)
_STRING, _KEY, _OPEN, _CLOSE = 1, 2, 3, 4
_MARK = tool_calls.MARK.encode()
_CALL_IDS = (b"id", b"tool_call_id")
# The end of a path, arrays being None: `content[].file.file_id`.
_FILE_PART = (b"content", None, b"file", b"file_id")
# Without any of these there is nothing to find but the model; an escape may hide one.
_WORDS = (b"file_id", b"\\u", _MARK)
_PLAIN_MODEL = re.compile(rb'"model"\s*:\s*("[^"\\]*")')


@dataclass(frozen=True, slots=True)
class Reference:
    """A file id in the payload: its text, the span of its JSON string, quotes included, and whether it is the one of a
    content part of type file, which can be replaced as a whole."""

    file_id: str
    start: int
    end: int
    in_file_part: bool = False


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
                references.append(_reference(body, start, end, in_file_part=path[-4:] == _FILE_PART))
            elif path[-1] in _CALL_IDS and _MARK in body[start:end]:
                laden.append(_reference(body, start, end))
    return Found(tuple(models), tuple(references), tuple(laden))


def _reference(body: bytes, start: int, end: int, *, in_file_part: bool = False) -> Reference:
    return Reference(str(orjson.loads(body[start:end])), start, end, in_file_part)


def rewrite(
    body: bytes, found: Found, model: str, replacement: Callable[[str], str | bytes | None], *, unladen: bool = False
) -> bytes:
    """The payload for a provider: its model, and for each file id the provider's (a str), or JSON (bytes) in place of
    the whole content part, or what stands there (None). `unladen` takes off what tool call ids carry.

    Raises ValueError for JSON in place of an id that is in no file part.
    """
    splices = dict.fromkeys(found.models, orjson.dumps(model))
    replaced = [(reference, replacement(reference.file_id)) for reference in found.references]
    parts = _parts(body, {reference.start for reference, content in replaced if isinstance(content, bytes)})
    for reference, content in replaced:
        match content:
            case str():
                splices[reference.start, reference.end] = orjson.dumps(content)
            case bytes() if reference.in_file_part:
                splices[parts[reference.start]] = content
            case bytes():
                raise ValueError("the reference is not inside a file part")
    if unladen:
        for laden in found.laden_ids:
            splices[laden.start, laden.end] = orjson.dumps(tool_calls.without_extra(laden.file_id))
    pieces, position = [], 0
    for (start, end), content in sorted(splices.items()):
        # What stands inside a part that is replaced goes with it.
        if start >= position:
            pieces += [body[position:start], content]
            position = end
    pieces.append(body[position:])
    return b"".join(pieces)


def _parts(body: bytes, starts: Set[int]) -> dict[int, tuple[int, int]]:
    """Where a file id of a file part starts → the span of the part: the object around the object that holds it."""
    parts: dict[int, tuple[int, int]] = {}
    opened: list[int] = []
    # A part's start → where the ids inside of it start.
    holding: dict[int, list[int]] = {}
    for token in _TOKEN.finditer(body) if starts else ():
        if token.lastindex == _OPEN:
            opened.append(token.start())
        elif token.lastindex == _CLOSE:
            start = opened.pop()
            parts |= dict.fromkeys(holding.pop(start, ()), (start, token.end()))
        elif token.start() in starts:
            holding.setdefault(opened[-2], []).append(token.start())
    return parts


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
