"""All SQL about replicas: what became of them, what is due, and what is known of an account's files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update

from app.db.claims import claim_due
from app.db.notify import EVERYTHING
from app.db.session import Database, Reader, Row, Rows, Writer
from app.db.tables import file_targets, files, replicas
from app.errors import BadRequest

# A row that nobody has claimed for so long is at an account that no gateway has.
NOBODYS = timedelta(minutes=1)
# On this channel a file's id tells every process that its mapping has changed.
FILES_CHANNEL = "filemux_files"


async def renew_lease(writer: Writer, file_id: str, lease_seconds: float) -> None:
    """Keep an upload that is still running from being taken for a crashed one."""
    due_at = func.now() + timedelta(seconds=lease_seconds)
    running = and_(files.c.state == "uploading", files.c.source.is_not(None))
    await writer.execute(update(files).where(files.c.id == file_id, running).values(due_at=due_at))
    pending = replicas.c.state == "pending"
    await writer.execute(update(replicas).where(replicas.c.file_id == file_id, pending).values(due_at=due_at))


async def record_replica(writer: Writer, replica_id: str, values: Mapping[str, Any]) -> None:
    """Record what became of one replica."""
    await writer.execute(update(replicas).where(replicas.c.id == replica_id).values(**values))


async def forget_nothing_stored(writer: Writer, file_id: str) -> None:
    """Remove the replicas of a failed upload that no provider can hold, and the file if none is left."""
    await writer.execute(delete(replicas).where(replicas.c.file_id == file_id, replicas.c.state == "failed"))
    await forget_file(writer, file_id)


async def file_replicas(reader: Reader, file_ids: Iterable[str]) -> Rows:
    """The living replicas of files, each with the model names that asked for it."""
    names = (
        select(func.array_agg(file_targets.c.model_name))
        .where(file_targets.c.file_id == replicas.c.file_id, file_targets.c.account == replicas.c.account)
        .scalar_subquery()
    )
    return await reader.all(
        select(replicas, names.label("model_names"))
        .where(replicas.c.file_id.in_(list(file_ids)), replicas.c.state != "deleting")
        .order_by(replicas.c.id)
    )


async def foreign_provider_files(
    reader: Reader, team_id: str, accounts: Sequence[str], provider_file_ids: Sequence[str]
) -> set[str]:
    """Which of these raw ids are replicas of another team's files."""
    rows = await reader.all(
        select(replicas.c.provider_file_id)
        .join(files, files.c.id == replicas.c.file_id)
        .where(
            replicas.c.account.in_(list(accounts)),
            replicas.c.provider_file_id.in_(list(provider_file_ids)),
            files.c.team_id != team_id,
        )
    )
    return {row["provider_file_id"] for row in rows}


async def discard_replicas(writer: Writer, file_id: str) -> None:
    """Have the worker delete whatever a failed upload has stored."""
    await writer.execute(to_deleting(func.now(), attempts=0).where(replicas.c.file_id == file_id))


def to_deleting(due_at: ColumnElement[datetime], *, attempts: int) -> Any:
    """The update, still without its file, by which stored replicas become due for deletion."""
    values = {"state": "deleting", "due_at": due_at, "attempts": attempts, "last_error": None}
    return update(replicas).where(replicas.c.state.in_(("stored", "processing", "failed"))).values(**values)


async def claim(writer: Writer, state: str, accounts: Collection[str], lease_seconds: float, limit: int) -> Rows:
    """Claim replicas that something is due for: to be deleted, asked about while processing, or looked for while
    pending.

    Those at other accounts than `accounts` are left to gateways whose configuration has them, for a while.
    """
    left_behind = replicas.c.due_at < func.now() - NOBODYS
    wanted = and_(replicas.c.state == state, or_(replicas.c.account.in_(list(accounts)), left_behind))
    return await claim_due(writer, replicas, wanted, lease_seconds=lease_seconds, limit=limit)


async def postpone(writer: Writer, replica_id: str, seconds: float, reason: str) -> None:
    """Try again later, and say why."""
    await writer.execute(
        update(replicas)
        .where(replicas.c.id == replica_id)
        .values(due_at=func.now() + timedelta(seconds=seconds), last_error=reason)
    )


async def forget_replica(writer: Writer, replica_id: str, file_id: str) -> None:
    """Remove the row of a replica that is gone, and its file's when nothing else is left of it."""
    await writer.execute(delete(replicas).where(replicas.c.id == replica_id))
    await forget_file(writer, file_id)


