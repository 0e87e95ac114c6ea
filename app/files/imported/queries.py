"""All SQL about files of another gateway: its rows, and ours that are made of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import asyncpg
import orjson
from sqlalchemy import make_url, select
from sqlalchemy.dialects.postgresql import insert

from app.db.session import Reader, Row, Writer, connect, normalised
from app.db.tables import audit_log, file_targets, files, replicas, teams
from app.yaml_file import SettingsError

# Older versions lack some columns: whatever a row has.
_PAGE = 'SELECT to_jsonb(f)::text FROM "LiteLLM_ManagedFileTable" f WHERE id > $1 ORDER BY id LIMIT $2'
_BATCHES = "SELECT count(*) FROM \"LiteLLM_ManagedObjectTable\" WHERE file_purpose = 'batch'"


class LiteLLMDatabase:
    """A connection to LiteLLM's database; use as an async context manager. Raises SettingsError."""

    def __init__(self, url: str) -> None:
        self._url = normalised(url)
        # Prisma's way of saying where the tables are.
        self._schema = make_url(url).query.get("schema")

    async def __aenter__(self) -> LiteLLMDatabase:
        try:
            self._connection = await connect(self._url, "filemux import")
            if self._schema is not None:
                await self._connection.execute("SELECT set_config('search_path', $1, false)", self._schema)
        except (OSError, asyncpg.PostgresError) as failure:
            raise SettingsError(f"cannot be read: {failure}", file="--from") from None
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    async def pages(self, limit: int) -> AsyncIterator[list[dict[str, Any]]]:
        """All managed files, so many at a time."""
        after = ""
        while rows := await self._fetch(_PAGE, after, limit):
            found = [orjson.loads(row[0]) for row in rows]
            yield found
            after = found[-1]["id"]

    async def batches(self) -> int:
        """How many managed batches there are."""
        return int((await self._fetch(_BATCHES))[0][0])

    async def _fetch(self, statement: str, *values: object) -> Sequence[Any]:
        try:
            return await self._connection.fetch(statement, *values)
        except asyncpg.UndefinedTableError:
            reason = "holds no managed files: it is no database of LiteLLM's, or of one before 1.69"
            raise SettingsError(reason, file="--from") from None


async def team_ids(reader: Reader) -> dict[str, str]:
    """Team name → id."""
    rows = await reader.all(select(teams.c.name, teams.c.id))
    return {row["name"]: row["id"] for row in rows}


async def known(reader: Reader, file_ids: Collection[str]) -> set[str]:
    """Which of these files were imported before, whether they still exist or not."""
    column = audit_log.c.subject
    rows = await reader.all(select(column).where(column.in_(list(file_ids)), audit_log.c.action == "file.import"))
    return {row["subject"] for row in rows}


async def insert_file(
    writer: Writer, file: dict[str, Any], its_replicas: Sequence[dict[str, Any]], targets: Sequence[dict[str, Any]]
) -> bool:
    """Make a ready file of what is at providers already; False when another import has just done so."""
    made: Row | None = await writer.first(
        insert(files).values(**file, state="ready").on_conflict_do_nothing().returning(files.c.id)
    )
    if made is None:
        return False
    await writer.execute(insert(replicas).values([{**one, "file_id": file["id"]} for one in its_replicas]))
    await writer.execute(insert(file_targets).values([{**one, "file_id": file["id"]} for one in targets]))
    return True
