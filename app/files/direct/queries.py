"""All SQL about direct files: what of an account is another team's, although nobody may know its id yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Text, and_, cast, func, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY

from app.db.session import Reader, Rows
from app.db.tables import batch_parts, batches, files, replicas


async def foreign_names(reader: Reader, team_id: str, names: Iterable[str]) -> set[str]:
    """Which of these names, where we choose them, are those of another team's replicas or of the lines of its
    batches."""
    wanted = list(names)
    of_files = (
        select(replicas.c.id.label("name"))
        .join(files, files.c.id == replicas.c.file_id)
        .where(replicas.c.id.in_(wanted), files.c.team_id != team_id)
    )
    of_batches = (
        select(func.unnest(batch_parts.c.input_names))
        .join(batches, batches.c.id == batch_parts.c.batch_id)
        .where(batch_parts.c.input_names.overlap(cast(wanted, ARRAY(Text))), batches.c.team_id != team_id)
    )
    return {row["name"] for row in await reader.all(union_all(of_files, of_batches))}


async def arriving_files(reader: Reader, team_id: str, accounts: Sequence[str]) -> Rows:
    """The other teams' uploads to these accounts whose ids are not known yet: `filename`, `created_at`."""
    statement = (
        select(files.c.filename, func.min(replicas.c.created_at).label("created_at"))
        .join(files, files.c.id == replicas.c.file_id)
        .where(replicas.c.state == "pending", replicas.c.account.in_(list(accounts)), files.c.team_id != team_id)
        .group_by(files.c.filename)
    )
    return await reader.all(statement)


async def foreign_batches(
    reader: Reader, team_id: str, accounts: Sequence[str], provider_batch_ids: Sequence[str]
) -> set[str]:
    """Which of these batches at accounts are parts of another team's."""
    column = batch_parts.c.provider_batch_id
    theirs = and_(
        batch_parts.c.account.in_(list(accounts)),
        column.in_(list(provider_batch_ids)),
        batches.c.team_id != team_id,
    )
    joined = select(column).join(batches, batches.c.id == batch_parts.c.batch_id)
    return {row["provider_batch_id"] for row in await reader.all(joined.where(theirs))}
