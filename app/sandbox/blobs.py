"""Bytes on disk: written and read block by block, off the event loop, never a whole file in memory."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

# Large enough that a thread hop costs nothing beside the write and the hash of a block.
BLOCK_BYTES = 1 << 20
# Whether the request at hand is to have a byte stored that it did not bring; that is the next one that is stored.
corrupts: ContextVar[bool] = ContextVar("corrupts", default=False)


class Hash(Protocol):
    """What takes bytes as they come, as the hashes of hashlib do."""

    def update(self, data: memoryview, /) -> None:
        """Take further bytes."""

    def digest(self) -> bytes:
        """Return the digest of all bytes so far."""


class Discarded(Exception):
    """The file that is arriving was discarded meanwhile."""


class Incoming:
    """A file that is arriving. While one block is hashed and written, the next one may come in.

    `more_hashes` are those that a provider needs beside the sandbox's own. All are of what is stored: of what came
    too, unless it `is_corrupt`.
    """

    def __init__(self, path: Path, *more_hashes: Hash) -> None:
        self.path = path
        self.size_bytes = 0
        self.is_corrupt = False
        self._file = path.open("xb", buffering=0)
        self._sha256 = hashlib.sha256()
        self._hashes: tuple[Hash, ...] = (self._sha256, *more_hashes)
        self._block = bytearray()
        self._storing: asyncio.Future[None] | None = None
        self._is_discarded = False

    @property
    def sha256(self) -> str:
        """The digest of everything that was stored, in hex; complete after `finish`."""
        return self._sha256.hexdigest()

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`. Raises Discarded."""
        self.size_bytes += len(chunk)
        self._block += chunk
        if chunk and corrupts.get():
            corrupts.set(False)
            self.is_corrupt = True
            self._block[-1] ^= 1
        if len(self._block) >= BLOCK_BYTES or self._is_discarded:
            await self._flush()

    def write_whole(self, data: bytes) -> None:
        """Store `data` as the whole file, at once: what the sandbox makes itself."""
        self.size_bytes = len(data)
        self._store(bytearray(data))
        self._file.close()

    async def finish(self) -> None:
        """Store what is left and close the file. Raises Discarded."""
        await self._flush()
        await self._settle()
        self._file.close()

    async def discard(self) -> None:
        """Leave nothing behind."""
        self._is_discarded = True
        with suppress(OSError, Discarded):
            await self._settle()
        self._file.close()
        self.path.unlink(missing_ok=True)

    async def _flush(self) -> None:
        await self._settle()
        if self._block:
            block, self._block = self._block, bytearray()
            self._storing = asyncio.get_running_loop().run_in_executor(None, self._store, block)

    async def _settle(self) -> None:
        if self._storing is not None:
            await asyncio.shield(self._storing)
        if self._is_discarded:
            raise Discarded

    def _store(self, block: bytearray) -> None:
        view = memoryview(block)
        for each in self._hashes:
            each.update(view)
        while view:
            view = view[self._file.write(view) :]


async def read_blocks(path: Path, wanted: range | None = None) -> AsyncIterator[bytes]:
    """Yield the bytes at `path`, or those at the positions `wanted`, in blocks."""
    file = await asyncio.to_thread(path.open, "rb", 0)
    left_bytes = sys.maxsize if wanted is None else len(wanted)
    with file:
        file.seek(wanted.start if wanted is not None else 0)
        while left_bytes and (block := await asyncio.to_thread(file.read, min(left_bytes, BLOCK_BYTES))):
            left_bytes -= len(block)
            yield block
