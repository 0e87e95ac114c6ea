"""All SQL about batches and their parts.

Who works on a batch holds its lease, a word that no other claim has; whatever is recorded is recorded only while that
still stands (`held`), so one whose lease has ended records nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, func, insert, or_, select, update

from app.db.claims import claim_due
from app.db.session import Reader, Row, Rows, Writer
from app.db.tables import batch_parts, batches, file_targets, idempotency_keys
from app.providers.protocol import ENDED

# How long a batch is left to the gateway that holds its lines.
LEFT_ALONE = timedelta(minutes=5)
CANCELLABLE = ("validating", "in_progress")
# A part as it is read; what tells its lines may be a megabyte, and is read once.
PART = [column for column in batch_parts.c if column.name != "custom_ids"]


def held(batch: Row) -> ColumnElement[bool]:
    """The row, while the claim holds."""
    return and_(batches.c.id == batch["id"], batches.c.lease == batch["lease"])


def _reached(reach: str | None, batch_id: str) -> ColumnElement[bool]:
    mine = batches.c.id == batch_id
    return mine if reach is None else and_(mine, batches.c.team_id == reach)


# --- create -----------------------------------------------------------------------------------------------------


async def insert_batch(
    writer: Writer, batch: Mapping[str, Any], parts: Sequence[Mapping[str, Any]], lease_seconds: float
) -> Row:
    """Commit what is about to be run: under its maker's lease, if that has one, else due now."""
    due_at = func.now() + timedelta(seconds=lease_seconds if batch["lease"] else 0)
    row = await writer.first(insert(batches).values(**batch, due_at=due_at).returning(batches))
    assert row is not None
    await writer.execute(insert(batch_parts), list(parts))
    return row


async def input_targets(reader: Reader, file_id: str) -> list[str]:
    """The model names that a file was uploaded for."""
    names = select(file_targets.c.model_name).where(file_targets.c.file_id == file_id).distinct()
    return [row["model_name"] for row in await reader.all(names.order_by(file_targets.c.model_name))]


async def find_first(reader: Reader, team_id: str, key: str) -> Row | None:
    """The batch that an idempotency key stands for, and what was asked for with it."""
    first = batches.join(idempotency_keys, idempotency_keys.c.subject == batches.c.id)
    mine = and_(idempotency_keys.c.team_id == team_id, idempotency_keys.c.key == key)
    return await reader.first(select(batches, idempotency_keys.c.request_sha256).select_from(first).where(mine))


# --- read -------------------------------------------------------------------------------------------------------


async def find_batch(reader: Reader, reach: str | None, batch_id: str) -> Row | None:
    """A batch that exists for a caller."""
    return await reader.first(select(batches).where(_reached(reach, batch_id)))


async def list_batches(reader: Reader, team_id: str, *, after: str | None, limit: int) -> Rows:
    """A page of a team's batches, newest first, by keyset: ids are time-ordered."""
    page = select(batches).where(batches.c.team_id == team_id)
    if after is not None:
        page = page.where(batches.c.id < after)
    return await reader.all(page.order_by(batches.c.id.desc()).limit(limit))


async def parts_of(reader: Reader, batch_id: str) -> Rows:
    """A batch's parts."""
    return await reader.all(select(*PART).where(batch_parts.c.batch_id == batch_id).order_by(batch_parts.c.id))


async def custom_ids_of(reader: Reader, part_id: str) -> bytes | None:
    """What tells a part's lines, as `lines` packs it."""
    row = await reader.first(select(batch_parts.c.custom_ids).where(batch_parts.c.id == part_id))
    return row["custom_ids"] if row else None


async def known_batches(reader: Reader, provider: str, provider_batch_ids: Sequence[str]) -> set[str]:
    """Which of a provider's batches have a row, at whichever account: two may be the same under different
    credentials."""
    column = batch_parts.c.provider_batch_id
    ours = and_(batch_parts.c.provider == provider, column.in_(list(provider_batch_ids)))
    return {row["provider_batch_id"] for row in await reader.all(select(column).where(ours))}


async def part_counts(reader: Reader) -> Rows:
    """How many parts each provider has in each state, but for those of which nothing is left there."""
    left = batch_parts.c.state != "gone"
    counts = select(batch_parts.c.provider, batch_parts.c.state, func.count().label("parts")).where(left)
    return await reader.all(counts.group_by(batch_parts.c.provider, batch_parts.c.state))


# --- claims -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claimer:
    """A gateway that would work on batches: the word of its lease, the store in which it keeps files, if it does, and
    those that it reads."""

    lease: str
    store: str | None
    stores: Collection[str]

    @property
    def may(self) -> ColumnElement[bool]:
        """What it may take on: a batch whose lines it holds, so that the results lie beside them, or one that nobody
        does for long; and what is only to be deleted."""
        over = batches.c.status.in_(ENDED)
        if self.store is None:
            return over
        left_alone = batches.c.due_at < func.now() - LEFT_ALONE
        return or_(over, batches.c.store.in_(list(self.stores)), left_alone)


