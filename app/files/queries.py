"""All SQL about files, their targets and their replicas. Each query that a caller's id reaches is bound to a team."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import ColumnElement, and_, case, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from app import ids
from app.access import idempotency
from app.access.queries import free_idempotency_key
from app.db.claims import claim_due
from app.db.session import Database, Reader, Row, Rows, Writer
from app.db.tables import files, idempotency_keys, replicas
from app.files.accounts.queries import block
from app.files.replicas.queries import FILES_CHANNEL, LIVE, discard_replicas, forget_file, to_deleting


def _visible(reach: str | None) -> ColumnElement[bool]:
    """Files that exist for a caller: ready, not expired, of the team that it reaches (None: every team's)."""
    alive = and_(files.c.state == "ready", or_(files.c.expires_at.is_(None), files.c.expires_at > func.now()))
    return alive if reach is None else and_(alive, files.c.team_id == reach)


def _named(file_id: str) -> ColumnElement[bool]:
    """The file that has this id, or had it before it was imported."""
    return (files.c.imported_id if ids.is_imported_id(file_id) else files.c.id) == file_id


# --- upload -----------------------------------------------------------------------------------------------------


# One statement, so one round trip and no BEGIN and COMMIT around it.
_INTENT = text(
    """
    WITH file AS (
        INSERT INTO files (id, team_id, created_by, filename, purpose, mime_type, bytes, upload_policy, state,
                           created_at, expires_at, source, due_at)
        VALUES (:id, :team_id, :created_by, :filename, :purpose, :mime_type, :bytes, :upload_policy, 'uploading',
                :created_at, :expires_at, CAST(:source AS text),
                CASE WHEN CAST(:source AS text) IS NOT NULL THEN CAST(:due_at AS timestamptz) END)
    ), made AS (
        INSERT INTO replicas (id, file_id, account, provider, state, due_at, attempts)
        SELECT replica.id, :id, replica.account, replica.provider, 'pending', :due_at, 1
        FROM unnest(CAST(:replica_ids AS text[]), CAST(:accounts AS text[]), CAST(:providers AS text[]))
             AS replica (id, account, provider)
    )
    INSERT INTO file_targets (file_id, model_name, account)
    SELECT :id, target.model_name, target.account
    FROM unnest(CAST(:target_names AS text[]), CAST(:target_accounts AS text[])) AS target (model_name, account)
    """
)

# Nothing is recorded for a file that somebody else has ended meanwhile.
_RECORD = text(
    """
    WITH file AS (
        UPDATE files
        SET state = 'ready', ready_at = now(), bytes = :bytes, sha256 = :sha256, due_at = NULL,
            batch_lines = CAST(:batch_lines AS jsonb)
        WHERE id = :id AND state = 'uploading'
        RETURNING *
    ), recorded AS (
        UPDATE replicas
        SET provider_file_id = outcome.provider_file_id, state = outcome.state, stored_at = outcome.stored_at,
            expires_at = outcome.expires_at, due_at = outcome.due_at, last_error = outcome.last_error
        FROM file, unnest(CAST(:ids AS text[]), CAST(:provider_file_ids AS text[]), CAST(:states AS text[]),
                          CAST(:stored_ats AS timestamptz[]), CAST(:expires_ats AS timestamptz[]),
                          CAST(:due_ats AS timestamptz[]), CAST(:last_errors AS text[]))
             AS outcome (id, provider_file_id, state, stored_at, expires_at, due_at, last_error)
        WHERE replicas.id = outcome.id
    )
    SELECT * FROM file
    """
)


async def insert_intent(
    database: Database,
    file: Mapping[str, Any],
    due_at: datetime,
    replica_rows: Sequence[tuple[str, str, str]],
    targets: Sequence[tuple[str, str]],
    claim: idempotency.Claim | None = None,
) -> None:
    """Commit what an upload is about to do: the file, a pending replica for each (id, account, provider), its targets,
    (model name, account), and what its idempotency key stands for. Raises KeyTaken."""
    replica_ids, accounts, providers = zip(*replica_rows, strict=True) if replica_rows else ((), (), ())
    target_names, target_accounts = zip(*targets, strict=True)
    values = {
        **file,
        "due_at": due_at,
        "replica_ids": replica_ids,
        "accounts": accounts,
        "providers": providers,
        "target_names": target_names,
        "target_accounts": target_accounts,
    }
    if claim is None:
        await database.run(_INTENT, values)
        return
    async with database.write() as writer:
        await idempotency.take(writer, claim, file["id"])
        await writer.execute(_INTENT, values)


async def set_size(database: Database, file_id: str, size_bytes: int) -> None:
    """Commit what a running upload has counted, where its form made it seem another size."""
    running = update(files).where(files.c.id == file_id, files.c.state == "uploading")
    await database.run(running.values(bytes=size_bytes), {})


async def insert_made(writer: Writer, file: Mapping[str, Any], due_at: datetime) -> None:
    """Write down that the gateway is about to keep a file of its own."""
    await writer.execute(insert(files).values(**file, state="uploading", due_at=due_at))


async def record_upload(
    database: Database | Writer,
    file_id: str,
    size_bytes: int,
    sha256: str,
    outcomes: Mapping[str, Mapping[str, Any]],
    batch_lines: Mapping[str, Any] | None = None,
) -> Row | None:
    """Commit the end of an upload, with what became of each replica by its id, and what a batch's lines ask for; None
    when it was given up meanwhile."""
    columns = ("provider_file_id", "state", "stored_at", "expires_at", "due_at", "last_error")
    values: dict[str, Any] = {
        f"{column}s": [outcome.get(column) for outcome in outcomes.values()] for column in columns
    }
    values |= {"id": file_id, "bytes": size_bytes, "sha256": sha256, "ids": list(outcomes)}
    values["batch_lines"] = None if batch_lines is None else orjson.dumps(batch_lines).decode()
    rows = await database.run(_RECORD, values)
    return rows[0] if rows else None


async def fail_upload(writer: Writer, file_id: str) -> bool:
    """End an upload as failed, what may be kept of it due for removal, its idempotency key free again; False when
    somebody else has ended it."""
    running = update(files).where(files.c.id == file_id, files.c.state == "uploading")
    failed = await writer.execute(running.values(state="failed", due_at=_if_kept(func.now()), attempts=0))
    if failed:
        await free_idempotency_key(writer, file_id)
    return bool(failed)


async def is_ready(reader: Reader, file_id: str) -> bool:
    """Whether a file's upload has ended well."""
    ready = select(files.c.id).where(files.c.id == file_id, files.c.state == "ready")
    return await reader.first(ready) is not None


async def find_first_upload(reader: Reader, team_id: str, key: str) -> Row | None:
    """The upload that an idempotency key stands for: what it asked for, its file, and whether that one exists for
    callers. The file's columns are null when nothing is left of it."""
    first = idempotency_keys.outerjoin(files, files.c.id == idempotency_keys.c.subject)
    return await reader.first(
        select(idempotency_keys.c.request_sha256, files, _visible(None).label("exists"))
        .select_from(first)
        .where(
            idempotency_keys.c.team_id == team_id,
            idempotency_keys.c.key == key,
            idempotency_keys.c.expires_at > func.now(),
        )
    )


# --- read -------------------------------------------------------------------------------------------------------


async def find_file(reader: Reader, reach: str | None, file_id: str) -> Row | None:
    """A file that exists for a caller."""
    return await reader.first(select(files).where(_named(file_id), _visible(reach)))


async def list_files(
    reader: Reader, team_id: str, *, after: str | None, limit: int, descending: bool, purpose: str | None
) -> Rows:
    """A page of a team's files by keyset: ids are time-ordered, so the id alone is the key."""
    page = select(files).where(_visible(team_id))
    if purpose is not None:
        page = page.where(files.c.purpose == purpose)
    if after is not None:
        last = select(files.c.id).where(_named(after)).scalar_subquery() if ids.is_imported_id(after) else after
        page = page.where(files.c.id < last if descending else files.c.id > last)
    order = files.c.id.desc() if descending else files.c.id.asc()
    return await reader.all(page.order_by(order).limit(limit))


async def find_mapping(reader: Reader, file_id: str) -> Rows:
    """A ready file and its replicas, as far as they are not being deleted; one row per replica, replica columns null
    without any."""
    of_file = ("team_id", "filename", "mime_type", "purpose", "bytes", "sha256", "source", "expires_at")
    of_replica = ("id", "state", "expires_at", "due_at", "attempts", "last_error")
    return await reader.all(
        select(
            *(files.c[name] for name in of_file),
            replicas.c.account,
            replicas.c.provider_file_id,
            *(replicas.c[name].label(f"replica_{name}") for name in of_replica),
        )
        .select_from(files.outerjoin(replicas, and_(replicas.c.file_id == files.c.id, LIVE)))
        .where(files.c.id == file_id, _visible(None))
    )


# --- delete and expire ------------------------------------------------------------------------------------------


async def mark_deleting(
    writer: Writer, reach: str | None, file_id: str, lease_seconds: float, accounts: Collection[str]
) -> tuple[Row, Rows] | None:
    """Delete a file for everybody, and claim it and its replicas at these accounts; those at others are blocked.

    None when there is no such file for this caller.
    """
    due_at = func.now() + timedelta(seconds=lease_seconds)
    values = {"state": "deleting", "due_at": _if_kept(due_at), "attempts": 1}
    marked = update(files).where(_named(file_id), _visible(reach)).values(**values)
    file = await writer.first(marked.returning(files))
    if file is None:
        return None
    file_id = file["id"]
    await writer.notify(FILES_CHANNEL, file_id)
    rows = await writer.all(to_deleting(due_at, attempts=1).where(replicas.c.file_id == file_id).returning(replicas))
    await block(writer, accounts, file_id)
    await forget_file(writer, file_id)
    return file, [row for row in rows if row["account"] in accounts]


def _if_kept(due_at: ColumnElement[datetime]) -> ColumnElement[datetime | None]:
    """Something is due for a file itself only if its bytes are kept."""
    return case((files.c.source.is_not(None), due_at))


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
        update(files)
        .where(files.c.id.in_(ripe.scalar_subquery()))
        .values(state="deleting", due_at=_if_kept(func.now()))
        .returning(files.c.id)
    )
    for row in rows:
        await writer.notify(FILES_CHANNEL, row["id"])
        await discard_replicas(writer, row["id"])
        await forget_file(writer, row["id"])
    return len(rows)


