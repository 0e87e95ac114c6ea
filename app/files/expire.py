"""What has had its time: files whose `expires_after` has passed are deleted like any other, whatever their provider
does; replicas that their provider has deleted by itself are forgotten, and made again when a chat wants them."""

from __future__ import annotations

from app.files import queries
from app.files.replicas import queries as replica_queries
from app.gateway import Gateway

AT_ONCE = 100


async def expire_due(gateway: Gateway) -> int:
    """The worker's half: hand expired files and replicas over to the delete; returns how many."""
    async with gateway.database.write() as writer:
        return await queries.expire_files(writer, AT_ONCE) + await replica_queries.expire_replicas(writer, AT_ONCE)
