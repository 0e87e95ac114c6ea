"""All SQL about accounts."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import and_, delete, func, literal, select, tuple_, union_all, update

from app.db.notify import EVERYTHING
from app.db.session import Database, Rows, Writer
from app.db.tables import batch_parts, batches, file_targets, replicas
from app.errors import BadRequest
from app.files.replicas.queries import FILES_CHANNEL

# A row that nobody has claimed for so long is at an account that no gateway has.
NOBODYS = timedelta(minutes=1)


async def block(writer: Writer, accounts: Collection[str], file_id: str | None = None) -> int:
    """Take what is due at other accounts than these out of the queue, with the reason; returns how many.

    For a deleted file at once; else what no gateway has claimed for NOBODYS.
    """
    due = replicas.c.due_at < func.now() - NOBODYS if file_id is None else replicas.c.file_id == file_id
    foreign = and_(replicas.c.due_at.is_not(None), replicas.c.account.not_in(list(accounts)))
    reason = func.concat("blocked: the account ", replicas.c.account, " is not in the configuration")
    values = {"blocked": True, "due_at": None, "last_error": reason}
    return await writer.execute(update(replicas).where(due, foreign).values(**values))


async def unblock(writer: Writer, accounts: Collection[str]) -> int:
    """What waited for one of these accounts is due now; returns how many."""
    waiting = and_(replicas.c.blocked, replicas.c.account.in_(list(accounts)))
    values = {"blocked": False, "due_at": func.now(), "last_error": None}
    return await writer.execute(update(replicas).where(waiting).values(**values))


async def held_by_account(database: Database) -> Rows:
    """What the rows have at each account: so many `replicas`, and parts of `batches` that are not over."""
    of_files = select(replicas.c.account, literal(1).label("replicas"), literal(0).label("batches"))
    of_batches = select(batch_parts.c.account, literal(0), literal(1)).where(batch_parts.c.state != "gone")
    one = union_all(of_files, of_batches).subquery().c
    sums = (func.sum(column).label(column.name) for column in (one.replicas, one.batches))
    async with database.read() as reader:
        return await reader.all(select(one.account, *sums).group_by(one.account))


async def rename_account(database: Database, old: str, new: str) -> int:
    """Move every row of an account to another name; returns how many replicas. What waited for the account is due.

    Raises BadRequest when a file is at both: they are two accounts, and not one that was renamed.
    """
    of_old = select(replicas.c.file_id).where(replicas.c.account == old)
    async with database.write() as writer:
        both = select(replicas.c.file_id).where(replicas.c.account == new, replicas.c.file_id.in_(of_old))
        if await writer.first(both.limit(1)) is not None:
            raise BadRequest(f"files are at both {old!r} and {new!r}: these are two accounts")
        # A file may have been wanted at both, though it is at one.
        wanted = (file_targets.c.file_id, file_targets.c.model_name)
        at_new = tuple_(*wanted).in_(select(*wanted).where(file_targets.c.account == new))
        await writer.execute(delete(file_targets).where(file_targets.c.account == old, at_new))
        await writer.execute(update(file_targets).where(file_targets.c.account == old).values(account=new))
        moved = await writer.execute(update(replicas).where(replicas.c.account == old).values(account=new))
        await writer.execute(update(batch_parts).where(batch_parts.c.account == old).values(account=new))
        of_new = batches.c.id.in_(select(batch_parts.c.batch_id).where(batch_parts.c.account == new))
        waiting = and_(of_new, batches.c.lease.is_(None), batches.c.due_at.is_not(None))
        await writer.execute(update(batches).where(waiting).values(due_at=func.now(), attempts=0))
        await writer.notify(FILES_CHANNEL, EVERYTHING)
        return moved
