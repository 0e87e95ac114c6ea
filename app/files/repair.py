"""Uploads whose end nobody recorded: the gateway crashed, or a provider's answer was lost.

Such a replica is `pending` past its lease, and its provider may or may not hold a file. Where we choose the name, the
name tells. Elsewhere the provider's list does: one file of that name, size and time that no row knows is surely ours
and is deleted; none means that nothing was made; what is ambiguous is shown in `orphan_suspects` and never touched.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog

from app.db.claims import backoff_seconds
from app.db.session import Row
from app.deployments import Account
from app.errors import Missing, ProviderError
from app.files import queries
from app.files.replicas import queries as replica_queries
from app.gateway import Gateway
from app.providers.protocol import ProviderFile

log = structlog.get_logger("filemux.files")

LEASE_SECONDS = 120.0
CLAIMED_AT_ONCE = 10
PAGE = 100
# How far a provider's clock, which counts whole seconds, may be from ours.
CLOCK_SKEW = timedelta(seconds=10)
# A provider may still be storing what it was sent when it is first asked.
LOOKS = 3


async def repair_due(gateway: Gateway) -> int:
    """The worker's half: look for what is due at its provider; returns how many replicas were claimed."""
    async with gateway.database.write() as writer:
        replicas = await replica_queries.claim(
            writer, "pending", gateway.deployments.accounts, LEASE_SECONDS, CLAIMED_AT_ONCE
        )
    for replica in replicas:
        await _repair(gateway, replica)
    return len(replicas)


async def _repair(gateway: Gateway, replica: Row) -> None:
    async with gateway.database.write() as writer:
        file = await queries.fail_crashed_upload(writer, replica["file_id"])
    account = gateway.deployments.accounts.get(replica["account"])
    if account is None:
        await _postpone(gateway, replica, f"the account {replica['account']} is not in the configuration")
        return
    named = account.provider.capabilities.chooses_id
    try:
        found = await (_named(account, replica) if named else _candidates(gateway, account, file, replica))
    except ProviderError as failure:
        await _postpone(gateway, replica, failure.message)
        return
    async with gateway.database.write() as writer:
        # The size may be unknown, or a twin upload unaccounted for: then even a single match proves nothing.
        sure = named or (
            file["bytes"] is not None and not await replica_queries.has_pending_twin(writer, replica, file)
        )
        if found and not (sure and len(found) == 1):
            await replica_queries.record_suspects(writer, replica["id"], [_suspect(one) for one in found])
            log.warning("a provider holds files that may be a lost upload's", account=account.name, files=len(found))
        elif found:
            await replica_queries.adopt_for_deletion(writer, replica["id"], found[0].id)
        elif replica["attempts"] < LOOKS:
            wait = backoff_seconds(replica["attempts"])
            await replica_queries.postpone(writer, replica["id"], wait, "looking for an upload whose answer was lost")
        else:
            await replica_queries.settle_as_failed(writer, replica["id"], file["id"])


async def _named(account: Account, replica: Row) -> list[ProviderFile]:
    try:
        return [await account.provider.retrieve_file(account.provider.chosen_file_id(replica["id"]))]
    except Missing:
        return []


async def _candidates(gateway: Gateway, account: Account, file: Row, replica: Row) -> list[ProviderFile]:
    """The provider's files that this replica may have become and that no row knows of."""
    earliest = (replica["created_at"] - CLOCK_SKEW).timestamp()
    alike: list[ProviderFile] = []
    after: str | None = None
    while True:
        page = await account.provider.list_files(after, PAGE)
        alike += [one for one in page.files if _alike(one, file) and (one.created_at or 0) >= earliest]
        oldest = min((one.created_at or 0 for one in page.files), default=0)
        after = page.after
        if after is None or oldest < earliest:
            break
    async with gateway.database.read() as reader:
        known = await replica_queries.known_provider_files(reader, account.name, [one.id for one in alike])
    return [one for one in alike if one.id not in known]


def _alike(one: ProviderFile, file: Row) -> bool:
    return one.filename == file["filename"] and (file["bytes"] is None or one.bytes == file["bytes"])


def _suspect(one: ProviderFile) -> dict[str, Any]:
    return {
        "provider_file_id": one.id,
        "filename": one.filename,
        "bytes": one.bytes,
        "created_at": one.created_at,
    }


async def _postpone(gateway: Gateway, replica: Row, reason: str) -> None:
    async with gateway.database.write() as writer:
        await replica_queries.postpone(writer, replica["id"], backoff_seconds(replica["attempts"]), reason)
