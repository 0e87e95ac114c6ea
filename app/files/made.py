"""Files that the gateway itself makes: a batch's results, or lines that came in the body of a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from app import ids
from app.db.session import Writer
from app.errors import BadRequest, Overloaded
from app.files import queries
from app.files.leases import LEASE_SECONDS, renewing
from app.files.replicas import queries as replica_queries
from app.files.spool import Spool
from app.gateway import Gateway


def require_sources(gateway: Gateway, what: str) -> None:
    """Raise BadRequest where the gateway keeps nothing."""
    if gateway.sources.store is None:
        reason = f"{what} kept by the gateway, and this one keeps no files (filemux.sources)"
        raise BadRequest(reason, code="sources_required")


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file whose bytes are kept, and that nobody sees until it is made `ready`. One that never is, is removed."""

    row: Mapping[str, Any]
    spool: Spool
    batch_lines: Mapping[str, Any] | None

    @property
    def file_id(self) -> str:
        """Its id."""
        return str(self.row["id"])

    async def ready(self, writer: Writer) -> None:
        """Make it a file like any other, in the transaction that does what it is made for. Raises Overloaded."""
        spool = self.spool
        if not await queries.record_upload(writer, self.file_id, spool.size_bytes, spool.sha256, {}, self.batch_lines):
            raise Overloaded("the file was given up while it was being kept", retry_after_seconds=1)


@asynccontextmanager
async def being_made(
    gateway: Gateway,
    file: Mapping[str, Any],
    spool: Spool,
    expires_after_seconds: int | None,
    batch_lines: Mapping[str, Any] | None = None,
) -> AsyncIterator[MadeFile]:
    """Keep what is spooled as a file with no replica, which `ready` finds as long as the block lasts. `batch_lines` is
    what the lines of a batch's input ask for. Raises StorageFull or Overloaded."""
    now = datetime.now(UTC)
    row = {
        **file,
        "id": ids.new_file_id(),
        "upload_policy": gateway.options.upload_policy,
        "source": gateway.sources.store,
        "bytes": spool.size_bytes,
        "created_at": now,
        "expires_at": None if expires_after_seconds is None else now + timedelta(seconds=expires_after_seconds),
    }
    async with gateway.database.write() as writer:
        await queries.insert_made(writer, row, now + timedelta(seconds=LEASE_SECONDS))
    lease = renewing(gateway.database, partial(replica_queries.renew_lease, file_id=row["id"]))
    try:
        await gateway.sources.keep(row["id"], spool)
        yield MadeFile(row, spool, batch_lines)
    finally:
        lease.cancel()
        await asyncio.shield(_give_up_unless_ready(gateway, row))


async def _give_up_unless_ready(gateway: Gateway, row: Mapping[str, Any]) -> None:
    # While the database is away, the row's lease ends by itself.
    with suppress(Overloaded, OSError):
        async with gateway.database.write() as writer:
            if await queries.fail_upload(writer, row["id"]) or await queries.is_ready(writer, row["id"]):
                return
        # Given up for crashed meanwhile; the removal of what is kept may have come before it.
        await gateway.sources.remove(row["source"], row["id"])
