"""All SQL about direct files: what of an account is another team's, although nobody may know its id yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Text, any_, cast, func, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY

from app.db.session import Reader, Rows
from app.db.tables import batch_parts, batches, files, replicas


async def foreign_names(reader: Reader, team_id: str, providers: Sequence[str], names: Iterable[str]) -> set[str]:
    """Which of these names at providers, ids or such that we choose, are those of another team's replicas, or of the
    lines or results of its batches."""
    wanted = cast(list(names), ARRAY(Text))
    of_files = (
        select(column.label("name"))
        .join(files, files.c.id == replicas.c.file_id)
        .where(column == any_(wanted), replicas.c.provider.in_(providers), files.c.team_id != team_id)
        for column in (replicas.c.id, replicas.c.provider_file_id)
    )
    parts = batch_parts.c
    of_batches = (
        select(func.unnest(column))
        .join(batches, batches.c.id == parts.batch_id)
        .where(column.overlap(wanted), parts.provider.in_(providers), batches.c.team_id != team_id)
        for column in (parts.input_names, parts.input_provider_file_ids, parts.result_ids)
    )
    return {row["name"] for row in await reader.all(union_all(*of_files, *of_batches))}


async def arriving_files(reader: Reader, team_id: str, providers: Sequence[str]) -> Rows:
    """The other teams' uploads to these providers whose ids are not known yet: `filename`, `created_at`."""
    statement = (
        select(files.c.filename, func.min(replicas.c.created_at).label("created_at"))
        .join(files, files.c.id == replicas.c.file_id)
        .where(replicas.c.state == "pending", replicas.c.provider.in_(providers), files.c.team_id != team_id)
        .group_by(files.c.filename)
    )
    return await reader.all(statement)


async def results_arrive_since(reader: Reader, team_id: str, providers: Sequence[str]) -> datetime | None:
    """From when on results of other teams' batches, whose ids are not known yet, may be at these providers."""
    statement = (
        select(func.min(batch_parts.c.creating_at).label("since"))
        .join(batches, batches.c.id == batch_parts.c.batch_id)
        .where(
            batch_parts.c.state.in_(("creating", "running")),
            batch_parts.c.provider.in_(providers),
            batches.c.team_id != team_id,
        )
    )
    row = await reader.first(statement)
    return row["since"] if row else None


async def foreign_batch_names(reader: Reader, team_id: str, providers: Sequence[str], names: Iterable[str]) -> set[str]:
    """In which of these names end the ids of other teams' batches at providers."""
    parts = batch_parts.c
    of_part = func.unnest(func.array_append(parts.surplus_batch_ids, parts.provider_batch_id)).label("id")
    theirs = (
        select(of_part)
        .join(batches, batches.c.id == parts.batch_id)
        .where(parts.provider.in_(providers), batches.c.team_id != team_id)
        .subquery()
    )
    name = func.regexp_replace(theirs.c.id, "^.*/", "")
    found = select(name.label("name")).where(name == any_(cast(list(names), ARRAY(Text))))
    return {row["name"] for row in await reader.all(found)}
