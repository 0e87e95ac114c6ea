"""The body of a request to S3: its framing taken off, its digests compared with what the headers say (wire.md §6b)."""

import base64
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.requests import Request

from app.sandbox.objects import Content, ObjectError

# Those of S3's algorithms that clients use by default; sha1 and crc64nvme are left out.
ALGORITHMS = ("crc32", "crc32c", "sha256")
_UNSIGNED, _CHUNKED = "UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_CHECKSUM = "x-amz-checksum-"
# For the lines between chunks: a size in hex, a trailer.
_MAX_LINE_BYTES = 1024


class S3Body:
    """The bytes that a request uploads, be they framed as aws-chunked or not."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.algorithm = algorithm_of(request)
        self._trailers: dict[str, str] = {}
        self._is_chunked = request.headers["x-amz-content-sha256"] == _CHUNKED
        length = "x-amz-decoded-content-length" if self._is_chunked else "content-length"
        if not request.headers.get(length, "").isdecimal():
            raise ObjectError("MissingContentLength")
        self._size_bytes = int(request.headers[length])

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes, as they come."""
        chunks = self._request.stream()
        async for chunk in self._unframed(_Reader(chunks)) if self._is_chunked else chunks:
            yield chunk

    def check(self, content: Content) -> None:
        """Refuse unless size, digests and checksum are what headers and trailers say."""
        if content.size_bytes != self._size_bytes:
            raise ObjectError("IncompleteBody")
        if self._trailers.keys() != _trailer_names(self._request):
            raise ObjectError("MalformedTrailerError")
        if not content.is_corrupt:
            check_digests({**self._request.headers, **self._trailers}, content.digest)

    async def _unframed(self, reader: "_Reader") -> AsyncIterator[bytes]:
        """Take the framing off: each chunk after its size in hex, after the last one (of size 0) the trailers."""
        while size_bytes := await self._chunk_size(reader):
            async for piece in reader.take(size_bytes):
                yield piece
            if await reader.line():
                raise ObjectError("IncompleteBody")
        while trailer := await reader.line():
            name, _, value = trailer.decode("latin-1").partition(":")
            self._trailers[name.lower()] = value.strip()

    async def _chunk_size(self, reader: "_Reader") -> int:
        try:
            return int(await reader.line(), 16)
        except ValueError as error:
            raise ObjectError("IncompleteBody") from error


class _Reader:
    """Lines, and so many bytes, of a stream of chunks."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""

    async def line(self) -> bytes:
        """Return the next line without its end."""
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > _MAX_LINE_BYTES:
                raise ObjectError("IncompleteBody")
            await self._fill()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    async def take(self, size_bytes: int) -> AsyncIterator[bytes]:
        """Yield the next bytes, so many altogether."""
        while size_bytes:
            if not self._buffer:
                await self._fill()
            piece, self._buffer = self._buffer[:size_bytes], self._buffer[size_bytes:]
            size_bytes -= len(piece)
            yield piece

    async def _fill(self) -> None:
        chunk = await anext(self._chunks, None)
        if chunk is None:
            raise ObjectError("IncompleteBody")
        self._buffer += chunk


def algorithm_of(request: Request) -> str | None:
    """Return the algorithm of the checksums that an upload has, now or in its parts, if it has any."""
    headers, names = request.headers, {*request.headers, *_trailer_names(request)}
    given = [algorithm for algorithm in ALGORITHMS if _CHECKSUM + algorithm in names]
    if len(given) > 1:
        raise ObjectError("InvalidRequest", "Expecting a single x-amz-checksum- header.")
    declared = headers.get("x-amz-checksum-algorithm") or headers.get("x-amz-sdk-checksum-algorithm")
    if declared is None:
        return given[0] if given else None
    if declared.lower() not in ALGORITHMS:
        raise ObjectError("NotImplemented")
    if "x-amz-sdk-checksum-algorithm" in headers and given != [declared.lower()]:
        raise ObjectError(
            "InvalidRequest",
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers "
            "were found.",
        )
    return declared.lower()


def check_digests(headers: Mapping[str, str], digest: Callable[[str], bytes]) -> None:
    """Refuse bytes whose digests by `digest` are not those in `headers`."""
    signed = headers["x-amz-content-sha256"]
    if signed not in (_UNSIGNED, _CHUNKED, digest("sha256").hex()):
        message = "The provided 'x-amz-content-sha256' header does not match what was computed."
        raise ObjectError("XAmzContentSHA256Mismatch", message)
    expected = {"md5": "content-md5", **{algorithm: _CHECKSUM + algorithm for algorithm in ALGORITHMS}}
    for algorithm, name in expected.items():
        if name in headers and _decoded(headers[name]) != digest(algorithm):
            message = f"The {algorithm.upper()} you specified did not match the calculated checksum."
            raise ObjectError("BadDigest", message)


def _trailer_names(request: Request) -> set[str]:
    return {name.strip().lower() for name in request.headers.get("x-amz-trailer", "").split(",") if name.strip()}


def _decoded(digest: str) -> bytes:
    try:
        return base64.b64decode(digest, validate=True)
    except ValueError as error:
        raise ObjectError("InvalidDigest") from error