async def claim(writer: Writer, claimer: Claimer, lease_seconds: float, limit: int) -> Rows:
    """Claim batches that something is due for."""
    values = {"lease": claimer.lease}
    return await claim_due(writer, batches, claimer.may, lease_seconds=lease_seconds, limit=limit, values=values)


async def claim_now(
    writer: Writer, claimer: Claimer, batch_id: str, lease_seconds: float, rest_seconds: float
) -> Row | None:
    """Claim a batch before it is due, unless somebody has it, its providers were asked just now, or one of them has
    failed: that is due when it says."""
    free = or_(and_(batches.c.lease.is_(None), batches.c.last_error.is_(None)), batches.c.due_at <= func.now())
    rested = or_(batches.c.looked_at.is_(None), batches.c.looked_at < func.now() - timedelta(seconds=rest_seconds))
    under_way = batches.c.status.in_(("in_progress", "finalizing", "cancelling"))
    ripe = (
        select(batches.c.id)
        .where(batches.c.id == batch_id, free, rested, under_way, claimer.may)
        .with_for_update(skip_locked=True)
    )
    values = {"lease": claimer.lease, "due_at": func.now() + timedelta(seconds=lease_seconds)}
    claimed = update(batches).where(batches.c.id.in_(ripe.scalar_subquery()))
    return await writer.first(claimed.values(**values, attempts=batches.c.attempts + 1).returning(batches))


async def renew(writer: Writer, lease_seconds: float, *, batch: Row) -> None:
    """Keep a claim."""
    due_at = func.now() + timedelta(seconds=lease_seconds)
    await writer.execute(update(batches).where(held(batch)).values(due_at=due_at))


async def record(writer: Writer, batch: Row, values: Mapping[str, Any], *, status: str | None = None) -> Row | None:
    """Record something about a batch while the claim holds, and while its status is the one given; the row as it is
    then, or None."""
    mine = held(batch) if status is None else and_(held(batch), batches.c.status == status)
    return await writer.first(update(batches).where(mine).values(**values).returning(batches))


async def release(writer: Writer, batch: Row, wait_seconds: float | None, last_error: str | None) -> None:
    """End a claim: due again after so many seconds, or never; now, if somebody has asked for something else meanwhile.
    Attempts are counted while they fail."""
    due_at = None if wait_seconds is None else func.now() + timedelta(seconds=wait_seconds)
    changed = batches.c.status != batch["status"]
    values = {
        "due_at": case((changed, func.now()), else_=due_at),
        "lease": None,
        "last_error": last_error,
        "attempts": batches.c.attempts if last_error else 0,
    }
    await writer.execute(update(batches).where(held(batch)).values(**values))


async def record_part(
    writer: Writer, batch: Row, part_id: str, values: Mapping[str, Any], *, status: str | None = None
) -> Row | None:
    """Record something about a part while the batch's claim holds, and while its status is the one given; the row as it
    is then, or None."""
    wanted = held(batch) if status is None else and_(held(batch), batches.c.status == status)
    mine = and_(batch_parts.c.id == part_id, exists().where(wanted))
    return await writer.first(update(batch_parts).where(mine).values(**values).returning(*PART))


async def add_surplus(writer: Writer, part: Row, provider_batch_id: str) -> None:
    """Note a batch that was created for a part by one whose claim was lost meanwhile: it is stopped and forgotten. If
    the batch is over already, whoever is about to call it done holds no claim any more."""
    over = batches.c.status.in_(ENDED)
    values = {
        "lease": case((over, None), else_=batches.c.lease),
        "due_at": case((over, func.now()), else_=batches.c.due_at),
    }
    await writer.execute(update(batches).where(batches.c.id == part["batch_id"]).values(**values))
    noted = func.array_append(batch_parts.c.surplus_batch_ids, provider_batch_id)
    await writer.execute(update(batch_parts).where(batch_parts.c.id == part["id"]).values(surplus_batch_ids=noted))


# --- cancel -----------------------------------------------------------------------------------------------------


async def cancel(writer: Writer, reach: str | None, batch_id: str) -> Row | None:
    """Ask for a batch to be cancelled: due now, or as soon as whoever works on it is done. None when it cannot be."""
    mine = and_(_reached(reach, batch_id), batches.c.status.in_(CANCELLABLE))
    due_at = case((batches.c.lease.is_(None), func.now()), else_=batches.c.due_at)
    values = {"status": "cancelling", "cancelling_at": func.now(), "due_at": due_at}
    return await writer.first(update(batches).where(mine).values(**values).returning(batches))
