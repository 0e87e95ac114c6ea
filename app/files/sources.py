"""The bytes that we keep, on disk, in a bucket, or not at all (`filemux.sources`); and whether they are still the file.

The file's row says that there may be a source before the first byte of it is written, and loses that only after the
bytes are gone; so whatever is interrupted is taken up again from the row.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import ClassVar

import structlog
from prometheus_client import Counter

from app.db.claims import backoff_seconds
from app.db.session import Row
from app.errors import GatewayError, Overloaded
from app.files import queries
from app.files.mappings import FileMapping
from app.files.spool import Spool
from app.files.stores import BucketStore, DiskStore, Span, Store
from app.gateway import Gateway
from app.providers.protocol import FileContent
from app.settings import SourceOptions

log = structlog.get_logger("filemux.files")

LEASE_SECONDS = 60.0
CLAIMED_AT_ONCE = 50

FAILURES = Counter("filemux_source_failures", "Kept files that could not be read, by reason", ["reason"])


class SourceUnreadable(GatewayError):
    """The store does not give a file's bytes out now."""

    status = 503
    type = "server_error"
    default_code = "unavailable"
    reason: ClassVar[str] = "unreachable"


class SourceLost(SourceUnreadable):
    """The store has nothing of this file."""

    status = 400
    type = "invalid_request_error"
    default_code = "content_not_available"
    reason = "missing"


class SourceDamaged(SourceLost):
    """What the store has is not the file: its size or its SHA-256 is another."""

    reason = "damaged"


class Sources:
    """Where files' bytes are kept. `store` is the id of the store that new ones go to, None for nowhere; what an
    earlier configuration has kept on disk is read and removed all the same."""

    def __init__(self, options: SourceOptions, directory: Path) -> None:
        disk = DiskStore(directory)
        keeper: Store | None = None if options.store == "none" else disk
        if options.store == "s3":
            keeper = BucketStore(options)
        self.stores: Mapping[str, Store] = {store.id: store for store in (disk, keeper) if store}
        self.store = keeper.id if keeper else None

    def holds(self, store: str | None) -> bool:
        """Whether what this store keeps can be read here."""
        return store in self.stores

    async def keep(self, file_id: str, spool: Spool) -> None:
        """Keep what is spooled, while it comes; durable once this returns. Raises StorageFull, Overloaded or
        Abandoned."""
        if self.store is None:
            return
        try:
            await self.stores[self.store].keep(file_id, spool)
        except OSError as failure:
            log.warning("a file could not be kept", file=file_id, store=self.store, error=str(failure))
            reason = "the gateway's store of kept files (filemux.sources) does not take this file now"
            raise Overloaded(reason, retry_after_seconds=5) from failure

    @asynccontextmanager
    async def open(self, file: FileMapping, span: Span | None = None) -> AsyncIterator[FileContent]:
        """A file's bytes, or some of them, from the store that holds them.

        Raises SourceUnreadable; if it is because of its first chunk, at once, else from the chunks. The last chunk of
        the whole is held back until all of them have the file's SHA-256, so what is read to its end is the file.
        """
        assert file.source is not None
        wanted = span or Span(0, file.size_bytes - 1)
        async with AsyncExitStack() as stack:
            with _reading(file):
                content = await stack.enter_async_context(self.stores[file.source].open(file.file_id, wanted))
                if content.size_bytes != file.size_bytes:
                    raise SourceDamaged(f"the kept copy of this file has {content.size_bytes} bytes")
                chunks = _verified(content.chunks, file.sha256) if span is None else content.chunks
                first = await anext(chunks, b"")
            yield FileContent(_followed(first, chunks, file), wanted.size_bytes)

    async def remove(self, store: str | None, file_id: str) -> None:
        """Remove what this store keeps of a file, if it is one of those here and has any of it. Raises OSError."""
        if store is not None and self.holds(store):
            await self.stores[store].remove(file_id)


@contextmanager
def _reading(file: FileMapping) -> Iterator[None]:
    """A store's errors → ours; each is logged and counted."""
    try:
        try:
            yield
        except FileNotFoundError as failure:
            raise SourceLost("the kept copy of this file is lost") from failure
        except OSError as failure:
            raise SourceUnreadable("the kept copy of this file cannot be read now", retry_after_seconds=5) from failure
    except SourceUnreadable as failure:
        FAILURES.labels(failure.reason).inc()
        reason = str(failure.__cause__ or failure)
        log.warning("a kept file cannot be read", file=file.file_id, store=file.source, reason=reason)
        raise


async def _verified(chunks: AsyncIterator[bytes], sha256: str) -> AsyncIterator[bytes]:
    digest = hashlib.sha256()
    held_back = b""
    async for chunk in chunks:
        if held_back:
            yield held_back
        digest.update(chunk)
        held_back = chunk
    if digest.hexdigest() != sha256:
        raise SourceDamaged("the kept copy of this file has another SHA-256")
    yield held_back


async def _followed(first: bytes, chunks: AsyncIterator[bytes], file: FileMapping) -> AsyncIterator[bytes]:
    yield first
    with _reading(file):
        async for chunk in chunks:
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
        await gateway.sources.remove(file["source"], file["id"])
        async with gateway.database.write() as writer:
            await queries.forget_source(writer, file["id"])
    except OSError as failure:
        log.warning("a kept file could not be removed", file=file["id"], error=str(failure))
        async with gateway.database.write() as writer:
            await queries.postpone_source(writer, file["id"], backoff_seconds(file["attempts"]), str(failure))
    except Overloaded:
        # The row keeps its lease and is due again after it.
        log.warning("the removal of a kept file could not be recorded", file=file["id"])
