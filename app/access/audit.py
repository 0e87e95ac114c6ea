"""Who did what to teams, keys and other teams' files: one row per act, written in the act's own transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.access import queries
from app.access.authenticate import Caller
from app.db.session import Writer

COMMAND_LINE = "command line"
MASTER_KEY = "master key"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a key, the master key, or somebody at the command line."""

    name: str
    key_id: str | None = None

    @classmethod
    def of(cls, caller: Caller) -> Actor:
        """The actor behind a request."""
        return cls(caller.key_id or MASTER_KEY, caller.key_id)

    async def did(self, writer: Writer, action: str, subject: str, details: dict[str, Any] | None = None) -> None:
        """Record an act, such as `key.revoke` on a key's id. `details` never holds a secret."""
        await queries.record(
            writer, key_id=self.key_id, actor=self.name, action=action, subject=subject, details=details
        )
