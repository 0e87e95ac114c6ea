"""A batch that runs: its providers are asked how far they are, or told to stop, until every part has ended."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from app.batches import queries
from app.batches.advance import Rest
from app.batches.lost import NotSure, found_again
from app.batches.parts import OVER, account_of, all_of, asked, running, surplus_of
from app.db.session import Row, Rows
from app.errors import Missing
from app.gateway import Gateway
from app.providers.protocol import ENDED, ProviderBatch

# A batch is asked about after a twentieth of its age, within these; Azure wants no more than one look a minute.
MIN_REST_SECONDS, MAX_REST_SECONDS = 1.0, 60.0
AGE_SHARE = 20


async def poll(gateway: Gateway, batch: Row) -> Rest | None:
    """Ask for every part. Raises GatewayError when one could not be asked."""
    async with gateway.database.read() as reader:
        parts = await queries.parts_of(reader, batch["id"])
    left = [part for part in parts if part["state"] not in OVER]
    surplus = [_stop(gateway, part, one) for part in left for one in surplus_of(part)]
    try:
        await all_of([*surplus, *(_ask(gateway, batch, part) for part in left)])
    finally:
        # What the others have told is not lost for one that cannot be asked.
        ended = await _record(gateway, batch)
    return None if ended else Rest(_rest_seconds(batch))


async def _ask(gateway: Gateway, batch: Row, part: Row) -> None:
    """Ask for one part, and record the answer. Raises ProviderError or Overloaded."""
    values: dict[str, Any]
    if part["provider_batch_id"] is None:
        values = await _never_begun(gateway, part)
    else:
        account = account_of(gateway, part)
        try:
            values = _values(await asked(account, part["provider_batch_id"], cancel=batch["status"] == "cancelling"))
        except Missing:
            values = {"state": "ended", "status": "failed", "last_error": "the provider holds no such batch any more"}
    async with gateway.database.write() as writer:
        await queries.record_part(writer, batch, part["id"], values)


async def _stop(gateway: Gateway, part: Row, surplus_batch_id: str) -> None:
    with suppress(Missing):
        await asked(account_of(gateway, part), surplus_batch_id, cancel=True)


async def _never_begun(gateway: Gateway, part: Row) -> dict[str, Any]:
    """A part of a batch that was cancelled while it was being sent. Raises NotSure while there may be one."""
    if part["state"] == "creating":
        found = await found_again(gateway, part)
        if found is not None:
            return running(found)
        created = (datetime.now(UTC) - part["creating_at"]).total_seconds()
        if created < 2**NotSure.LOOKS:
            raise NotSure(looks=1)
    return {"state": "ended", "status": "cancelled"}


def _values(found: ProviderBatch) -> dict[str, Any]:
    message = "; ".join(error.message for error in found.errors) or None
    return {
        **running(found),
        "state": "ended" if found.status in ENDED else "running",
        "completed": found.completed or 0,
        "failed": found.failed or 0,
        "last_error": message and message[:2000],
    }


async def _record(gateway: Gateway, batch: Row) -> bool:
    """Record how far the batch is; whether every part has ended, so that its results can be written."""
    now = datetime.now(UTC)
    async with gateway.database.write() as writer:
        parts = await queries.parts_of(writer, batch["id"])
        values: dict[str, Any] = {"looked_at": now, **_counts(parts)}
        ended = all(part["state"] in OVER for part in parts)
        if ended:
            values |= {"status": "finalizing", "finalizing_at": now}
        await queries.record(writer, batch, values)
    return ended


def _counts(parts: Rows) -> dict[str, int]:
    """How many lines are done, as far as the providers tell."""
    refused = sum(part["lines"] for part in parts if part["state"] == "refused")
    return {
        "completed_lines": sum(part["completed"] for part in parts),
        "failed_lines": refused + sum(part["failed"] for part in parts),
    }


def _rest_seconds(batch: Row) -> float:
    age = (datetime.now(UTC) - batch["created_at"]).total_seconds()
    return float(min(MAX_REST_SECONDS, max(MIN_REST_SECONDS, age / AGE_SHARE)))
