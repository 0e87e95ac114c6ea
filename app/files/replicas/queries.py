"""All SQL about replicas: what became of them, what is due, and what is known of an account's files.

Who settles a claimed row does so only while the claim holds (`held`): a row that was claimed or settled by another
meanwhile, because the lease ended first, is left as the other has made it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from app.db.claims import claim_due
from app.db.session import Reader, Row, Rows, Writer
from app.db.tables import file_targets, files, replicas

# On this channel a file's id tells every process that its mapping has changed.
FILES_CHANNEL = "filemux_files"

# What the view replica_backlog shows; and what has failed while it is due again.
BACKLOG_STATES = ("pending", "processing", "deleting")
# What stands for its file at its account: there is one at most.
LIVE = and_(replicas.c.state != "deleting", replicas.c.replaces.is_(None))
# Held by its provider, as far as we know; and not any more, by its own date.
_HELD_THERE = replicas.c.state.in_(("stored", "processing"))
_EXPIRED = and_(_HELD_THERE, replicas.c.expires_at <= func.now())
# Wanted, but its upload has not begun: there is nothing to look for.
NEVER_BEGUN = and_(replicas.c.state == "pending", replicas.c.attempts == 0)


def held(claimed: Row) -> ColumnElement[bool]:
    """The row, as its claim has left it: each claim counts an attempt."""
    return and_(*(replicas.c[name] == claimed[name] for name in ("id", "state", "attempts")))


# --- read -------------------------------------------------------------------------------------------------------


async def file_replicas(reader: Reader, file_ids: Iterable[str]) -> Rows:
    """The living replicas of files, each with the model names that asked for it."""
    names = (
        select(func.array_agg(file_targets.c.model_name))
        .where(file_targets.c.file_id == replicas.c.file_id, file_targets.c.account == replicas.c.account)
        .scalar_subquery()
    )
    return await reader.all(
        select(replicas, names.label("model_names"))
        .where(replicas.c.file_id.in_(list(file_ids)), LIVE)
        .order_by(replicas.c.id)
    )


async def known_provider_files(reader: Reader, provider: str, provider_file_ids: Sequence[str]) -> set[str]:
    """Which of a provider's files have a row, at whichever account: two may be the same under different credentials."""
    column = replicas.c.provider_file_id
    rows = await reader.all(select(column).where(replicas.c.provider == provider, column.in_(list(provider_file_ids))))
    return {row["provider_file_id"] for row in rows}


async def has_pending_twin(reader: Reader, replica: Row, file: Row) -> bool:
    """Whether another unfinished upload of the same name and size goes to the same account, or that of another file to
    one at the same provider."""
    elsewhere = and_(replicas.c.provider == replica["provider"], replicas.c.file_id != replica["file_id"])
    twin = (
        select(replicas.c.id)
        .join(files, files.c.id == replicas.c.file_id)
        .where(
            or_(replicas.c.account == replica["account"], elsewhere),
            replicas.c.state == "pending",
            replicas.c.id != replica["id"],
            files.c.filename == file["filename"],
            or_(files.c.bytes.is_(None), files.c.bytes == file["bytes"]),
        )
    )
    return await reader.first(twin.limit(1)) is not None


async def replica_counts(reader: Reader) -> Rows:
    """How many replicas each provider has in each state, for how many of them something is to be done, and for how
    many that is blocked."""
    to_be_done = or_(replicas.c.state.in_(BACKLOG_STATES), replicas.c.due_at.is_not(None), replicas.c.blocked)
    counts = select(
        replicas.c.provider,
        replicas.c.state,
        func.count().label("replicas"),
        func.count().filter(to_be_done).label("waiting"),
        func.count().filter(replicas.c.blocked).label("blocked"),
    )
    return await reader.all(counts.group_by(replicas.c.provider, replicas.c.state))


# --- upload -----------------------------------------------------------------------------------------------------


async def renew_lease(writer: Writer, lease_seconds: float, *, file_id: str) -> None:
    """Keep an upload that is still running from being taken for a crashed one."""
    due_at = func.now() + timedelta(seconds=lease_seconds)
    running = and_(files.c.state == "uploading", files.c.source.is_not(None))
    await writer.execute(update(files).where(files.c.id == file_id, running).values(due_at=due_at))
    pending = replicas.c.state == "pending"
    await writer.execute(update(replicas).where(replicas.c.file_id == file_id, pending).values(due_at=due_at))


async def record_replica(writer: Writer, replica_id: str, values: Mapping[str, Any]) -> int:
    """Record what became of one replica; returns 0 when its row is gone, or what is to be looked for is found."""
    mine = replicas.c.id == replica_id
    if values["state"] == "pending":
        mine = and_(mine, replicas.c.provider_file_id.is_(None))
    return await writer.execute(update(replicas).where(mine).values(**values))


async def forget_nothing_stored(writer: Writer, file_id: str) -> None:
    """Remove the replicas of a failed upload that no provider can hold, and the file if none is left."""
    await writer.execute(delete(replicas).where(replicas.c.file_id == file_id, replicas.c.state == "failed"))
    await forget_file(writer, file_id)


# --- due --------------------------------------------------------------------------------------------------------


async def claim(writer: Writer, state: str, accounts: Collection[str], lease_seconds: float, limit: int) -> Rows:
    """Claim replicas at our accounts that something is due for: to be deleted, asked about while processing, or
    looked for while pending."""
    wanted = and_(replicas.c.state == state, replicas.c.account.in_(list(accounts)), ~NEVER_BEGUN)
    # It was due first when its upload's lease had passed, or its answer was lost.
    lost = {"lost_at": func.coalesce(replicas.c.lost_at, replicas.c.due_at)} if state == "pending" else None
    return await claim_due(writer, replicas, wanted, lease_seconds=lease_seconds, limit=limit, values=lost)


