"""One statement as `filemux_readonly`, the role that may read the views and nothing else."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.db.session import Database
from app.errors import BadRequest

ROLE = "filemux_readonly"
# SET ROLE alone is no wall: one statement can take it back (set_config, DO) and run another (ts_stat, query_to_xml).
# Inside a function with its owner's rights PostgreSQL refuses that, and a subquery is a SELECT and nothing else.
ASK = r"""
CREATE OR REPLACE FUNCTION pg_temp.ask(statement text) RETURNS SETOF json LANGUAGE plpgsql SECURITY DEFINER AS $ask$
BEGIN
    RETURN QUERY EXECUTE 'SELECT to_json(q) FROM (' || statement || E'\n) q LIMIT 10000';
END $ask$
"""


async def select(database: Database, statement: str) -> tuple[list[str], list[list[Any]]]:
    """Column names and up to 10,000 rows. Raises BadRequest with PostgreSQL's reason."""
    try:
        async with database.write() as writer:
            await writer.execute(text(f"SET LOCAL ROLE {ROLE}"))
            await writer.execute(text(ASK))
            await writer.execute(text("SET TRANSACTION READ ONLY"))
            statement = statement.rstrip("; \n")
            # Planned and not run: the names are there even when no row is.
            columns, _ = await writer.table(f"SELECT * FROM ({statement}\n) q LIMIT 0", 0)  # noqa: S608
            rows = await writer.all(text("SELECT pg_temp.ask(:statement)::text AS row"), {"statement": statement})
    except DBAPIError as failure:
        raise BadRequest(f"the statement was refused: {failure.orig}") from failure
    found = [json.loads(row["row"]) for row in rows]
    return columns, [[row[name] for name in columns] for row in found]
