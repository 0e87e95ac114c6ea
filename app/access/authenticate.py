"""A request's key → the caller: team, role, allow-list. Every worker forgets a revoked key at once (NOTIFY)."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from app.access import queries
from app.db.notify import NotifiedCache
from app.db.session import Database, Row
from app.errors import Forbidden, Unauthenticated
from app.settings import ALL_MODEL_NAMES

Role = Literal["viewer", "member", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "member", "admin")
PERMISSIONS = frozenset({"provider_files"})

MAX_CACHED_KEYS = 10_000
# How long a key outlives the database's last word on it; a key that is revoked meanwhile works that much longer.
REMEMBERED_SECONDS = 15 * 60.0
_BEARER = b"bearer "
_MASTER = "master"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. `key_id` is None for the master key; `models` is None when every model name is allowed."""

    key_id: str | None
    team_id: str
    team_name: str
    role: Role
    models: frozenset[str] | None
    permissions: frozenset[str]
    default_targets: tuple[str, ...]
    expires_at: float | None = None
    reach: str | None = field(init=False)

    def __post_init__(self) -> None:
        """`reach` is the team whose files this caller reaches by id; None: every team's."""
        object.__setattr__(self, "reach", None if self.role == "admin" else self.team_id)

    def require(self, role: Role, to: str) -> None:
        """Raise Forbidden unless the key has at least this role."""
        if ROLES.index(self.role) < ROLES.index(role):
            raise Forbidden(f"this key's role is {self.role}; {to} needs {role}")

    def may_use(self, model_name: str) -> bool:
        """Whether the allow-list has the model name."""
        return self.models is None or model_name in self.models

    @property
    def provider_files(self) -> bool:
        """Whether raw provider ids may be used: a shared account also holds other teams' files."""
        return self.role == "admin" or "provider_files" in self.permissions


class Keys:
    """Finds the caller behind a key."""

    def __init__(self, database: Database, master_key: str) -> None:
        self._database = database
        self._master_sha256 = secret_sha256(master_key.encode())
        self.cache: NotifiedCache[Caller] = NotifiedCache(queries.KEYS_CHANNEL, MAX_CACHED_KEYS, REMEMBERED_SECONDS)

    async def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """The caller behind a request's headers. Raises Unauthenticated."""
        digest = secret_sha256(presented_secret(headers))
        if hmac.compare_digest(digest, self._master_sha256):
            caller = await self.cache.get_or_load(_MASTER, self._load_master)
        else:
            caller = await self.cache.get_or_load(digest.hex(), lambda: self._load(digest))
        if caller is None or (caller.expires_at is not None and caller.expires_at <= time.time()):
            raise Unauthenticated("this key does not exist, is revoked or has expired")
        return caller

    async def _load(self, digest: bytes) -> Caller | None:
        async with self._database.read() as reader:
            row = await queries.find_key(reader, digest)
        if row is None:
            return None
        return Caller(
            key_id=row["id"],
            team_id=row["team_id"],
            team_name=row["team"],
            role=row["role"],
            models=None if row["models"] in (None, [ALL_MODEL_NAMES]) else frozenset(row["models"]),
            permissions=frozenset(row["permissions"]),
            default_targets=tuple(row["default_target_model_names"]),
            expires_at=row["expires_at"].timestamp() if row["expires_at"] else None,
        )

    async def _load_master(self) -> Caller | None:
        async with self._database.read() as reader:
            return keyless_admin(await queries.default_team(reader))


def keyless_admin(team: Row) -> Caller:
    """An admin of a team without a key of its own: the master key, or somebody at the command line."""
    return Caller(
        key_id=None,
        team_id=team["id"],
        team_name=team["name"],
        role="admin",
        models=None,
        permissions=PERMISSIONS,
        default_targets=tuple(team["default_target_model_names"]),
    )


def secret_sha256(secret: bytes) -> bytes:
    """What is stored of a key. Keys are random and long, so a fast hash is enough."""
    return hashlib.sha256(secret).digest()


def presented_secret(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key in `Authorization: Bearer`, `api-key` (Azure's clients) or `x-api-key` (Anthropic's).

    Raises Unauthenticated when there is none.
    """
    for name, value in headers:
        secret = b""
        if name == b"authorization" and value[:7].lower() == _BEARER:
            secret = value[7:].strip()
        elif name in (b"api-key", b"x-api-key"):
            secret = value.strip()
        if secret:
            return secret
    raise Unauthenticated("no key came with the request; send it as `Authorization: Bearer <key>`")
