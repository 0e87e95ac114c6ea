"""multipart/form-data as it comes: fields, then the file's bytes, never the whole of it (RFC 7578).

The parser is `multipart`'s push parser; this adds what an upload needs to know early, and clear errors.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from app.errors import BadRequest

FILE_FIELD = "file"
MAX_FIELDS = 1000
MAX_FIELD_BYTES = 64 * 1024
UNTYPED = "application/octet-stream"
_HEADERS_END = b"\r\n\r\n"
# RFC 9110 §8.3.1; anything else could break out of the headers that will carry it.
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+ *(;[ -~]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Field:
    """A form field, complete."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class FileStart:
    """The file's part begins. `size_bytes` is what its size must be if no part follows it; None: unknown."""

    filename: str
    mime_type: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class FileEnd:
    """The file's part has ended."""


Event = Field | FileStart | bytes | FileEnd


class _Form:
    """The state between two chunks: which part is being read, and how much has been fed to the parser."""

    def __init__(self, boundary: str, body_bytes: int | None) -> None:
        self.parser = PushMultipartParser(boundary, max_segment_count=MAX_FIELDS)
        self._body_bytes = body_bytes
        # What closes a body whose last part is the file, as all common clients write it.
        self._closing_bytes = len(f"\r\n--{boundary}--\r\n")
        self._fed = 0
        self._tail = b""
        self._segment: MultipartSegment | None = None
        self._value = bytearray()

    def pieces(self, chunk: bytes) -> list[bytes]:
        """Cut a chunk behind each empty line, so that a part's start is seen exactly where its content begins."""
        if self._in_file:
            return [chunk] if chunk else []
        pieces, begin = [], 0
        joined = self._tail + chunk
        while (found := joined.find(_HEADERS_END, begin)) >= 0:
            end = found + len(_HEADERS_END)
            pieces.append(joined[max(begin, len(self._tail)) : end])
            begin = end
        pieces.append(joined[max(begin, len(self._tail)) :])
        self._tail = joined[-(len(_HEADERS_END) - 1) :]
        return [piece for piece in pieces if piece]

    @property
    def _in_file(self) -> bool:
        return self._segment is not None and self._segment.name == FILE_FIELD

    def feed(self, piece: bytes) -> list[Event]:
        """Parse a piece and return what it completes."""
        self._fed += len(piece)
        events: list[Event] = []
        for parsed in self.parser.parse(piece):
            if isinstance(parsed, MultipartSegment):
                events += self._began(parsed)
            elif parsed is None:
                events += self._ended()
            elif self._in_file:
                events.append(parsed)
            else:
                self._collect(parsed)
        return events

    def _began(self, segment: MultipartSegment) -> list[Event]:
        self._segment = segment
        self._value.clear()
        if segment.name != FILE_FIELD:
            if segment.filename is not None:
                reason = f"the file must be in the field `file`, not `{segment.name}`"
                raise BadRequest(reason, param=segment.name, code="unexpected_file")
            return []
        if segment.filename is None:
            reason = "`file` must be a file part with a filename, not a plain value"
            raise BadRequest(reason, param=FILE_FIELD, code="not_a_file")
        size = None if self._body_bytes is None else max(0, self._body_bytes - self._fed - self._closing_bytes)
        return [FileStart(_last_component(segment.filename), _media_type(segment.header("Content-Type")), size)]

    def _ended(self) -> list[Event]:
        segment, self._segment = self._segment, None
        assert segment is not None
        if segment.name == FILE_FIELD:
            return [FileEnd()]
        try:
            return [Field(segment.name, self._value.decode())]
        except UnicodeDecodeError:
            reason = f"the field {segment.name} is not UTF-8"
            raise BadRequest(reason, param=segment.name, code="field_not_utf8") from None

    def _collect(self, chunk: bytes) -> None:
        self._value += chunk
        if len(self._value) > MAX_FIELD_BYTES:
            assert self._segment is not None
            name = self._segment.name
            raise BadRequest(f"the field {name} is over {MAX_FIELD_BYTES} bytes", param=name, code="field_too_long")


async def form_events(
    chunks: AsyncIterator[bytes], content_type: str, content_length: int | None
) -> AsyncIterator[Event]:
    """The parts of a form as they arrive.

    Raises BadRequest for a body that is no multipart form, is malformed, or ends before its closing boundary.
    """
    form = _Form(_boundary(content_type), content_length)
    try:
        async for chunk in chunks:
            for piece in form.pieces(chunk):
                for event in form.feed(piece):
                    yield event
        form.parser.close()
    except ParserLimitReached as failure:
        raise BadRequest(f"the form is over a limit: {failure}", code="malformed_multipart") from None
    except MultipartError as failure:
        reason = f"the body is not a complete multipart form: {failure.args[0]}"
        raise BadRequest(reason, code="malformed_multipart") from None


def _boundary(content_type: str) -> str:
    kind, options = parse_options_header(content_type)
    if kind != "multipart/form-data":
        reason = "the body must be multipart/form-data with the fields `file` and `purpose`"
        raise BadRequest(reason, param="content-type", code="not_multipart")
    boundary: str | None = options.get("boundary")
    if not boundary:
        raise BadRequest("the content-type names no boundary", param="content-type", code="missing_boundary")
    return boundary


def _media_type(header: str | None) -> str:
    return header if header and _MEDIA_TYPE.fullmatch(header) else UNTYPED


def _last_component(filename: str) -> str:
    """A name without folders or control characters, as OpenAI keeps it; `upload` where nothing is left."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in name if character.isprintable()).strip()[:255] or "upload"
