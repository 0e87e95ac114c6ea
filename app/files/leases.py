"""A lease that is renewed for as long as its work goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from app.db.session import Database, Writer
from app.errors import Overloaded

LEASE_SECONDS = 60.0


def renewing(database: Database, renew: Callable[[Writer, float], Awaitable[None]]) -> asyncio.Task[None]:
    """Have `renew` set a lease of so many seconds, every third of it, until the task is cancelled."""

    async def keep_renewing() -> None:
        wait = LEASE_SECONDS / 3
        while True:
            await asyncio.sleep(wait)
            try:
                async with database.write() as writer:
                    await renew(writer, LEASE_SECONDS)
                wait = LEASE_SECONDS / 3
            except Overloaded:
                # A statement that hung has cost half of the lease already.
                wait = LEASE_SECONDS / 60

    return asyncio.create_task(keep_renewing())