async def forget_file(writer: Writer, file_id: str) -> None:
    """Remove a deleted or failed file of which nothing is left, replica or source.

    The lock lets the second of two that end at once see that it is the last.
    """
    await writer.first(select(files.c.id).where(files.c.id == file_id).with_for_update())
    left = exists().where(replicas.c.file_id == file_id)
    ended = and_(files.c.state.in_(("deleting", "failed")), files.c.source.is_(None))
    await writer.execute(delete(files).where(files.c.id == file_id, ended, ~left))


async def settle_processing(writer: Writer, replica: Row, state: str, reason: str | None) -> None:
    """End the processing of a replica, unless its file was deleted meanwhile; chats see it at once."""
    ended = update(replicas).where(replicas.c.id == replica["id"], replicas.c.state == "processing")
    await writer.execute(ended.values(state=state, due_at=None, last_error=reason))
    await writer.notify(FILES_CHANNEL, replica["file_id"])


async def has_pending_twin(reader: Reader, replica: Row, file: Row) -> bool:
    """Whether another unfinished upload of the same name and size goes to the same account."""
    twin = (
        select(replicas.c.id)
        .join(files, files.c.id == replicas.c.file_id)
        .where(
            replicas.c.account == replica["account"],
            replicas.c.state == "pending",
            replicas.c.id != replica["id"],
            files.c.filename == file["filename"],
            or_(files.c.bytes.is_(None), files.c.bytes == file["bytes"]),
        )
    )
    return await reader.first(twin.limit(1)) is not None


async def known_provider_files(reader: Reader, account: str, provider_file_ids: Sequence[str]) -> set[str]:
    """Which of an account's files have a row."""
    column = replicas.c.provider_file_id
    rows = await reader.all(select(column).where(replicas.c.account == account, column.in_(list(provider_file_ids))))
    return {row["provider_file_id"] for row in rows}


async def adopt_for_deletion(writer: Writer, replica_id: str, provider_file_id: str) -> None:
    """A lost upload was found: delete it."""
    values = {"provider_file_id": provider_file_id, "state": "deleting", "due_at": func.now(), "attempts": 0}
    await record_replica(writer, replica_id, values)


async def record_suspects(writer: Writer, replica_id: str, suspects: Sequence[Mapping[str, Any]]) -> None:
    """A lost upload may be one of these; an operator has to decide."""
    reason = "the provider holds files that may be this upload; see orphan_suspects"
    values = {"state": "failed", "due_at": None, "suspects": list(suspects), "last_error": reason}
    await record_replica(writer, replica_id, values)


async def settle_as_failed(writer: Writer, replica_id: str, file_id: str) -> None:
    """A lost upload made no file at its provider."""
    reason = "the upload's answer was lost, and the provider has no such file"
    await record_replica(writer, replica_id, {"state": "failed", "due_at": None, "last_error": reason})
    await forget_failed_replica(writer, replica_id, file_id)


async def forget_failed_replica(writer: Writer, replica_id: str, file_id: str) -> None:
    """Remove the row if its file has failed as a whole; a ready file keeps it, to show what it lacks."""
    failed = select(files.c.id).where(files.c.id == file_id, files.c.state != "ready")
    await writer.execute(delete(replicas).where(replicas.c.id == replica_id, replicas.c.file_id.in_(failed)))
    await forget_file(writer, file_id)


async def replicas_by_account(database: Database) -> Rows:
    """How many replicas the rows have at each account."""
    async with database.read() as reader:
        counts = select(replicas.c.account, func.count().label("replicas")).group_by(replicas.c.account)
        return await reader.all(counts)


async def rename_account(database: Database, old: str, new: str) -> int:
    """Move every row of an account to another name; returns how many replicas.

    Raises BadRequest when a file is at both: they are two accounts, and not one that was renamed.
    """
    of_old = select(replicas.c.file_id).where(replicas.c.account == old)
    async with database.write() as writer:
        both = select(replicas.c.file_id).where(replicas.c.account == new, replicas.c.file_id.in_(of_old))
        if await writer.first(both.limit(1)) is not None:
            raise BadRequest(f"files are at both {old!r} and {new!r}: these are two accounts")
        await writer.execute(update(file_targets).where(file_targets.c.account == old).values(account=new))
        moved = await writer.execute(update(replicas).where(replicas.c.account == old).values(account=new))
        await writer.notify(FILES_CHANNEL, EVERYTHING)
        return moved


async def replica_counts(reader: Reader) -> Rows:
    """How many replicas each provider has in each state."""
    counts = select(replicas.c.provider, replicas.c.state, func.count().label("replicas"))
    return await reader.all(counts.group_by(replicas.c.provider, replicas.c.state))
