"""Replicas that their provider still works on (Gemini's PROCESSING, Azure's pending): asked again until it is done, or
for so long that it never will be."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from app.db.claims import backoff_seconds
from app.db.session import Row
from app.errors import Missing, ProviderError, Rejected
from app.files.replicas import queries
from app.gateway import Gateway

LEASE_SECONDS = 60.0
CLAIMED_AT_ONCE = 20
# A chat may be waiting, so the backoff stays short.
LONGEST_WAIT_SECONDS = 5.0
# An hour of video is done in less.
LIMIT = timedelta(minutes=30)


async def processing_due(gateway: Gateway) -> int:
    """The worker's half: ask about what is due; returns how many replicas were claimed."""
    async with gateway.database.write() as writer:
        replicas = await queries.claim(
            writer, "processing", gateway.deployments.accounts, LEASE_SECONDS, CLAIMED_AT_ONCE
        )
    await asyncio.gather(*(_ask(gateway, replica) for replica in replicas))
    return len(replicas)


async def _ask(gateway: Gateway, replica: Row) -> None:
    account = gateway.deployments.accounts[replica["account"]]
    now = datetime.now(UTC)
    ended: dict[str, Any] | None = None
    reason = "the provider is still processing the file"
    try:
        if (await account.provider.retrieve_file(replica["provider_file_id"])).ready:
            ended = {"state": "stored", "due_at": None, "last_error": None}
        elif now - replica["stored_at"] > LIMIT:
            ended = {"state": "failed", "due_at": None, "last_error": reason}
    except Missing:
        # Deleted, as any that is lost, so that it can be made again.
        ended = {"state": "deleting", "due_at": now, "attempts": 0, "last_error": None}
    except Rejected as failure:
        ended = {"state": "failed", "due_at": None, "last_error": failure.message}
    except ProviderError as failure:
        reason = failure.message
    async with gateway.database.write() as writer:
        if ended:
            await queries.settle(writer, replica, ended)
        else:
            wait = min(backoff_seconds(replica["attempts"]), LONGEST_WAIT_SECONDS)
            await queries.postpone(writer, replica, wait, reason)
