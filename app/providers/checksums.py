"""What a file's bytes add up to: counted while they pass, and compared with what the provider says that it holds."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

import google_crc32c

from app.errors import Missing, ProviderError, Unavailable
from app.providers.protocol import ProviderFile

DAMAGED = "the provider has stored other bytes than it was sent: the checksum that it reports differs"


class Checksum(Protocol):
    """Of an object's bytes, by the arithmetic of the store that keeps it."""

    async def update(self, chunk: bytes) -> None:
        """Count further bytes."""

    def value(self) -> str:
        """That of all bytes so far, as the store writes it."""

    @staticmethod
    def reported(headers: Mapping[str, str]) -> str | None:
        """That of an object as the answer to HEAD has it, if it does."""


class Crc32c:
    """Cloud Storage's: CRC32C, however the object came (https://cloud.google.com/storage/docs/data-validation)."""

    def __init__(self) -> None:
        self._value = 0

    async def update(self, chunk: bytes) -> None:
        """See Checksum."""
        self._value = google_crc32c.extend(self._value, chunk)

    def value(self) -> str:
        """See Checksum."""
        return b64encode(self._value.to_bytes(4, "big")).decode()

    @staticmethod
    def reported(headers: Mapping[str, str]) -> str | None:
        """See Checksum."""
        pairs = (pair.strip().partition("=") for pair in headers.get("x-goog-hash", "").split(","))
        return next((value for name, _, value in pairs if name == "crc32c"), None)


class PartsSha256:
    """S3's: SHA-256, of an object that came in parts that of its parts' digests
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html)."""

    def __init__(self, part_bytes: int) -> None:
        self._part_bytes = part_bytes
        self._left_bytes = part_bytes
        self._parts = [hashlib.sha256()]

    async def update(self, chunk: bytes) -> None:
        """See Checksum."""
        await asyncio.to_thread(self._update, chunk)

    def _update(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            if not self._left_bytes:
                self._parts.append(hashlib.sha256())
                self._left_bytes = self._part_bytes
            piece, view = view[: self._left_bytes], view[self._left_bytes :]
            self._parts[-1].update(piece)
            self._left_bytes -= len(piece)

    def value(self) -> str:
        """See Checksum."""
        digests = [part.digest() for part in self._parts]
        whole = digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()
        return b64encode(whole).decode()

    @staticmethod
    def reported(headers: Mapping[str, str]) -> str | None:
        """See Checksum. The number of parts may follow."""
        return headers.get("x-amz-checksum-sha256", "").partition("-")[0] or None


async def counted(chunks: AsyncIterator[bytes], checksum: Checksum) -> AsyncIterator[bytes]:
    """The same bytes."""
    async for chunk in chunks:
        await checksum.update(chunk)
        yield chunk


async def verified(file: ProviderFile, *, intact: bool, delete_file: Callable[[str], Awaitable[None]]) -> ProviderFile:
    """The file if it is intact, else none: it is deleted, so that its name is free for another try.

    Raises Unavailable; where the file could not be deleted, with an unknown outcome.
    """
    if intact:
        return file
    try:
        await delete_file(file.id)
    except Missing:
        pass
    except ProviderError as failure:
        raise Unavailable(DAMAGED, outcome_unknown=True) from failure
    raise Unavailable(DAMAGED)
