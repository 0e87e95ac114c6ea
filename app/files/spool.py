"""An upload's bytes while it is being fanned out: written once, read by each account at its own pace.

Below 1 MiB they stay in memory, above it they go to a file of their own, which becomes the source if one is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, cast

from app.errors import StorageFull
from app.providers.protocol import UploadInterrupted

MEMORY_BYTES = 1024 * 1024
# Coalesced writes: a thread is asked once per MiB, not once per network read.
WRITE_BYTES = 1024 * 1024
READ_BYTES = 256 * 1024
# Below this, hashing costs less than asking a thread.
INLINE_HASH_BYTES = 64 * 1024
LEFTOVER_SECONDS = 3600


class LengthChanged(UploadInterrupted):
    """The size that was promised to a provider is not the file's; the upload starts over."""


class Abandoned(UploadInterrupted):
    """The upload has failed or its client has left; nothing more is to be sent."""


class Spool:
    """Use as an async context manager; `size_bytes` and `sha256` are final after `finish`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None
        # The file's name, until it is kept elsewhere.
        self._path: Path | None = None
        self._pending: list[bytes] = []
        self._memory = b""
        # What readers may see; the rest of size_bytes is pending.
        self._flushed_bytes = 0
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._changed = asyncio.Event()
        self._abandoned = False
        self.finished = False

    async def __aenter__(self) -> Spool:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.abandon()
        if self._file is not None:
            # Closing writes what a full disk refused; that was reported when it was refused.
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._close)

    @property
    def sha256(self) -> str:
        """The hexadecimal digest of what was written."""
        return self._digest.hexdigest()

    async def write(self, chunk: bytes) -> None:
        """Add bytes at the end. Raises StorageFull."""
        self._pending.append(chunk)
        self.size_bytes += len(chunk)
        if self.size_bytes - self._flushed_bytes >= (WRITE_BYTES if self._file else MEMORY_BYTES):
            await self._flush()

    async def finish(self) -> None:
        """No more bytes will come."""
        if self._file is not None:
            await self._flush()
        else:
            self._memory = b"".join(self._pending)
            self._pending.clear()
            self._flushed_bytes = self.size_bytes
            if len(self._memory) > INLINE_HASH_BYTES:
                await asyncio.to_thread(self._digest.update, self._memory)
            else:
                self._digest.update(self._memory)
        self.finished = True
        self._wake()

    async def wait_finished(self) -> None:
        """Wait for the writer's end. Raises Abandoned."""
        while not self.finished and not self._abandoned:
            await self._changed.wait()
        if self._abandoned:
            raise Abandoned

    async def persist(self, path: Path) -> None:
        """Wait for the writer's end, then make the spool the file at `path`, on the disk for certain before this
        returns; cancelled or not, nothing of it goes on afterwards. Raises StorageFull or Abandoned."""
        await self.wait_finished()
        moving = asyncio.ensure_future(asyncio.to_thread(self._persist, path))
        try:
            await asyncio.shield(moving)
        except asyncio.CancelledError:
            await asyncio.wait({moving})
            raise
        except OSError as failure:
            raise _of_disk(failure) from failure

    def abandon(self) -> None:
        """Every reader, present and future, gets Abandoned."""
        self._abandoned = True
        self._wake()

    async def read(self, promised_bytes: int | None) -> AsyncIterator[bytes]:
        """All bytes from the start, following the writer.

        With a promised size the last byte is held back until the size is known to be true, so that a provider never
        holds a file that only looks complete. Raises LengthChanged or Abandoned.
        """
        position = 0
        while True:
            if self._abandoned:
                raise Abandoned
            changed = self._changed
            end = self._readable_bytes(promised_bytes)
            if position < end:
                chunk = await self._chunk(position, min(READ_BYTES, end - position))
                position += len(chunk)
                yield chunk
            elif self.finished:
                return
            else:
                await changed.wait()

    def _readable_bytes(self, promised_bytes: int | None) -> int:
        if promised_bytes is None:
            return self._flushed_bytes
        known_wrong = self.size_bytes != promised_bytes if self.finished else self.size_bytes > promised_bytes
        if known_wrong:
            raise LengthChanged
        return self._flushed_bytes if self.finished else min(self._flushed_bytes, promised_bytes - 1)

    async def _chunk(self, position: int, size: int) -> bytes:
        if self._file is None:
            return self._memory[position : position + size]
        return await asyncio.to_thread(os.pread, self._file.fileno(), size, position)

    async def _flush(self) -> None:
        chunks, self._pending = self._pending, []
        try:
            await asyncio.to_thread(self._store, chunks)
        except OSError as failure:
            self.abandon()
            raise _of_disk(failure) from failure
        self._flushed_bytes = self.size_bytes
        self._wake()

    def _store(self, chunks: list[bytes]) -> None:
        if self._file is None:
            self._file = self._opened()
        for chunk in chunks:
            self._file.write(chunk)
            self._digest.update(chunk)
        self._file.flush()

    def _opened(self) -> BinaryIO:
        file = tempfile.NamedTemporaryFile(dir=self._directory, delete=False)  # noqa: SIM115  closed by __aexit__
        self._path = Path(file.name)
        return cast(BinaryIO, file)

    def _persist(self, path: Path) -> None:
        # The memory stays where it is: providers are still reading it.
        file = self._file or self._opened()
        try:
            if self._file is None:
                file.write(self._memory)
                file.flush()
            assert self._path is not None
            if not path.parent.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                _sync_directory(path.parent.parent)
            self._path.rename(path)
            self._path = None
            # Renamed first: one commit of the file system's journal then holds both, and the directory's costs nothing.
            os.fsync(file.fileno())
            _sync_directory(path.parent)
        finally:
            if self._file is None:
                # First, for closing fails again where the disk was full.
                self._remove()
                file.close()

    def _close(self) -> None:
        self._remove()
        if self._file is not None:
            self._file.close()

    def _remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def remove_leftovers(directory: Path) -> None:
    """Remove what killed gateways have left behind; what is younger than an hour may be a running upload's."""
    for path in directory.glob("*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()


def _sync_directory(directory: Path) -> None:
    """Put a directory's names on the disk: a rename is durable only then (POSIX fsync)."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _of_disk(failure: OSError) -> Exception:
    if failure.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("the gateway's disk is full; the upload was not kept")
    return failure