async def postpone(writer: Writer, replica: Row, seconds: float, reason: str) -> None:
    """Try again later, and say why."""
    due_at = func.now() + timedelta(seconds=seconds)
    await writer.execute(update(replicas).where(held(replica)).values(due_at=due_at, last_error=reason))


async def settle(writer: Writer, replica: Row, values: Mapping[str, Any]) -> bool:
    """End a claim with the row's new values; chats see it at once. False when the claim does not hold any more."""
    settled = await writer.execute(update(replicas).where(held(replica)).values(**values))
    if settled:
        await writer.notify(FILES_CHANNEL, replica["file_id"])
    return bool(settled)


async def record_made(writer: Writer, replica: Row, values: Mapping[str, Any]) -> bool:
    """Record how the upload of one replica of a ready file has ended, as `settle` does.

    A provider's file that is not wanted any more becomes due for deletion; one that was made to take another's place
    does so.
    """
    file = await writer.first(select(files.c.state).where(files.c.id == replica["file_id"]).with_for_update())
    if await writer.first(select(replicas.c.id).where(held(replica)).with_for_update()) is None:
        return False
    made = values["state"] in ("stored", "processing")
    if made and replica["replaces"] is not None:
        values = {**values, "replaces": None}
        old = and_(replicas.c.id == replica["replaces"], _HELD_THERE)
        await writer.execute(to_deleting(func.now(), attempts=0).where(old))
    wanted = file is not None and file["state"] == "ready"
    # What may have been made is still looked for; what was not is forgotten with its file.
    if (not wanted and values["state"] != "pending") or (made and await _has_another(writer, replica)):
        values = {"provider_file_id": values.get("provider_file_id"), "state": "deleting", "due_at": func.now()}
    return await settle(writer, replica, values)


async def _has_another(writer: Writer, replica: Row) -> bool:
    here = and_(replicas.c.file_id == replica["file_id"], replicas.c.account == replica["account"])
    others = select(replicas.c.id).where(here, LIVE, replicas.c.id != replica["id"])
    return await writer.first(others) is not None


async def discard_untracked(writer: Writer, file: Mapping[str, Any], replica: Mapping[str, Any]) -> None:
    """Have a provider's file deleted whose row was given up before its upload ended, and the file's row with it."""
    if await known_provider_files(writer, replica["provider"], [replica["provider_file_id"]]):
        return
    of_file = ("id", "team_id", "created_by", "filename", "purpose", "mime_type")
    values = {name: file[name] for name in of_file if name in file}
    await writer.execute(insert(files).values(**values, state="failed").on_conflict_do_nothing())
    await writer.execute(insert(replicas).values(**replica, file_id=file["id"], state="deleting", due_at=func.now()))


async def forget_replica(writer: Writer, replica: Row) -> None:
    """Remove the row of a replica that is gone or was never made, and its file's when nothing else is left of it."""
    await writer.execute(delete(replicas).where(held(replica)))
    await forget_file(writer, replica["file_id"])


async def forget_file(writer: Writer, file_id: str) -> None:
    """Remove a deleted or failed file of which nothing is left, replica or source.

    The lock lets the second of two that end at once see that it is the last.
    """
    await writer.first(select(files.c.id).where(files.c.id == file_id).with_for_update())
    left = exists().where(replicas.c.file_id == file_id)
    ended = and_(files.c.state.in_(("deleting", "failed")), files.c.source.is_(None))
    await writer.execute(delete(files).where(files.c.id == file_id, ended, ~left))


# --- delete -----------------------------------------------------------------------------------------------------


async def discard_replicas(writer: Writer, file_id: str) -> None:
    """Have the worker delete whatever a failed upload has stored."""
    await writer.execute(to_deleting(func.now(), attempts=0).where(replicas.c.file_id == file_id))


def to_deleting(due_at: ColumnElement[datetime], *, attempts: int) -> Any:
    """The update, still without its file, by which replicas become due for deletion. What is still running ends by
    itself; what is suspected is the operator's."""
    settled = and_(replicas.c.state.in_(("stored", "processing", "failed")), replicas.c.suspects.is_(None))
    values = {"state": "deleting", "due_at": due_at, "attempts": attempts, "last_error": None}
    return update(replicas).where(or_(settled, NEVER_BEGUN)).values(**values)


async def expire_replicas(writer: Writer, limit: int) -> int:
    """Mark replicas whose provider deletes them by now as deleting; returns how many."""
    ripe = (
        select(replicas.c.id)
        .where(_EXPIRED)
        .order_by(replicas.c.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return await _delete_some(writer, replicas.c.id.in_(ripe.scalar_subquery()))


async def expire_replica(writer: Writer, file_id: str, account: str) -> bool:
    """The same for one file's at an account, if its time has come."""
    here = and_(replicas.c.file_id == file_id, replicas.c.account == account)
    return bool(await _delete_some(writer, and_(here, _EXPIRED)))


async def lose_replica(writer: Writer, replica_id: str) -> bool:
    """A provider holds a stored replica no more: it is deleted, so that it can be made again."""
    return bool(await _delete_some(writer, and_(replicas.c.id == replica_id, replicas.c.state == "stored")))


async def _delete_some(writer: Writer, which: ColumnElement[bool]) -> int:
    rows = await writer.all(to_deleting(func.now(), attempts=0).where(which).returning(replicas.c.file_id))
    for row in rows:
        await writer.notify(FILES_CHANNEL, row["file_id"])
    return len(rows)