async def fail_crashed_upload(writer: Writer, file_id: str) -> Row:
    """The file of such a replica; if it is still uploading, its gateway is gone and it has failed. What other
    accounts have stored of it is to be deleted."""
    if await fail_upload(writer, file_id):
        await discard_replicas(writer, file_id)
    file = await writer.first(select(files).where(files.c.id == file_id))
    assert file is not None, "a file's row outlives its replicas'"
    return file


# --- sources ----------------------------------------------------------------------------------------------------


async def claim_sources(writer: Writer, stores: Collection[str], lease_seconds: float, limit: int) -> Rows:
    """Claim files that are not wanted any more, or whose upload has crashed, while one of `stores` keeps their
    bytes."""
    unwanted = and_(files.c.state.in_(("uploading", "failed", "deleting")), files.c.source.in_(list(stores)))
    return await claim_due(writer, files, unwanted, lease_seconds=lease_seconds, limit=limit)


async def forget_source(writer: Writer, file_id: str) -> None:
    """The bytes are gone; so is the row if nothing else is left of the file."""
    await writer.execute(update(files).where(files.c.id == file_id).values(source=None, due_at=None, last_error=None))
    await forget_file(writer, file_id)


async def postpone_source(writer: Writer, file_id: str, seconds: float, reason: str) -> None:
    """Try again later, and say why."""
    due_at = func.now() + timedelta(seconds=seconds)
    await writer.execute(update(files).where(files.c.id == file_id).values(due_at=due_at, last_error=reason))
