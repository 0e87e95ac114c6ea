"""Idempotency-Key: a create that a client repeats within a day makes nothing anew (RFC 9110 §9.2.2 tells why a POST
needs it).

A key is taken in the transaction that commits what is about to be made, and freed in the one that records that nothing
was; so no crash leaves a key without its file or batch. It is a team's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from app.access import queries
from app.db.session import Writer
from app.errors import BadRequest
from app.gateway import Gateway

HEADER = "idempotency-key"
# In the answer to a repeated request; the name is the one that Stripe's clients know.
REPLAYED_HEADER = "idempotent-replayed"
FORGOTTEN_AT_ONCE = 1000

_KEY = re.compile(r"[ -~]{1,255}")


@dataclass(frozen=True, slots=True)
class Claim:
    """A key as one request would take it; the digest is of what the request asks for."""

    team_id: str
    key: str
    request_sha256: str

    @classmethod
    def of(cls, team_id: str, key: str, request: list[Any]) -> Claim:
        """The claim of a request that asks for this, given as JSON values. Raises BadRequest for what is nested too
        deep."""
        try:
            asked = orjson.dumps(request)
        except orjson.JSONEncodeError as failure:
            raise BadRequest(f"the request cannot be written as JSON: {failure}") from None
        return cls(team_id, key, sha256(asked).hexdigest())


class KeyTaken(Exception):
    """Another request has this key: it is making something, or has made it."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(claim.key)
        self.claim = claim


def key_of(headers: Mapping[str, str]) -> str | None:
    """The request's key, if it has one. Raises BadRequest."""
    key = headers.get(HEADER)
    if key is not None and not _KEY.fullmatch(key):
        reason = f"{HEADER} must be 1 to 255 printable ASCII characters"
        raise BadRequest(reason, param=HEADER, code="invalid_idempotency_key")
    return key


async def take(writer: Writer, claim: Claim, subject: str) -> None:
    """Take the key for the file or batch of this id. Raises KeyTaken."""
    if not await queries.take_idempotency_key(writer, claim.team_id, claim.key, claim.request_sha256, subject):
        raise KeyTaken(claim)


def reused(differing: str) -> BadRequest:
    """The refusal of a request that is not the one that its key was first sent with."""
    reason = f"this {HEADER} was sent with another request: {differing}; send each request with a key of its own"
    return BadRequest(reason, param=HEADER, code="idempotency_key_reused")


def used(noun: str) -> BadRequest:
    """The refusal of a request whose key has made something that is deleted by now."""
    reason = f"the {noun} that this {HEADER} has made is deleted; send another key to make a new one"
    return BadRequest(reason, param=HEADER, code="idempotency_key_used")


async def idempotency_due(gateway: Gateway) -> int:
    """The worker's half: forget keys whose day is over; returns how many."""
    async with gateway.database.write() as writer:
        return await queries.forget_idempotency_keys(writer, FORGOTTEN_AT_ONCE)
