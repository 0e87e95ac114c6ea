"""Files whose `expires_after` has passed are deleted like any other, on time, whatever their provider does."""

from __future__ import annotations

from app.files import queries
from app.gateway import Gateway

AT_ONCE = 100


async def expire_due(gateway: Gateway) -> int:
    """The worker's half: hand expired files over to the delete; returns how many."""
    async with gateway.database.write() as writer:
        return await queries.expire_files(writer, AT_ONCE)
