"""Bytes on disk: written and read block by block, off the event loop, never a whole file in memory."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

# Large enough that a thread hop costs nothing beside the write and the hash of a block.
BLOCK_BYTES = 1 << 20


class Incoming:
    """A file that is arriving. While one block is hashed and written, the next one may come in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._file = path.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self._block = bytearray()
        self._storing: asyncio.Future[None] | None = None

    @property
    def sha256(self) -> str:
        """The digest of everything that was stored, in hex; complete after `finish`."""
        return self._hash.hexdigest()

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`."""
        self.size_bytes += len(chunk)
        self._block += chunk
        if len(self._block) >= BLOCK_BYTES:
            await self._flush()

    async def finish(self) -> None:
        """Store what is left and close the file."""
        await self._flush()
        await self._settle()
        self._file.close()

    async def discard(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):
            await self._settle()
        self._file.close()
        self.path.unlink(missing_ok=True)

    async def _flush(self) -> None:
        await self._settle()
        if self._block:
            block, self._block = self._block, bytearray()
            self._storing = asyncio.get_running_loop().run_in_executor(None, self._store, block)

    async def _settle(self) -> None:
        storing, self._storing = self._storing, None
        if storing is not None:
            await asyncio.shield(storing)

    def _store(self, block: bytearray) -> None:
        self._hash.update(block)
        view = memoryview(block)
        while view:
            view = view[self._file.write(view) :]


async def read_blocks(path: Path) -> AsyncIterator[bytes]:
    """Yield the bytes at `path` in blocks."""
    file = await asyncio.to_thread(path.open, "rb", 0)
    with file:
        while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
            yield block
