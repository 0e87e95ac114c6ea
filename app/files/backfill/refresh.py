"""Replicas that their provider deletes by itself (Gemini: after 48 hours) are made anew ahead of time, if the file is
in use and we keep its bytes; the old one serves until the new one is there."""

from __future__ import annotations

from datetime import timedelta

from app.files.backfill import queries
from app.gateway import Gateway

AT_ONCE = 20
# Of Gemini's 48 hours the last six; what nobody has used for a day is made again when somebody does.
AHEAD = timedelta(hours=6)
USED_WITHIN = timedelta(hours=24)


async def refresh_due(gateway: Gateway) -> int:
    """The worker's half: write down what chats have used, and order what is to be made anew; returns how many."""
    used, gateway.mappings.used = gateway.mappings.used, set()
    if used:
        async with gateway.database.write() as writer:
            await queries.record_used(writer, used)
    if gateway.options.refresh == "on_demand":
        return 0
    async with gateway.database.write() as writer:
        return await queries.want_refreshed(
            writer, gateway.deployments.accounts, gateway.sources.stores, AHEAD, USED_WITHIN, AT_ONCE
        )
