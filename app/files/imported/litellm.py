"""What LiteLLM's database and configuration say of its managed files (LiteLLM 1.109, proxy/schema.prisma)."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from app import ids
from app.providers.protocol import PURPOSES
from app.yaml_file import Place, resolve


class NotImportable(Exception):
    """Why a row cannot become one of our files."""


@dataclass(frozen=True, slots=True)
class ManagedFile:
    """One row of LiteLLM_ManagedFileTable. `provider_file_ids` are by LiteLLM's model id."""

    unified_id: str
    filename: str
    purpose: str
    mime_type: str
    size_bytes: int
    created_at: datetime
    expires_at: datetime | None
    team_id: str | None
    created_by: str | None
    provider_file_ids: Mapping[str, str]

    @property
    def file_id(self) -> str:
        """Ours: always the same, so that it is imported once."""
        return ids.file_id_from(self.unified_id, self.created_at)


def managed_file(row: Mapping[str, Any]) -> ManagedFile:
    """Read a row. Raises NotImportable."""
    facts, replicas = _json(row.get("file_object")), _json(row.get("model_mappings"))
    if row.get("storage_backend"):
        raise NotImportable("LiteLLM keeps its bytes itself, and no provider has them")
    if not replicas:
        raise NotImportable("it is at no provider")
    try:
        created_at = datetime.fromtimestamp(facts["created_at"], UTC)
        ends_at = facts.get("expires_at")
        return ManagedFile(
            unified_id=row["unified_file_id"],
            filename=facts.get("filename") or "file",
            purpose=facts["purpose"] if facts.get("purpose") in PURPOSES else "user_data",
            mime_type=_mime_type(row["unified_file_id"]),
            size_bytes=int(facts["bytes"]),
            created_at=created_at,
            expires_at=None if ends_at is None else datetime.fromtimestamp(ends_at, UTC),
            team_id=row.get("team_id"),
            created_by=row.get("created_by"),
            provider_file_ids=replicas,
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise NotImportable("LiteLLM has not recorded its size and date") from None


def model_id(model_name: str, params: Mapping[str, Any], place: Place) -> str:
    """The id of a deployment without `model_info.id`: a digest of its name and of its parameters, as they are written
    but for what they take from the environment (LiteLLM, Router.generate_model_id). Raises SettingsError."""
    parts = [model_name]
    for key, value in params.items():
        parts += [_text(key), _text(resolve(value, place))]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _json(value: Any) -> dict[str, Any]:
    """A JSON column, which LiteLLM fills with an object or with its text."""
    found = orjson.loads(value) if isinstance(value, str) else value
    return found if isinstance(found, dict) else {}


def _mime_type(unified_id: str) -> str:
    """A unified id is base64 of `litellm_proxy:MIME TYPE;unified_id,…`."""
    try:
        said = urlsafe_b64decode(unified_id + "=" * (-len(unified_id) % 4)).decode()
    except (NotBase64, ValueError):
        said = ""
    mime_type = said.partition(";unified_id,")[0].partition(":")[2]
    return mime_type if "/" in mime_type else "application/octet-stream"
