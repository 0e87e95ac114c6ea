"""One statement as `filemux_readonly`, the role that may read the views and nothing else."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from app.db.session import Database

LIMIT = 10_000
ROLE = "filemux_readonly"


async def select(database: Database, statement: str) -> tuple[list[str], list[list[Any]]]:
    """Column names and up to LIMIT rows. Raises SQLAlchemy's DBAPIError for what the role may not do."""
    async with database.write() as writer:
        await writer.execute(text("SET TRANSACTION READ ONLY"))
        await writer.execute(text(f"SET LOCAL ROLE {ROLE}"))
        return await writer.table(statement, LIMIT)
