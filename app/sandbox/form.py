"""An upload's multipart/form-data body, parsed as it comes: fields in memory, the file on disk."""

from collections.abc import Callable
from dataclasses import dataclass, field

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.requests import Request

from app.sandbox.blobs import Incoming

_MAX_FIELD_BYTES = 64 * 1024
# Fields and framing beside the file, when a Content-Length alone tells that the file is too large.
_MAX_OVERHEAD_BYTES = 1024 * 1024


class FormError(Exception):
    """The body is not the form that it should be; `param` names the field at fault, if one is."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class FileTooLarge(Exception):
    """The file exceeds what the provider takes."""


@dataclass
class Form:
    """A complete form. Whoever holds it either keeps `file` or discards it."""

    fields: dict[str, str] = field(default_factory=dict)
    file: Incoming | None = None
    filename: str = ""
    content_type: str = "application/octet-stream"


async def receive_form(request: Request, incoming: Callable[[], Incoming], max_file_bytes: int) -> Form:
    """Read the request's form, whatever the order of its parts; a form that fails leaves no bytes behind.

    Raises FormError, FileTooLarge, or ClientDisconnect when the client leaves midway.
    """
    declared_bytes = int(request.headers.get("content-length", 0))
    if declared_bytes > max_file_bytes + _MAX_OVERHEAD_BYTES:
        raise FileTooLarge
    reader = _FormReader(incoming, max_file_bytes)
    try:
        with _parser(request) as parser:
            async for chunk in request.stream():
                for event in parser.parse(chunk) if chunk else ():
                    await reader.take(event)
        if reader.form.file is not None:
            await reader.form.file.finish()
    except BaseException as error:
        if reader.form.file is not None:
            await reader.form.file.discard()
        if isinstance(error, MultipartError):
            raise FormError(f"Could not parse multipart form data: {error}") from error
        raise
    return reader.form


def _parser(request: Request) -> PushMultipartParser:
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    if media_type != "multipart/form-data" or not options.get("boundary"):
        raise FormError("Expected a multipart/form-data body with a boundary.")
    # Not `strict`: that refuses the line break after the last boundary when it comes in a chunk of its own.
    return PushMultipartParser(options["boundary"], max_segment_count=64)


class _FormReader:
    """Sorts the parser's events into a form: a segment's head, its chunks, its end."""

    def __init__(self, incoming: Callable[[], Incoming], max_file_bytes: int) -> None:
        self.form = Form()
        self._incoming = incoming
        self._max_file_bytes = max_file_bytes
        self._name = ""
        self._value = bytearray()

    async def take(self, event: MultipartSegment | bytes | None) -> None:
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif event is None:
            self._end()
        elif self._name == "file":
            await self._store(event)
        else:
            self._value += event
            if len(self._value) > _MAX_FIELD_BYTES:
                raise FormError(f"'{self._name}' is too long.", self._name)

    def _begin(self, segment: MultipartSegment) -> None:
        form, self._name = self.form, segment.name
        if self._name in form.fields or (self._name == "file" and form.file is not None):
            raise FormError(f"Duplicate parameter: '{self._name}'.", self._name)
        if (segment.filename is not None) != (self._name == "file"):
            expected = "a file" if self._name == "file" else "a string"
            raise FormError(f"Invalid type for '{self._name}': expected {expected}.", self._name)
        if self._name == "file":
            form.file, form.filename = self._incoming(), segment.filename
            form.content_type = segment.content_type or form.content_type

    def _end(self) -> None:
        if self._name != "file":
            try:
                self.form.fields[self._name] = self._value.decode()
            except UnicodeDecodeError as error:
                raise FormError(f"'{self._name}' is not UTF-8.", self._name) from error
            self._value.clear()

    async def _store(self, chunk: bytes) -> None:
        file = self.form.file
        assert file is not None
        if file.size_bytes + len(chunk) > self._max_file_bytes:
            raise FileTooLarge
        await file.write(chunk)
