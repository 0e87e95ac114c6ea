"""All SQL about replicas that are made after the upload."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, text, update

from app.db.claims import claim_due
from app.db.session import Reader, Row, Rows, Writer
from app.db.tables import files, replicas
from app.files.replicas.queries import FILES_CHANNEL, LIVE, NEVER_BEGUN, held

# One statement, so that of any number of makers one gets the row: a new one, or one whose turn to be tried has come.
# Each gets it with a new id: where the file bears that name, one that was given up for dead does not meet the next.
_BEGIN = text(
    """
    INSERT INTO replicas (id, file_id, account, provider, state, due_at, attempts)
    SELECT :id, id, :account, :provider, 'pending', now() + :lease * interval '1 second', 1
    FROM files WHERE id = :file_id AND state = 'ready'
    ON CONFLICT (file_id, account) WHERE state <> 'deleting' AND replaces IS NULL
    DO UPDATE SET id = excluded.id, state = 'pending', due_at = excluded.due_at, created_at = now(), looks = 0,
                  lost_at = NULL, attempts = replicas.attempts + 1
    WHERE (replicas.state = 'failed' AND replicas.due_at <= now())
       OR (replicas.state = 'pending' AND replicas.attempts = 0)
    RETURNING *
    """
)


async def begin(
    writer: Writer, replica_id: str, file_id: str, account: str, provider: str, lease_seconds: float
) -> Row | None:
    """Claim the making of a ready file's replica at an account; None when it is there, or somebody else makes it."""
    values = {"id": replica_id, "file_id": file_id, "account": account, "provider": provider, "lease": lease_seconds}
    replica = await writer.first(_BEGIN, values)
    if replica is not None:
        await writer.notify(FILES_CHANNEL, file_id)
    return replica


_TARGET = text(
    """
    INSERT INTO file_targets (file_id, model_name, account)
    SELECT id, :model_name, :account FROM files WHERE id = :file_id
    ON CONFLICT DO NOTHING
    """
)


async def add_target(writer: Writer, file_id: str, model_name: str, account: str) -> None:
    """A file is wanted for a model name that its upload did not name."""
    await writer.execute(_TARGET, {"file_id": file_id, "model_name": model_name, "account": account})


async def claim_wanted(
    writer: Writer, accounts: Collection[str], stores: Collection[str], lease_seconds: float, limit: int
) -> Rows:
    """Claim the making of replicas that are due to be made or tried again, of files that can be read here."""
    readable = or_(files.c.source.is_(None), files.c.source.in_(list(stores)))
    ready = exists().where(files.c.id == replicas.c.file_id, files.c.state == "ready", readable)
    failed = and_(replicas.c.state == "failed", replicas.c.suspects.is_(None))
    wanted = and_(replicas.c.account.in_(list(accounts)), or_(failed, NEVER_BEGUN), ready)
    begun = {
        "id": func.replace(func.text(func.gen_random_uuid()), "-", ""),
        "state": "pending",
        "created_at": func.now(),
        "looks": 0,
        "lost_at": None,
    }
    rows = await claim_due(writer, replicas, wanted, lease_seconds=lease_seconds, limit=limit, values=begun)
    for row in rows:
        await writer.notify(FILES_CHANNEL, row["file_id"])
    return rows


async def renew_claim(writer: Writer, lease_seconds: float, *, replica: Row) -> None:
    """Keep a backfill that is still running from being taken for a crashed one."""
    due_at = func.now() + timedelta(seconds=lease_seconds)
    await writer.execute(update(replicas).where(held(replica)).values(due_at=due_at))


# --- refresh ----------------------------------------------------------------------------------------------------

_REFRESH = text(
    """
    INSERT INTO replicas (id, file_id, account, provider, state, due_at, replaces)
    SELECT replace(gen_random_uuid()::text, '-', ''), old.file_id, old.account, old.provider, 'pending', now(), old.id
    FROM replicas old JOIN files ON files.id = old.file_id
    WHERE old.state = 'stored' AND old.replaces IS NULL
      AND old.expires_at BETWEEN now() AND now() + CAST(:ahead AS interval)
      AND old.used_at >= now() - CAST(:used_within AS interval)
      AND old.account = ANY(CAST(:accounts AS text[])) AND files.source = ANY(CAST(:stores AS text[]))
      AND files.state = 'ready' AND (files.expires_at IS NULL OR files.expires_at > old.expires_at + interval '1 hour')
      AND NOT EXISTS (SELECT FROM replicas new WHERE new.replaces = old.id AND new.state <> 'deleting')
    ORDER BY old.expires_at
    LIMIT :limit
    FOR SHARE OF files
    ON CONFLICT DO NOTHING
    RETURNING id
    """
)


