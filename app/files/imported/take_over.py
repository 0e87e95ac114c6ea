"""`filemux import-litellm`: LiteLLM's managed files become ours, and its ids go on working."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from app import ids
from app.access.audit import COMMAND_LINE, Actor
from app.access.teams import existing_team
from app.db.session import Database
from app.files.imported import queries
from app.files.imported.litellm import ManagedFile, NotImportable, managed_file
from app.providers.registry import REGISTRY

PAGE = 500
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Place:
    """What one of LiteLLM's model ids stands for: one of our accounts, and the model name that asked for it."""

    model_name: str
    account: str
    provider: str


@dataclass(slots=True)
class Found:
    """What an import found: how many files are new, how many were imported before, and what stays behind."""

    new: int = 0
    known: int = 0
    batches: int = 0
    left: list[dict[str, str]] = field(default_factory=list)
    # LiteLLM's model id → how many files it keeps from being imported.
    unknown_model_ids: dict[str, int] = field(default_factory=dict)


class Import:
    """One run. `places` are by LiteLLM's model id, None for one whose copies are left where they are; `team` is for
    files of teams that we do not have. Without `apply` nothing is written."""

    def __init__(self, database: Database, places: Mapping[str, Place | None], team: str, *, apply: bool) -> None:
        self._database, self._places, self._team, self._apply = database, places, team, apply
        self.found = Found()

    async def run(self, url: str) -> Found:
        """Read LiteLLM's database at this URL. Raises NotFound for the team, SettingsError for the URL."""
        async with self._database.read() as reader:
            self._default_team_id = (await existing_team(reader, self._team))["id"]
            self._team_ids = await queries.team_ids(reader)
        async with queries.LiteLLMDatabase(url) as source:
            async for rows in source.pages(PAGE):
                await self._take([file for row in rows if (file := self._importable(row))])
            self.found.batches = await source.batches()
        return self.found

    def _importable(self, row: Mapping[str, Any]) -> ManagedFile | None:
        try:
            file = managed_file(row)
            self._check(file)
        except NotImportable as why:
            self.found.left.append({"unified_file_id": row["unified_file_id"], "reason": str(why)})
            return None
        return file

    def _check(self, file: ManagedFile) -> None:
        """Raise NotImportable for a file of which a copy would be left behind unseen, or none is left."""
        unknown = [one for one in file.provider_file_ids if one not in self._places]
        for one in unknown:
            self.found.unknown_model_ids[one] = self.found.unknown_model_ids.get(one, 0) + 1
        if unknown:
            raise NotImportable(f"no deployment has the model id {', '.join(unknown)}")
        places = [place for one in file.provider_file_ids if (place := self._places[one])]
        if not places:
            raise NotImportable("all its model ids are left out by --map")
        if all(_end(file, place) <= datetime.now(UTC) for place in places):
            raise NotImportable("it has expired")

    async def _take(self, files: list[ManagedFile]) -> None:
        async with self._database.write() as writer:
            known = await queries.known(writer, [file.file_id for file in files])
            for file in files:
                if file.file_id in known:
                    self.found.known += 1
                    continue
                if self._apply and not await queries.insert_file(writer, *self._rows(file)):
                    continue
                self.found.new += 1
                if self._apply:
                    details = {"imported_id": file.unified_id, "created_by": file.created_by}
                    await Actor(COMMAND_LINE).did(writer, "file.import", file.file_id, details)

    def _rows(self, file: ManagedFile) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
        """The file, its replicas and its targets."""
        row = {
            "id": file.file_id,
            "imported_id": file.unified_id,
            "team_id": self._team_ids.get(file.team_id or "", self._default_team_id),
            "filename": file.filename,
            "purpose": file.purpose,
            "mime_type": file.mime_type,
            "bytes": file.size_bytes,
            "created_at": file.created_at,
            "ready_at": file.created_at,
            "expires_at": file.expires_at,
        }
        copies = [
            (place, provider_file_id)
            for model_id, provider_file_id in file.provider_file_ids.items()
            if (place := self._places[model_id])
        ]
        asked = dict.fromkeys((place.model_name, place.account) for place, _ in copies)
        return row, _replicas(file, copies), [{"model_name": name, "account": account} for name, account in asked]


def _end(file: ManagedFile, place: Place) -> datetime:
    """When a provider deletes its copy: it is told a date, or has a term of its own."""
    ttl_seconds = REGISTRY[place.provider].capabilities.file_ttl_seconds
    ends = [file.created_at + timedelta(seconds=ttl_seconds)] if ttl_seconds else []
    return min([*ends, file.expires_at or NEVER])


def _replicas(file: ManagedFile, copies: list[tuple[Place, str]]) -> list[dict[str, Any]]:
    """LiteLLM uploads once for each deployment, so an account may hold several. The first is the file's replica; the
    others stand behind it, as one that is to replace it does, so that they are deleted with the file."""
    rows: list[dict[str, Any]] = []
    last: dict[str, str] = {}
    for (account, provider_file_id), place in {(place.account, one): place for place, one in copies}.items():
        expires_at = _end(file, place)
        replica_id = ids.new_replica_id()
        rows.append(
            {
                "id": replica_id,
                "account": account,
                "provider": place.provider,
                "provider_file_id": provider_file_id,
                "state": "stored",
                "created_at": file.created_at,
                "stored_at": file.created_at,
                "expires_at": None if expires_at == NEVER else expires_at,
                "replaces": last.get(account),
            }
        )
        last[account] = replica_id
    return rows
