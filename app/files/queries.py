"""All SQL about files, their targets and their replicas. Each query that a caller's id reaches is bound to a team."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from app.db.claims import claim_due
from app.db.notify import EVERYTHING
from app.db.session import Database, Reader, Row, Rows, Writer
from app.db.tables import file_targets, files, replicas

FILES_CHANNEL = "filemux_files"


def _visible(reach: str | None) -> ColumnElement[bool]:
    """Files that exist for a caller: ready, not expired, of the team that it reaches (None: every team's)."""
    alive = and_(files.c.state == "ready", or_(files.c.expires_at.is_(None), files.c.expires_at > func.now()))
    return alive if reach is None else and_(alive, files.c.team_id == reach)


# --- upload -----------------------------------------------------------------------------------------------------


async def insert_intent(
    writer: Writer,
    file: Mapping[str, Any],
    replica_rows: Sequence[Mapping[str, Any]],
    targets: Sequence[tuple[str, str]],
) -> None:
    """Write down what an upload is about to do: the file, a pending replica per account, (model name, account)."""
    await writer.execute(insert(files).values(state="uploading", **file))
    file_id = file["id"]
    await writer.execute(insert(replicas), [{"file_id": file_id, "state": "pending", **row} for row in replica_rows])
    rows = [{"file_id": file_id, "model_name": name, "account": account} for name, account in targets]
    await writer.execute(insert(file_targets), rows)


async def renew_lease(writer: Writer, file_id: str, lease_seconds: float) -> None:
    """Keep an upload that is still running from being taken for a crashed one."""
    await writer.execute(
        update(replicas)
        .where(replicas.c.file_id == file_id, replicas.c.state == "pending")
        .values(due_at=func.now() + timedelta(seconds=lease_seconds))
    )


async def record_replica(writer: Writer, replica_id: str, values: Mapping[str, Any]) -> None:
    """Record what became of one replica."""
    await writer.execute(update(replicas).where(replicas.c.id == replica_id).values(**values))


async def finish_file(writer: Writer, file_id: str, values: Mapping[str, Any]) -> Row | None:
    """End an upload; None when somebody else has ended it."""
    return await writer.first(
        update(files).where(files.c.id == file_id, files.c.state == "uploading").values(**values).returning(files)
    )


async def forget_nothing_stored(writer: Writer, file_id: str) -> None:
    """Remove the replicas of a failed upload that no provider can hold, and the file if none is left."""
    await writer.execute(delete(replicas).where(replicas.c.file_id == file_id, replicas.c.state == "failed"))
    await forget_file(writer, file_id)


# --- read -------------------------------------------------------------------------------------------------------


async def find_file(reader: Reader, reach: str | None, file_id: str) -> Row | None:
    """A file that exists for a caller."""
    return await reader.first(select(files).where(files.c.id == file_id, _visible(reach)))


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


async def list_files(
    reader: Reader, team_id: str, *, after: str | None, limit: int, descending: bool, purpose: str | None
) -> Rows:
    """A page of a team's files by keyset: ids are time-ordered, so the id alone is the key."""
    page = select(files).where(_visible(team_id))
    if purpose is not None:
        page = page.where(files.c.purpose == purpose)
    if after is not None:
        page = page.where(files.c.id < after if descending else files.c.id > after)
    order = files.c.id.desc() if descending else files.c.id.asc()
    return await reader.all(page.order_by(order).limit(limit))


async def find_mapping(reader: Reader, file_id: str) -> Rows:
    """A ready file and where its stored replicas are; one row per replica, provider columns null without any."""
    stored = and_(replicas.c.file_id == files.c.id, replicas.c.state == "stored")
    return await reader.all(
        select(files.c.team_id, files.c.expires_at, replicas.c.account, replicas.c.provider_file_id)
        .select_from(files.outerjoin(replicas, stored))
        .where(files.c.id == file_id, _visible(None))
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


# --- delete and expire ------------------------------------------------------------------------------------------


async def mark_deleting(writer: Writer, reach: str | None, file_id: str, lease_seconds: float) -> Rows | None:
    """Delete a file for everybody, and claim its replicas. None when there is no such file for this caller."""
    marked = update(files).where(files.c.id == file_id, _visible(reach)).values(state="deleting")
    if await writer.first(marked.returning(files.c.id)) is None:
        return None
    await writer.notify(FILES_CHANNEL, file_id)
    due_at = func.now() + timedelta(seconds=lease_seconds)
    rows = await writer.all(_to_deleting(due_at, attempts=1).where(replicas.c.file_id == file_id).returning(replicas))
    await forget_file(writer, file_id)
    return rows


async def discard_replicas(writer: Writer, file_id: str) -> None:
    """Have the worker delete whatever a failed upload has stored."""
    await writer.execute(_to_deleting(func.now(), attempts=0).where(replicas.c.file_id == file_id))


def _to_deleting(due_at: ColumnElement[datetime], *, attempts: int) -> Any:
    values = {"state": "deleting", "due_at": due_at, "attempts": attempts, "last_error": None}
    return update(replicas).where(replicas.c.state.in_(("stored", "processing", "failed"))).values(**values)


async def claim_deleting(writer: Writer, lease_seconds: float, limit: int) -> Rows:
    """Claim replicas that are to be deleted now."""
    return await claim_due(writer, replicas, replicas.c.state == "deleting", lease_seconds=lease_seconds, limit=limit)


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
    """Remove a deleted or failed file that has no replicas left; the lock lets only one of two last replicas see it."""
    await writer.first(select(files.c.id).where(files.c.id == file_id).with_for_update())
    left = exists().where(replicas.c.file_id == file_id)
    await writer.execute(delete(files).where(files.c.id == file_id, files.c.state.in_(("deleting", "failed")), ~left))


async def expire_files(writer: Writer, limit: int) -> int:
    """Mark files whose time has come as deleting, their replicas due now; returns how many."""
    ripe = (
        select(files.c.id)
        .where(files.c.state == "ready", files.c.expires_at <= func.now())
        .order_by(files.c.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = await writer.all(
        update(files).where(files.c.id.in_(ripe.scalar_subquery())).values(state="deleting").returning(files.c.id)
    )
    for row in rows:
        await writer.notify(FILES_CHANNEL, row["id"])
        await discard_replicas(writer, row["id"])
        await forget_file(writer, row["id"])
    return len(rows)


# --- repair -----------------------------------------------------------------------------------------------------


async def claim_pending(writer: Writer, lease_seconds: float, limit: int) -> Rows:
    """Claim replicas whose upload nobody has ended."""
    return await claim_due(writer, replicas, replicas.c.state == "pending", lease_seconds=lease_seconds, limit=limit)


async def fail_crashed_upload(writer: Writer, file_id: str) -> Row:
    """The file of such a replica; if it is still uploading, its gateway is gone and it has failed. What other
    accounts have stored of it is to be deleted."""
    if await finish_file(writer, file_id, {"state": "failed"}) is not None:
        await discard_replicas(writer, file_id)
    file = await writer.first(select(files).where(files.c.id == file_id))
    assert file is not None, "a file's row outlives its replicas'"
    return file


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


# --- counting ---------------------------------------------------------------------------------------------------


async def replicas_by_account(database: Database) -> Rows:
    """How many replicas the rows have at each account."""
    async with database.read() as reader:
        counts = select(replicas.c.account, func.count().label("replicas")).group_by(replicas.c.account)
        return await reader.all(counts)


async def rename_account(database: Database, old: str, new: str) -> int:
    """Move every row of an account to another name; returns how many replicas."""
    async with database.write() as writer:
        await writer.execute(update(file_targets).where(file_targets.c.account == old).values(account=new))
        moved = await writer.execute(update(replicas).where(replicas.c.account == old).values(account=new))
        await writer.notify(FILES_CHANNEL, EVERYTHING)
        return moved


async def replica_counts(reader: Reader) -> Rows:
    """How many replicas each provider has in each state."""
    counts = select(replicas.c.provider, replicas.c.state, func.count().label("replicas"))
    return await reader.all(counts.group_by(replicas.c.provider, replicas.c.state))
