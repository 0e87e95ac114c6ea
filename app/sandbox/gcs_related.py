"""The body of a multipart upload to Cloud Storage: multipart/related, first the object's JSON, then its bytes."""

import re
from collections.abc import AsyncIterator
from email.parser import BytesHeaderParser

from multipart import parse_options_header
from starlette.requests import Request

from app.sandbox.objects import ObjectError

_MAX_HEAD_BYTES = 64 * 1024


class RelatedBody:
    """Such a body, of which the head has been read."""

    def __init__(self, boundary: str, head: re.Match[bytes], rest: bytes, chunks: AsyncIterator[bytes]) -> None:
        self.resource: bytes = head["resource"]
        self.content_type: str | None = BytesHeaderParser().parsebytes(head["headers"])["content-type"]
        # The line break after it may be missing.
        self._end = b"\r\n--" + boundary.encode() + b"--"
        self._rest = rest
        self._chunks = chunks

    @classmethod
    async def of(cls, request: Request) -> "RelatedBody":
        """Read the request up to the object's bytes."""
        media_type, options = parse_options_header(request.headers.get("content-type", ""))
        boundary = options.get("boundary")
        if media_type != "multipart/related" or not boundary:
            raise ObjectError("InvalidArgument", "Missing multipart boundary.")
        delimiter = rb"--" + re.escape(boundary.encode()) + rb"\r\n"
        head = re.compile(
            rb"(?:\r\n)?%b.*?\r\n\r\n(?P<resource>.*?)\r\n%b(?P<headers>.*?\r\n\r\n)" % (delimiter, delimiter),
            re.DOTALL,
        )
        chunks, read = request.stream(), b""
        async for chunk in chunks:
            read += chunk
            if found := head.match(read):
                return cls(boundary, found, read[found.end() :], chunks)
            if len(read) > _MAX_HEAD_BYTES:
                break
        raise ObjectError("InvalidArgument", "Malformed multipart body.")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the object's bytes, as they come."""
        rest, held_bytes = self._rest, len(self._end) + len(b"\r\n")
        async for chunk in self._chunks:
            rest += chunk
            yield rest[:-held_bytes]
            rest = rest[-held_bytes:]
        last = rest.removesuffix(b"\r\n")
        if not last.endswith(self._end):
            raise ObjectError("InvalidArgument", "Malformed multipart body.")
        yield last.removesuffix(self._end)
