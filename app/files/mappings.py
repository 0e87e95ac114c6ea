"""File id → its team and where its replicas are, cached in every process and kept true by NOTIFY."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from app.db.notify import NotifiedCache
from app.db.session import Database
from app.files import queries
from app.files.replicas.queries import FILES_CHANNEL

MAX_CACHED = 100_000


@dataclass(frozen=True, slots=True)
class FileMapping:
    """What a chat needs to know of a file: account name → the provider's id there."""

    team_id: str
    expires_at: float | None
    provider_file_ids: Mapping[str, str]


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
        expires_at = rows[0]["expires_at"]
        return FileMapping(
            team_id=rows[0]["team_id"],
            expires_at=expires_at.timestamp() if expires_at else None,
            provider_file_ids={row["account"]: row["provider_file_id"] for row in rows if row["account"]},
        )
