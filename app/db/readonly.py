"""One statement as `filemux_readonly`, the role that may read the views and nothing else."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ResourceClosedError

from app.db.session import Database

LIMIT = 10_000


class StatementRefused(Exception):
    """PostgreSQL does not run this statement, or not for this role."""


ROLE = "filemux_readonly"


async def select(database: Database, statement: str) -> tuple[list[str], list[list[Any]]]:
    """Column names and up to LIMIT rows. Raises StatementRefused."""
    try:
        async with database.write() as writer:
            await writer.execute(text("SET TRANSACTION READ ONLY"))
            await writer.execute(text(f"SET LOCAL ROLE {ROLE}"))
            return await writer.table(statement, LIMIT)
    except (DBAPIError, ResourceClosedError) as failure:
        reason = failure.orig if isinstance(failure, DBAPIError) else "it returns no rows"
        raise StatementRefused(f"the statement was refused: {reason}") from failure
