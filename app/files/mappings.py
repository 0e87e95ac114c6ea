"""File id → its facts and where its replicas are, cached in every process and kept true by NOTIFY."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app import ids
from app.db.notify import NotifiedCache
from app.db.session import Database
from app.files import queries
from app.files.replicas.queries import FILES_CHANNEL

MAX_CACHED = 100_000


@dataclass(frozen=True, slots=True)
class Replica:
    """A file at one account, as its row says; only without an id where it is not made yet. Times are Unix seconds."""

    id: str
    state: str
    provider_file_id: str | None
    expires_at: float | None
    due_at: float | None = None
    attempts: int = 0
    last_error: str | None = None

    @property
    def expired(self) -> bool:
        """Whether its provider has deleted it by now."""
        return self.expires_at is not None and self.expires_at <= time.time()

    @property
    def coming(self) -> bool:
        """Whether it is being made: on its way, or not yet ready at its provider."""
        return self.state == "processing" or (self.state == "pending" and not self.never_begun)

    @property
    def never_begun(self) -> bool:
        """Whether it is wanted, but nobody makes it yet."""
        return self.state == "pending" and self.attempts == 0


@dataclass(frozen=True, slots=True)
class FileMapping:
    """What a chat needs to know of a file; `replicas` are by account name, `source` is the store that keeps its
    bytes."""

    file_id: str
    team_id: str
    filename: str
    mime_type: str
    purpose: str
    size_bytes: int
    # Empty for an imported file, whose bytes nobody here has seen.
    sha256: str
    source: str | None
    expires_at: float | None
    replicas: Mapping[str, Replica]

    @property
    def row(self) -> dict[str, str]:
        """What its row cannot be without."""
        names = ("team_id", "filename", "mime_type", "purpose")
        return {"id": self.file_id} | {name: getattr(self, name) for name in names}

    def holds(self, account: str) -> bool:
        """Whether a chat with this account can refer to the file now."""
        return self.at(account) is not None

    def at(self, account: str) -> str | None:
        """The provider's id by which a chat with this account can refer to the file now."""
        replica = self.replicas.get(account)
        if replica is None or replica.state != "stored" or replica.expired:
            return None
        return replica.provider_file_id


class Mappings:
    """Looks file ids up."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Replicas that chats have referred to since this was last written down (see app.files.backfill.refresh).
        self.used: set[str] = set()
        self.cache: NotifiedCache[FileMapping] = NotifiedCache(FILES_CHANNEL, MAX_CACHED)

    async def find(self, reach: str | None, file_id: str) -> FileMapping | None:
        """A file's mapping if the file exists for a caller with this reach (None: every team's)."""
        if ids.is_imported_id(file_id):
            # What changes is told, and so cached, under our own id.
            async with self._database.read() as reader:
                row = await queries.find_file(reader, reach, file_id)
            if row is None:
                return None
            file_id = row["id"]
        found = self.cache.get(file_id) or await self.cache.get_or_load(file_id, lambda: self._load(file_id))
        if found is None or (reach is not None and found.team_id != reach):
            return None
        if found.expires_at is not None and found.expires_at <= time.time():
            return None
        return found

    async def _load(self, file_id: str) -> FileMapping | None:
        async with self._database.read() as reader:
            rows = await queries.find_mapping(reader, file_id)
        if not rows:
            return None
        file = rows[0]
        replicas = {
            row["account"]: Replica(
                row["replica_id"],
                row["replica_state"],
                row["provider_file_id"],
                _unix(row["replica_expires_at"]),
                _unix(row["replica_due_at"]),
                row["replica_attempts"],
                row["replica_last_error"],
            )
            for row in rows
            if row["account"]
        }
        return FileMapping(
            file_id=file_id,
            team_id=file["team_id"],
            filename=file["filename"],
            mime_type=file["mime_type"],
            purpose=file["purpose"],
            size_bytes=file["bytes"],
            sha256=file["sha256"] or "",
            source=file["source"],
            expires_at=_unix(file["expires_at"]),
            replicas=replicas,
        )


def _unix(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
