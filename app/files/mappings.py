"""File id → its facts and where its replicas are, cached in every process and kept true by NOTIFY."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.db.notify import NotifiedCache
from app.db.session import Database
from app.files import queries
from app.files.replicas.queries import FILES_CHANNEL

MAX_CACHED = 100_000


@dataclass(frozen=True, slots=True)
class Replica:
    """A file at one account; not `ready` while the provider is still processing it. Times are Unix seconds."""

    provider_file_id: str
    ready: bool
    expires_at: float | None

    @property
    def usable(self) -> bool:
        """Whether a chat can refer to it now."""
        return self.ready and (self.expires_at is None or self.expires_at > time.time())


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
    source: str | None
    expires_at: float | None
    replicas: Mapping[str, Replica]

    def holds(self, account: str) -> bool:
        """Whether a chat with this account can refer to the file."""
        replica = self.replicas.get(account)
        return replica is not None and replica.usable


class Mappings:
    """Looks file ids up."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.cache: NotifiedCache[FileMapping] = NotifiedCache(FILES_CHANNEL, MAX_CACHED)

    async def find(self, reach: str | None, file_id: str) -> FileMapping | None:
        """A file's mapping if the file exists for a caller with this reach (None: every team's)."""
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
                row["provider_file_id"], row["replica_state"] == "stored", _unix(row["replica_expires_at"])
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
            source=file["source"],
            expires_at=_unix(file["expires_at"]),
            replicas=replicas,
        )


def _unix(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
