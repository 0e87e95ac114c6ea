"""All SQL about teams, keys, idempotency keys and the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from app import ids
from app.db.notify import EVERYTHING
from app.db.session import Reader, Row, Rows, Writer
from app.db.tables import DEFAULT_TEAM_ID, audit_log, idempotency_keys, keys, teams

KEYS_CHANNEL = "filemux_keys"
IDEMPOTENCY_KEPT = timedelta(hours=24)

_KEY_COLUMNS = (*(column for column in keys.c if column.name != "secret_sha256"), teams.c.name.label("team"))


async def find_key(reader: Reader, digest: bytes) -> Row | None:
    """A key that is neither revoked nor expired, with its team."""
    return await reader.first(
        select(*_KEY_COLUMNS, teams.c.default_target_model_names)
        .join(teams, teams.c.id == keys.c.team_id)
        .where(
            keys.c.secret_sha256 == digest,
            keys.c.revoked_at.is_(None),
            or_(keys.c.expires_at.is_(None), keys.c.expires_at > func.now()),
        )
    )


async def default_team(reader: Reader) -> Row:
    """The team of the master key."""
    team = await reader.first(select(teams).where(teams.c.id == DEFAULT_TEAM_ID))
    assert team is not None, "the first migration makes it"
    return team


async def find_team(reader: Reader, name_or_id: str) -> Row | None:
    """A team by its name or its id."""
    return await reader.first(select(teams).where(or_(teams.c.name == name_or_id, teams.c.id == name_or_id)))


async def list_teams(reader: Reader) -> Rows:
    """All teams, oldest first."""
    return await reader.all(select(teams).order_by(teams.c.created_at, teams.c.id))


async def insert_team(writer: Writer, name: str, targets: Sequence[str]) -> Row | None:
    """Make a team; None when the name is taken."""
    if await find_team(writer, name) is not None:
        return None
    values = {"id": ids.new_team_id(), "name": name, "default_target_model_names": list(targets)}
    return await writer.first(insert(teams).values(values).returning(teams))


async def update_team(writer: Writer, team_id: str, values: dict[str, Any]) -> Row:
    """Change a team; its callers are read again everywhere."""
    row = await writer.first(update(teams).where(teams.c.id == team_id).values(values).returning(teams))
    await writer.notify(KEYS_CHANNEL, EVERYTHING)
    assert row is not None
    return row


async def insert_key(writer: Writer, values: dict[str, Any]) -> Row:
    """Store a key; `values` holds the columns, the secret only as SHA-256."""
    key_id = ids.new_key_id()
    await writer.execute(insert(keys).values(id=key_id, **values))
    row = await key_by_id(writer, key_id)
    assert row is not None
    return row


async def key_by_id(reader: Reader, key_id: str) -> Row | None:
    """A key as lists show it."""
    return await reader.first(
        select(*_KEY_COLUMNS).join(teams, teams.c.id == keys.c.team_id).where(keys.c.id == key_id)
    )


async def list_keys(reader: Reader, team_id: str | None) -> Rows:
    """The keys of a team, or of all, oldest first; revoked ones too."""
    query = select(*_KEY_COLUMNS).join(teams, teams.c.id == keys.c.team_id).order_by(keys.c.id)
    return await reader.all(query if team_id is None else query.where(keys.c.team_id == team_id))


async def revoke_key(writer: Writer, key_id: str) -> bool:
    """Revoke a key now; False when there is no such key that is still good."""
    statement = (
        update(keys)
        .where(keys.c.id == key_id, keys.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(keys.c.secret_sha256)
    )
    return await _forget_everywhere(writer, await writer.first(statement))


async def rotate_key(writer: Writer, key_id: str, digest: bytes, hint: str) -> bool:
    """Give a key a new secret; False when there is no such key that is still good."""
    old = await writer.first(
        select(keys.c.secret_sha256).where(keys.c.id == key_id, keys.c.revoked_at.is_(None)).with_for_update()
    )
    if old is not None:
        values = {"secret_sha256": digest, "secret_hint": hint}
        await writer.execute(update(keys).where(keys.c.id == key_id).values(values))
    return await _forget_everywhere(writer, old)


async def _forget_everywhere(writer: Writer, row: Row | None) -> bool:
    if row is None:
        return False
    await writer.notify(KEYS_CHANNEL, row["secret_sha256"].hex())
    return True


async def take_idempotency_key(writer: Writer, team_id: str, key: str, request_sha256: str, subject: str) -> bool:
    """Let a key stand for what is about to be made; False while it stands for something else. Another request that
    takes it at this moment is waited for."""
    values = {
        "request_sha256": request_sha256,
        "subject": subject,
        "created_at": func.now(),
        "expires_at": func.now() + IDEMPOTENCY_KEPT,
    }
    taken = insert(idempotency_keys).values(team_id=team_id, key=key, **values)
    expired = idempotency_keys.c.expires_at <= func.now()
    return bool(
        await writer.execute(taken.on_conflict_do_update(index_elements=["team_id", "key"], set_=values, where=expired))
    )


async def free_idempotency_key(writer: Writer, subject: str) -> None:
    """What a key was to stand for was not made: the next request may take it."""
    await writer.execute(delete(idempotency_keys).where(idempotency_keys.c.subject == subject))


async def forget_idempotency_keys(writer: Writer, limit: int) -> int:
    """Remove keys that have expired; returns how many."""
    key = tuple_(idempotency_keys.c.team_id, idempotency_keys.c.key)
    expired = (
        select(idempotency_keys.c.team_id, idempotency_keys.c.key)
        .where(idempotency_keys.c.expires_at <= func.now())
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return await writer.execute(delete(idempotency_keys).where(key.in_(expired)))


async def record(
    writer: Writer, *, key_id: str | None, actor: str, action: str, subject: str, details: dict[str, Any] | None
) -> None:
    """Add a line to the audit log, in the transaction that does what it records."""
    values = {"key_id": key_id, "actor": actor, "action": action, "subject": subject, "details": details}
    await writer.execute(insert(audit_log).values(id=ids.new_audit_id(), **values))
