"""The bytes that we keep: under the data directory, or not at all (`filemux.sources`).

The file's row says that there may be a source before the first byte of it is written, and loses that only after the
bytes are gone; so whatever is interrupted is taken up again from the row.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import structlog

from app.db.claims import backoff_seconds
from app.db.session import Row
from app.errors import Overloaded
from app.files import queries
from app.files.spool import Spool
from app.gateway import Gateway
from app.providers.protocol import FileContent

log = structlog.get_logger("filemux.files")

READ_BYTES = 256 * 1024
LEASE_SECONDS = 60.0
CLAIMED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Span:
    """A range of bytes, both ends included."""

    first: int
    last: int

    @property
    def size_bytes(self) -> int:
        """How many bytes it holds."""
        return self.last - self.first + 1


class Sources:
    """Where files' bytes are kept. `store` is where new ones go, None for nowhere; what an earlier configuration has
    kept is read and removed all the same.

    A directory has an id of its own, so that gateways with different data directories leave each other's files alone.
    """

    def __init__(self, kind: str, directory: Path) -> None:
        self._directory = directory
        disk = f"disk:{_directory_id(directory)}"
        self.stores = frozenset({disk})
        self.store = disk if kind == "disk" else None

    def holds(self, store: str | None) -> bool:
        """Whether what this store keeps can be read here."""
        return store in self.stores

    def path_of(self, file_id: str) -> Path:
        """Where a file's bytes are; 256 folders by the id's random end."""
        return self._directory / file_id[-2:] / file_id

    async def keep(self, file_id: str, spool: Spool) -> None:
        """Keep what was spooled, durably. Raises StorageFull."""
        if self.store is not None:
            await spool.persist(self.path_of(file_id))

    @asynccontextmanager
    async def open(self, file_id: str, span: Span) -> AsyncIterator[FileContent]:
        """A file's bytes. Raises FileNotFoundError."""
        file = await asyncio.to_thread(self.path_of(file_id).open, "rb")
        try:
            yield FileContent(_read(file, span), span.size_bytes)
        finally:
            await asyncio.to_thread(file.close)

    async def remove(self, file_id: str) -> None:
        """Remove a file's bytes, if there are any. Raises OSError."""
        await asyncio.to_thread(self.path_of(file_id).unlink, missing_ok=True)


def _directory_id(directory: Path) -> str:
    """The directory's id, made once; several workers may be the first."""
    path = directory / "id"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        own = path.with_name(f"id.{secrets.token_hex(8)}")
        own.write_text(secrets.token_hex(8))
        with suppress(FileExistsError):
            os.link(own, path)
        own.unlink()
    return path.read_text()


async def _read(file: BinaryIO, span: Span) -> AsyncIterator[bytes]:
    position = span.first
    while position <= span.last:
        size = min(READ_BYTES, span.last + 1 - position)
        chunk = await asyncio.to_thread(os.pread, file.fileno(), size, position)
        if not chunk:
            raise OSError("a kept file is shorter than it was")
        position += len(chunk)
        yield chunk


async def sources_due(gateway: Gateway) -> int:
    """The worker's half: remove the bytes of files that are deleted, failed, or whose upload has crashed."""
    async with gateway.database.write() as writer:
        files = await queries.claim_sources(writer, gateway.sources.stores, LEASE_SECONDS, CLAIMED_AT_ONCE)
        for file in files:
            await queries.fail_crashed_upload(writer, file["id"])
    for file in files:
        await remove_source(gateway, file)
    return len(files)


async def remove_source(gateway: Gateway, file: Row) -> None:
    """Remove what is kept of a claimed file, and record it; a failure is due again later."""
    if not gateway.sources.holds(file["source"]):
        return
    try:
        await gateway.sources.remove(file["id"])
        async with gateway.database.write() as writer:
            await queries.forget_source(writer, file["id"])
    except OSError as failure:
        log.warning("a kept file could not be removed", file=file["id"], error=str(failure))
        async with gateway.database.write() as writer:
            await queries.postpone_source(writer, file["id"], backoff_seconds(file["attempts"]), str(failure))
    except Overloaded:
        # The row keeps its lease and is due again after it.
        log.warning("the removal of a kept file could not be recorded", file=file["id"])
