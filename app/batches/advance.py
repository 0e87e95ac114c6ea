"""What takes a batch on: one step after another under a lease, for the worker, for whoever has just created one, and
for a client that asks.

The status says which step is next, and every step can be repeated: what it is about to do at a provider is committed
before, and looked for there when its outcome is not known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import structlog
from prometheus_client import Counter

from app import ids
from app.batches import queries
from app.batches.queries import Claimer
from app.db.claims import backoff_seconds
from app.db.session import Row
from app.errors import GatewayError, Overloaded
from app.files.leases import LEASE_SECONDS, renewing
from app.gateway import Gateway
from app.providers.protocol import ENDED

log = structlog.get_logger("filemux.batches")

BATCHES = Counter("filemux_batches", "Batches that have ended, by status", ["status"])

# At once in one process, whoever wants them.
AT_ONCE = 8
# How long a client that asks waits for the providers, and how often they are asked for its sake.
ASKING_SECONDS = 3.0
REST_SECONDS = 1.0
CLOSING_SECONDS = 5.0
# How long what was cut off in the middle may take to become a provider's batch all the same.
ARRIVING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is to be done for so many seconds; None: ever."""

    seconds: float | None
    last_error: str | None = None


Step = Callable[[Gateway, Row], Awaitable[Rest | None]]


class Runs:
    """The batches that this process is working on; `steps` are by status, and one that returns None goes on at once."""

    def __init__(self, steps: Mapping[str, Step]) -> None:
        self._steps = steps
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def free(self) -> int:
        """How many more can begin."""
        return max(0, AT_ONCE - len(self._tasks))

    def start(self, gateway: Gateway, batch: Row) -> asyncio.Task[None]:
        """Work on a batch that is claimed; that goes on when whoever wanted it leaves."""
        task = asyncio.create_task(self._run(gateway, batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cut off what is running; the rows say what to do."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSING_SECONDS)

    async def _run(self, gateway: Gateway, batch: Row) -> None:
        lease = renewing(gateway.database, partial(queries.renew, batch=batch))
        current: Row | None = batch
        try:
            while current is not None:
                rest = await self._step(gateway, current)
                async with gateway.database.write() as writer:
                    if rest is None:
                        before, values = current["status"], {"attempts": 0, "last_error": None}
                        current = await queries.record(writer, batch, values)
                        _count_end(before, current)
                    else:
                        await queries.release(writer, current, rest.seconds, rest.last_error)
                        return
        except Overloaded:
            # The row keeps its lease, and is due again after it.
            log.warning("a batch's step could not be recorded", batch=batch["id"])
        except asyncio.CancelledError:
            if current is not None:
                # Another takes it on, at once unless what was being sent may still arrive.
                wait = ARRIVING_SECONDS if current["status"] == "validating" else 0.0
                async with gateway.database.write() as writer:
                    await queries.release(writer, current, wait, current["last_error"])
            raise
        finally:
            lease.cancel()

    async def _step(self, gateway: Gateway, batch: Row) -> Rest | None:
        try:
            return await self._steps[batch["status"]](gateway, batch)
        except GatewayError as failure:
            wait = max(backoff_seconds(batch["attempts"]), failure.retry_after_seconds or 0)
            return Rest(wait, failure.message)
        except Exception:
            log.exception("a batch's step failed", batch=batch["id"])
            return Rest(backoff_seconds(batch["attempts"]), "internal error")


def _count_end(before: str, batch: Row | None) -> None:
    if batch is not None and batch["status"] != before and batch["status"] in ENDED:
        BATCHES.labels(batch["status"]).inc()


async def batches_due(gateway: Gateway) -> int:
    """The worker's half: take on what is due; returns how many batches were begun."""
    limit = gateway.batches.free
    if not limit:
        return 0
    async with gateway.database.write() as writer:
        batches = await queries.claim(writer, _claimer(gateway), LEASE_SECONDS, limit)
    for batch in batches:
        gateway.batches.start(gateway, batch)
    return len(batches)


async def nudge(gateway: Gateway, batch_id: str) -> None:
    """Have a batch's providers asked now, unless that is being done or was done just now, and wait a moment for what
    comes of it."""
    if not gateway.batches.free:
        return
    async with gateway.database.write() as writer:
        batch = await queries.claim_now(writer, _claimer(gateway), batch_id, LEASE_SECONDS, REST_SECONDS)
    if batch is not None:
        await asyncio.wait({gateway.batches.start(gateway, batch)}, timeout=ASKING_SECONDS)


def _claimer(gateway: Gateway) -> Claimer:
    return Claimer(ids.new_lease(), gateway.sources.store, gateway.sources.stores)
