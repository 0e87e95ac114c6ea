"""A bucket, as Cloud Storage and S3 have them: objects by key, created, replaced, listed in order, read by range."""

import base64
import hashlib
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from urllib.parse import unquote

import google_crc32c
from starlette.requests import Request
from starlette.responses import StreamingResponse

from app.sandbox.blobs import Hash, read_blocks
from app.sandbox.store import Store, StoredFile

BUCKET = "filemux-sandbox"
_MAX_KEY_BYTES = 1024
# The headers of an upload that come back with the bytes, in the order in which they are given.
KEPT_HEADERS = ("cache-control", "content-disposition", "content-encoding", "content-language")
_FILENAME = re.compile(r"filename\*=UTF-8''(?P<encoded>[^;\s]+)|filename=\"(?P<quoted>[^\"]*)\"", re.IGNORECASE)
_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


class ObjectError(Exception):
    """What a bucket refuses, by the code that the XML APIs of both vendors have for it."""

    def __init__(self, code: str, message: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.message = message


class _Crc:
    """A checksum that is a function of data and the checksum before them, with the face of a hash."""

    def __init__(self, extend: Callable[[memoryview, int], int]) -> None:
        self._extend = extend
        self._value = 0

    def update(self, data: memoryview, /) -> None:
        self._value = self._extend(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def _extend_crc32c(data: memoryview, value: int) -> int:
    value = google_crc32c.extend(value, bytes(data))  # it takes nothing but bytes
    return value


_HASHES: Mapping[str, Callable[[], Hash]] = {
    "md5": partial(hashlib.md5, usedforsecurity=False),
    "crc32": partial(_Crc, zlib.crc32),
    "crc32c": partial(_Crc, _extend_crc32c),
}


def digest_of(algorithm: str, data: bytes) -> bytes:
    """Return the digest of `data`, which is small."""
    digest: Hash = _HASHES[algorithm]() if algorithm in _HASHES else hashlib.new(algorithm)
    digest.update(memoryview(data))
    return digest.digest()


class Content:
    """The bytes of an object, or of a part of one, as they arrive; kept by whoever sets `is_kept`."""

    def __init__(self, store: Store, algorithms: Iterable[str] = _HASHES) -> None:
        self._hashes = {algorithm: _HASHES[algorithm]() for algorithm in algorithms}
        self._incoming = store.incoming(*self._hashes.values())
        self.write = self._incoming.write
        self.finish = self._incoming.finish
        self.discard = self._incoming.discard
        self.write_whole = self._incoming.write_whole
        self.path: Path = self._incoming.path
        self.is_kept = False

    @property
    def size_bytes(self) -> int:
        """How many bytes have arrived."""
        return self._incoming.size_bytes

    @property
    def is_corrupt(self) -> bool:
        """Whether the digests are not those of what came."""
        return self._incoming.is_corrupt

    def digest(self, algorithm: str) -> bytes:
        """Return the digest by sha256, or one of the algorithms it was opened with; complete after `finish`."""
        if algorithm == "sha256":
            return bytes.fromhex(self._incoming.sha256)
        return self._hashes[algorithm].digest()


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a request says about the object that it makes, before the bytes."""

    key: str
    content_type: str
    headers: Mapping[str, str]
    metadata: Mapping[str, str]
    # The generation that is to be replaced; 0: none, so that it is only ever created; None: whatever there is.
    generation: int | None = None
    # The algorithm of the checksum that comes with the bytes, if one does.
    algorithm: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject(StoredFile):
    """An object of the bucket."""

    key: str
    # Microseconds since 1970, and larger than that of every object before.
    generation: int
    etag: str
    # None for an object that was uploaded in parts.
    md5: bytes | None
    crc32c: bytes
    # Algorithm and value, as the uploader had it checked.
    checksum: tuple[str, str] | None
    headers: Mapping[str, str]
    metadata: Mapping[str, str]


class Bucket:
    """The one bucket of a provider. Each credential may use it; who put an object is its account."""

    def __init__(self, store: Store, provider: str, scheme: str) -> None:
        self.store = store
        self._provider = provider
        self._scheme = scheme
        self._numbers = count()

    def find(self, key: str) -> StoredObject | None:
        """Return the object, if there is one."""
        file = self.store.find_object(self._provider, self._id_of(key))
        assert file is None or isinstance(file, StoredObject)
        return file

    def require(self, key: str) -> StoredObject:
        """Return the object; raises NoSuchKey."""
        stored = self.find(key)
        if stored is None:
            raise ObjectError("NoSuchKey")
        return stored

    def check(self, key: str, generation: int | None) -> None:
        """Refuse unless the object's generation is this one, which is 0 for no object."""
        stored = self.find(key)
        if generation not in (None, stored.generation if stored else 0):
            raise ObjectError("PreconditionFailed")

    @asynccontextmanager
    async def receive(
        self, chunks: AsyncIterator[bytes], max_bytes: int, algorithms: Iterable[str] = _HASHES
    ) -> AsyncIterator[Content]:
        """Yield the content once it is complete; afterwards it is gone unless it is kept."""
        content, max_bytes = Content(self.store, algorithms), self.store.max_file_bytes or max_bytes
        try:
            async for chunk in chunks:
                await content.write(chunk)
                if content.size_bytes > max_bytes:
                    raise ObjectError("EntityTooLarge")
            await content.finish()
            yield content
        finally:
            if not content.is_kept:
                await content.discard()

    def put(self, draft: Draft, content: Content, account: str, parts: Sequence[Content] = ()) -> StoredObject:
        """Make the object, in place of the one of that key; `parts` are those that its content came in, if it did."""
        if len(draft.key.encode()) > _MAX_KEY_BYTES:
            raise ObjectError("KeyTooLongError")
        self.check(draft.key, draft.generation)
        self.remove(draft.key)
        now = self.store.clock.now()
        md5 = None if parts else content.digest("md5")
        stored = StoredObject(
            provider=self._provider,
            account=account,
            id=self._id_of(draft.key),
            filename=_filename(draft),
            size_bytes=content.size_bytes,
            sha256=content.digest("sha256").hex(),
            purpose="",
            content_type=draft.content_type,
            created_at=now,
            expires_at=None,
            path=content.path,
            key=draft.key,
            generation=now * 1_000_000 + next(self._numbers),
            etag=md5.hex() if md5 else f"{_digest_of_digests('md5', parts).hex()}-{len(parts)}",
            md5=md5,
            crc32c=content.digest("crc32c"),
            checksum=_checksum(draft.algorithm, content, parts),
            headers=draft.headers,
            metadata=draft.metadata,
        )
        content.is_kept = True
        self.store.add(stored)
        self.store.owners[stored.id] = account
        return stored

    def make(self, key: str, lines: Iterable[bytes], account: str) -> None:
        """Make an object of JSON lines that the provider writes itself, such as the results of a batch."""
        content = Content(self.store)
        content.write_whole(b"".join(lines))
        self.put(Draft(key=key, content_type="application/jsonl", headers={}, metadata={}), content, account)

    def key_of(self, uri: str) -> str | None:
        """Return the key in a URI, None if it is one of another bucket."""
        root = self._id_of("")
        return uri.removeprefix(root) if uri.startswith(root) else None

    def remove(self, key: str) -> None:
        """Forget the object, if there is one."""
        stored = self.find(key)
        if stored is not None:
            self.store.remove(stored)
        self.store.owners.pop(self._id_of(key), None)

    def page(self, prefix: str, after: str, limit: int) -> tuple[list[StoredObject], bool]:
        """Return the first objects beyond the key `after` in the order of their keys, and whether there are more."""
        found = [
            file
            for file in self.store.everything()
            if isinstance(file, StoredObject)
            and file.provider == self._provider
            and file.key.startswith(prefix)
            and file.key > after
        ]
        found.sort(key=lambda file: file.key)
        return found[:limit], len(found) > limit

    def _id_of(self, key: str) -> str:
        return f"{self._scheme}://{BUCKET}/{key}"


def content_response(stored: StoredObject, request: Request, headers: Mapping[str, str]) -> StreamingResponse:
    """Return the answer that has the object's bytes, or the range of them that the request asks for."""
    wanted = _range(request.headers.get("range", ""), stored.size_bytes)
    length = {"content-length": str(stored.size_bytes if wanted is None else len(wanted))}
    if wanted is not None:
        length["content-range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{stored.size_bytes}"
    status = 200 if wanted is None else 206
    # Not `media_type`, to which Starlette adds a charset of its own.
    return StreamingResponse(read_blocks(stored.path, wanted), status, {**headers, **length})


def encoded(digest: bytes) -> str:
    """Return a digest as headers and JSON have it."""
    return base64.b64encode(digest).decode()


def _range(header: str, size_bytes: int) -> range | None:
    """Return the positions that a Range header asks for; None for all, as for a header that makes no sense."""
    found = _RANGE.fullmatch(header)
    first, last = found.groups() if found else ("", "")
    if not (first or last) or (first and last and int(first) > int(last)):
        return None
    if not first:
        wanted = range(max(size_bytes - int(last), 0), size_bytes)
    else:
        wanted = range(int(first), min(int(last) + 1, size_bytes) if last else size_bytes)
    if not wanted:
        raise ObjectError("InvalidRange")
    return wanted


def _filename(draft: Draft) -> str:
    found = _FILENAME.search(draft.headers.get("content-disposition", ""))
    if found is None:
        return draft.key.rpartition("/")[2]
    return unquote(found["encoded"]) if found["encoded"] else found["quoted"]


def _digest_of_digests(algorithm: str, parts: Sequence[Content]) -> bytes:
    return digest_of(algorithm, b"".join(part.digest(algorithm) for part in parts))


def _checksum(algorithm: str | None, content: Content, parts: Sequence[Content]) -> tuple[str, str] | None:
    if algorithm is None:
        return None
    if parts:
        return algorithm, f"{encoded(_digest_of_digests(algorithm, parts))}-{len(parts)}"
    return algorithm, encoded(content.digest(algorithm))
