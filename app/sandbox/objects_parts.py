"""Multipart uploads into a bucket: parts in any order, each replaceable, that become an object at the end."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import uuid4

from app.sandbox.blobs import read_blocks
from app.sandbox.objects import Bucket, Content, Draft, ObjectError, StoredObject, encoded

MAX_PART_BYTES = 5 * 1024**3
_MIN_PART_BYTES = 5 * 1024**2
_MAX_OBJECT_BYTES = 5 * 1024**4


@dataclass(frozen=True, kw_only=True)
class NamedPart:
    """A part as the request names it that finishes the upload, with its checksums by algorithm."""

    number: int
    etag: str
    checksums: Mapping[str, str | None]


@dataclass
class MultipartUpload:
    """An upload between its start and its end."""

    id: str
    draft: Draft
    account: str
    started_at: int
    parts: dict[int, Content] = field(default_factory=dict)
    # One request at a time puts the parts together or removes them.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    # Who comes to an end is remembered no longer.
    is_open = True

    def keep(self, number: int, part: Content) -> None:
        """Make `part` the one of this number."""
        part.is_kept = True
        replaced = self.parts.get(number)
        if replaced is not None:
            replaced.path.unlink()
        self.parts[number] = part

    async def discard(self) -> None:
        """Remove all parts, once nobody puts them together any more."""
        async with self.turn:
            for part in self.parts.values():
                part.path.unlink()
            self.parts.clear()


class MultipartUploads:
    """The uploads into a bucket that are under way."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._uploads: dict[str, MultipartUpload] = bucket.store.uploads()

    def __iter__(self) -> Iterator[MultipartUpload]:
        """Iterate in the order of the keys."""
        return iter(sorted(self._uploads.values(), key=lambda upload: upload.draft.key))

    def start(self, draft: Draft, account: str) -> MultipartUpload:
        """Start an upload."""
        upload = MultipartUpload(uuid4().hex, draft, account, self._bucket.store.clock.now())
        self._uploads[upload.id] = upload
        return upload

    def require(self, upload_id: str, key: str) -> MultipartUpload:
        """Return the upload; raises NoSuchUpload."""
        upload = self._uploads.get(upload_id)
        if upload is None or upload.draft.key != key:
            raise ObjectError("NoSuchUpload")
        return upload

    async def abort(self, upload_id: str, key: str) -> None:
        """End the upload without an object."""
        await self._end(self.require(upload_id, key))

    async def finish(
        self, upload_id: str, key: str, named: Sequence[NamedPart], generation: int | None
    ) -> StoredObject:
        """Make an object of the named parts; an upload that is refused goes on."""
        upload = self.require(upload_id, key)
        async with upload.turn:
            self.require(upload_id, key)  # another request may have ended it meanwhile
            parts = _chosen(upload, named)
            self._bucket.check(key, generation)
            # Its other digests are those of its parts, which are known.
            async with self._bucket.receive(_bytes_of(parts), _MAX_OBJECT_BYTES, ["crc32c"]) as content:
                draft = replace(upload.draft, generation=generation)
                stored = self._bucket.put(draft, content, upload.account, parts)
        await self._end(upload)
        return stored

    async def _end(self, upload: MultipartUpload) -> None:
        # A part that is still arriving finds no upload when it is complete.
        self._uploads.pop(upload.id, None)
        await upload.discard()


def _chosen(upload: MultipartUpload, named: Sequence[NamedPart]) -> list[Content]:
    """Return the parts that are named, if they are what arrived and fit together."""
    if not named:
        raise ObjectError("MalformedXML")
    numbers = [part.number for part in named]
    if numbers != sorted(set(numbers)):
        raise ObjectError("InvalidPartOrder")
    parts = [upload.parts.get(number) for number in numbers]
    for name, part in zip(named, parts, strict=True):
        if part is None or name.etag.strip('"') != part.digest("md5").hex():
            raise ObjectError("InvalidPart")
        _check_checksum(upload, name, part)
    chosen = [part for part in parts if part is not None]
    if any(part.size_bytes < _MIN_PART_BYTES for part in chosen[:-1]):
        raise ObjectError("EntityTooSmall")
    return chosen


def _check_checksum(upload: MultipartUpload, name: NamedPart, part: Content) -> None:
    algorithm = upload.draft.algorithm
    if algorithm is None:
        return
    checksum = name.checksums[algorithm]
    if checksum is None:
        raise ObjectError(
            "InvalidRequest",
            f"The upload was created using a {algorithm} checksum. The complete request must include the checksum for "
            f"each part. It was missing for part {name.number} in the request.",
        )
    if checksum != encoded(part.digest(algorithm)):
        raise ObjectError("InvalidPart")


async def _bytes_of(parts: Sequence[Content]) -> AsyncIterator[bytes]:
    for part in parts:
        async for block in read_blocks(part.path):
            yield block
