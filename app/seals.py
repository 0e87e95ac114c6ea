"""Stateless ids: what is at one account under a provider's own id, sealed for a team. Pure.

`file-` or `batch_` and base64url of
`filemux:<provider id>;model,<model name>;account,<account>;team,<team id>;sig,<hmac>` (design §7): whoever has it can
read it, nobody without the secret can make one, and it is good for its team alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["file-", "batch_"]
FILE: Final = "file-"
BATCH: Final = "batch_"

# 128 bits of the HMAC-SHA256.
_SIGNATURE_BYTES = 16
# The provider's id is what is left of the other fields, none of which holds a semicolon: it may hold anything itself.
_SEALED = re.compile(
    r"(filemux:(?P<id>.+);model,(?P<model>[^;]+)(?:;account,(?P<account>[^;]+))?;team,(?P<team>[^;]+));sig,([0-9a-f]+)",
    re.DOTALL,
)
# LiteLLM's of the same shape, which anybody can make.
_LITELLM = re.compile(r"litellm:(?P<id>.+);model,(?P<model>[^;]+)", re.DOTALL)
# As much of `filemux:` as its base64 shows whatever follows.
_BEGINNING = base64.b64encode(b"filemux:")[:10].decode()


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a stateless id says. An id without a `team_id` is one of LiteLLM's, which proves nothing; it has no
    `account` either, nor have ids of former versions."""

    provider_id: str
    model_name: str
    team_id: str | None
    account: str | None = None


class Seals:
    """Seals with the first of the secrets, and opens with any of them."""

    def __init__(self, secrets: Sequence[str], *, accept_litellm_ids: bool = False) -> None:
        self._secrets = [secret.encode() for secret in secrets]
        self._accept_litellm_ids = accept_litellm_ids

    def seal(self, kind: Kind, sealed: Sealed) -> str:
        """The id of what lies at a provider."""
        account = f";account,{_escaped(sealed.account)}" if sealed.account else ""
        signed = f"filemux:{sealed.provider_id};model,{_escaped(sealed.model_name)}{account};team,{sealed.team_id}"
        return kind + _encoded(f"{signed};sig,{_signature(self._secrets[0], kind, signed)}")

    def open(self, kind: Kind, text: str, reach: str | None) -> Sealed | None:
        """What an id says, if it is sealed and the team in reach is its own (None: every team is in reach)."""
        content = _decoded(text.removeprefix(kind)) if text.startswith(kind) else None
        if content is None:
            return None
        if self._accept_litellm_ids and (found := _LITELLM.fullmatch(content)):
            return Sealed(found["id"], found["model"], team_id=None)
        found = _SEALED.fullmatch(content)
        if found is None or (reach is not None and found["team"] != reach):
            return None
        signatures = [_signature(secret, kind, found[1]) for secret in self._secrets]
        if not any(hmac.compare_digest(one, found[found.re.groups]) for one in signatures):
            return None
        account = found["account"] and _unescaped(found["account"])
        return Sealed(found["id"], _unescaped(found["model"]), found["team"], account)


def looks_sealed(kind: Kind, text: str) -> bool:
    """Whether an id begins as a sealed one does, and so is no provider's own."""
    return text.startswith(kind + _BEGINNING)


def _signature(secret: bytes, kind: Kind, signed: str) -> str:
    return hmac.digest(secret, (kind + signed).encode(), hashlib.sha256)[:_SIGNATURE_BYTES].hex()


def _encoded(content: str) -> str:
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def _decoded(text: str) -> str | None:
    """The text behind base64url without padding; None for another spelling of it, or none."""
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    return content if _encoded(content) == text else None


def _escaped(name: str) -> str:
    """A name without semicolons."""
    return name.replace("%", "%25").replace(";", "%3B")


def _unescaped(text: str) -> str:
    return text.replace("%3B", ";").replace("%25", "%")
