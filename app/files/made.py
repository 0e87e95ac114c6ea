"""Files that the gateway itself makes: a batch's results, or lines that came in the body of a request."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from app.db.session import Row
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


async def make_file(
    gateway: Gateway, file: Mapping[str, Any], spool: Spool, batch_lines: Mapping[str, Any] | None = None
) -> Row:
    """Keep what is spooled as a ready file with no replica; again, with the same id, makes it once. `batch_lines` is
    what the lines of a batch's input ask for.

    Raises StorageFull or Overloaded.
    """
    async with gateway.database.read() as reader:
        known = await queries.find_file(reader, None, file["id"])
    if known is not None:
        return known
    due_at = datetime.now(UTC) + timedelta(seconds=LEASE_SECONDS)
    values = {
        "upload_policy": gateway.options.upload_policy,
        "source": gateway.sources.store,
        "bytes": spool.size_bytes,
        "created_at": datetime.now(UTC),
        "expires_at": None,
        "created_by": None,
        **file,
    }
    async with gateway.database.write() as writer:
        begun = await queries.insert_made(writer, values, due_at)
    if not begun:
        raise Overloaded("what an earlier attempt has kept of the file is being removed", retry_after_seconds=1)
    lease = renewing(gateway.database, partial(replica_queries.renew_lease, file_id=file["id"]))
    try:
        await gateway.sources.keep(file["id"], spool)
        row = await queries.record_upload(gateway.database, file["id"], spool.size_bytes, spool.sha256, {}, batch_lines)
    finally:
        lease.cancel()
    if row is None:
        raise Overloaded("the file was given up while it was being kept", retry_after_seconds=1)
    return row
