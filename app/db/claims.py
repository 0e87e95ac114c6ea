"""Due rows and leases: the row itself is the to-do list, so there is no job table.

A row is due from `due_at` on. A claim counts an attempt and moves `due_at` on by the lease, so that a claimer that
dies is followed by another one when the lease has passed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Table, func, select, update

from app.db.session import Rows, Writer

FIRST_BACKOFF_SECONDS = 1.0
LAST_BACKOFF_SECONDS = 3600.0


async def claim_due(
    writer: Writer,
    table: Table,
    due: ColumnElement[bool],
    *,
    lease_seconds: float,
    limit: int,
    values: Mapping[str, Any] | None = None,
) -> Rows:
    """Claim up to `limit` rows that are due and match `due`; other claimers skip them. `values` are set with it."""
    ripe = (
        select(table.c.id)
        .where(due, table.c.due_at <= func.now())
        .order_by(table.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    lease = {"due_at": func.now() + timedelta(seconds=lease_seconds), "attempts": table.c.attempts + 1}
    claim = update(table).where(table.c.id.in_(ripe.scalar_subquery())).values({**lease, **(values or {})})
    return await writer.all(claim.returning(*table.c))


def backoff_seconds(attempts: int) -> float:
    """How long to wait after the given number of attempts: doubling from a second to an hour, with jitter, for
    ever."""
    ceiling = min(LAST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(attempts - 1, 20))
    return random.uniform(ceiling / 2, ceiling)  # noqa: S311  jitter, not a secret