async def record_used(writer: Writer, replica_ids: Collection[str]) -> None:
    """Chats have referred to these replicas; written once a minute at most."""
    stale = or_(replicas.c.used_at.is_(None), replicas.c.used_at < func.now() - timedelta(minutes=1))
    await writer.execute(
        update(replicas).where(replicas.c.id.in_(sorted(replica_ids)), stale).values(used_at=func.now())
    )


async def want_refreshed(
    writer: Writer,
    accounts: Collection[str],
    stores: Collection[str],
    ahead: timedelta,
    used_within: timedelta,
    limit: int,
) -> int:
    """Have replicas made anew that expire within `ahead` and were used within `used_within`; returns how many."""
    values = {"ahead": ahead, "used_within": used_within, "limit": limit}
    values |= {"accounts": list(accounts), "stores": list(stores)}
    return len(await writer.all(_REFRESH, values))


# --- sync -------------------------------------------------------------------------------------------------------

# Nothing more happens to it by itself.
_OVER = and_(replicas.c.state.in_(("stored", "failed")), replicas.c.due_at.is_(None), ~replicas.c.blocked)

# The lock keeps a file from being deleted between its look and its replica. What has failed for good is tried again,
# unless the provider may hold something of it.
_WANT_SYNCED = text(
    """
    WITH page AS (
        SELECT id FROM files
        WHERE state = 'ready' AND (expires_at IS NULL OR expires_at > now()) AND id > :after
          AND (CAST(:team_id AS text) IS NULL OR team_id = :team_id)
          AND purpose = ANY(CAST(:purposes AS text[])) AND bytes <= CAST(:max_bytes AS numeric)
          AND (source IS NULL OR source = ANY(CAST(:stores AS text[])))
        ORDER BY id LIMIT :limit
        FOR SHARE
    ), wanted AS (
        INSERT INTO replicas (id, file_id, account, provider, state, due_at)
        SELECT replace(gen_random_uuid()::text, '-', ''), id, :account, :provider, 'pending', now() FROM page
        ON CONFLICT (file_id, account) WHERE state <> 'deleting' AND replaces IS NULL
        DO UPDATE SET due_at = excluded.due_at
        WHERE replicas.state = 'failed' AND replicas.due_at IS NULL
          AND replicas.suspects IS NULL AND replicas.provider_file_id IS NULL
    ), named AS (
        INSERT INTO file_targets (file_id, model_name, account)
        SELECT id, :model_name, :account FROM page
        ON CONFLICT DO NOTHING
    )
    SELECT max(id) AS last FROM page
    """
)


async def want_synced(writer: Writer, wanted: Mapping[str, Any], after: str, limit: int) -> str | None:
    """Have replicas made of the next files at one account; the last file's id, None when there was none."""
    page = await writer.first(_WANT_SYNCED, {**wanted, "after": after, "limit": limit})
    assert page is not None
    return cast("str | None", page["last"])


async def sync_progress(reader: Reader, accounts: Collection[str], team_id: str | None) -> Row:
    """How many files are stored at all of these accounts, waiting for one of them, or have failed for good."""
    of_file = (
        select(
            func.bool_and(replicas.c.state == "stored").label("stored"),
            func.bool_or(~_OVER).label("waiting"),
        )
        .join(files, files.c.id == replicas.c.file_id)
        .where(*_synced(accounts, team_id))
        .group_by(replicas.c.file_id)
        .subquery()
    )
    stored, waiting = of_file.c.stored, of_file.c.waiting
    counts = await reader.first(
        select(
            func.count().label("files"),
            func.count().filter(stored).label("stored"),
            func.count().filter(waiting).label("waiting"),
            func.count().filter(~stored, ~waiting).label("failed"),
        ).select_from(of_file)
    )
    assert counts is not None
    return counts


async def sync_failures(reader: Reader, accounts: Collection[str], team_id: str | None, limit: int) -> Rows:
    """The newest files that have failed for good at one of these accounts, and why."""
    columns = (replicas.c.file_id, files.c.filename, replicas.c.account, replicas.c.last_error)
    failed = and_(replicas.c.state == "failed", _OVER)
    found = select(*columns).join(files, files.c.id == replicas.c.file_id).where(failed, *_synced(accounts, team_id))
    return await reader.all(found.order_by(replicas.c.file_id.desc()).limit(limit))


def _synced(accounts: Collection[str], team_id: str | None) -> list[ColumnElement[bool]]:
    of_team = [] if team_id is None else [files.c.team_id == team_id]
    return [replicas.c.account.in_(list(accounts)), LIVE, files.c.state == "ready", *of_team]
