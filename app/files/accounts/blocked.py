"""Accounts that left the configuration: what is due there waits, with the reason in its row, until they are back."""

from __future__ import annotations

import structlog

from app.files.accounts import queries
from app.gateway import Gateway

log = structlog.get_logger("filemux.files")


async def blocked_due(gateway: Gateway) -> int:
    """The worker's half: block what no gateway has the account for, and unblock what this one has it for again."""
    accounts = gateway.deployments.accounts
    async with gateway.database.write() as writer:
        blocked, unblocked = await queries.block(writer, accounts), await queries.unblock(writer, accounts)
    if blocked:
        log.warning("replicas are blocked, since their account is not in the configuration", replicas=blocked)
    return blocked + unblocked
