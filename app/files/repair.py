"""Uploads whose end nobody recorded: the gateway crashed, or a provider's answer was lost.

Such a replica is `pending` past its lease, and its provider may or may not hold a file. Where we choose the name, the
name tells. Elsewhere the provider's list does: one file of that name, size and time that no row knows is surely ours.
It is adopted if the file is still wanted, else deleted; none means that nothing was made; what is ambiguous is shown in
`orphan_suspects` and never touched (see app.files.suspects).
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from app.db.claims import backoff_seconds
from app.db.session import Row, Writer
from app.deployments import Account
from app.errors import Missing, ProviderError
from app.files import queries
from app.files.outcomes import stored_values
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
LOOKS = 5
# How long after the upload's end a provider may have dated the file.
STORING = timedelta(minutes=1)


async def repair_due(gateway: Gateway) -> int:
    """The worker's half: look for what is due at its provider; returns how many replicas were claimed."""
    async with gateway.database.write() as writer:
        replicas = await replica_queries.claim(
            writer, "pending", gateway.deployments.accounts, LEASE_SECONDS, CLAIMED_AT_ONCE
        )
    await asyncio.gather(*(_repair(gateway, replica) for replica in replicas))
    return len(replicas)


async def _repair(gateway: Gateway, replica: Row) -> None:
    async with gateway.database.write() as writer:
        file = await queries.fail_crashed_upload(writer, replica["file_id"])
    account = gateway.deployments.accounts[replica["account"]]
    named = account.provider.capabilities.chooses_id
    try:
        found = await (_named(account, replica) if named else _alike(account, file, replica))
    except ProviderError as failure:
        async with gateway.database.write() as writer:
            await replica_queries.postpone(writer, replica, backoff_seconds(replica["attempts"]), failure.message)
        return
    async with gateway.database.write() as writer:
        # The size may be unknown, or a twin upload unaccounted for: then even a single match proves nothing. Asked
        # first, for what a twin has made is known once it is not pending any more.
        sure = named or (
            file["bytes"] is not None and not await replica_queries.has_pending_twin(writer, replica, file)
        )
        known = await replica_queries.known_provider_files(writer, account.provider_name, [one.id for one in found])
        found = [one for one in found if one.id not in known]
        if found and sure and len(found) == 1:
            await _adopt(writer, replica, file, found[0])
        elif replica["looks"] + 1 < LOOKS:
            # A twin may be what the client sends anew; once that is accounted for, a single match is surely ours.
            await _look_again(writer, replica)
        elif found:
            log.warning("a provider holds files that may be a lost upload's", account=account.name, files=len(found))
            await _suspect(writer, replica, found)
        else:
            await _nothing_made(writer, replica, file)


async def _adopt(writer: Writer, replica: Row, file: Row, found: ProviderFile) -> None:
    """The file is surely what the upload made: kept if it is wanted and whole, else deleted."""
    whole = found.bytes == file["bytes"] and found.sha256 in (None, file["sha256"])
    if file["state"] == "ready" and whole:
        await replica_queries.record_made(writer, replica, stored_values(found))
    else:
        values = {"provider_file_id": found.id, "state": "deleting", "due_at": datetime.now(UTC), "attempts": 0}
        await replica_queries.settle(writer, replica, values)


async def _suspect(writer: Writer, replica: Row, found: list[ProviderFile]) -> None:
    """The upload may have made one of these; an operator has to decide."""
    suspects = [
        {"provider_file_id": one.id, "filename": one.filename, "bytes": one.bytes, "created_at": one.created_at}
        for one in found
    ]
    reason = "the provider holds files that may be this upload; see orphan_suspects"
    values = {"state": "failed", "due_at": None, "suspects": suspects, "last_error": reason}
    await replica_queries.settle(writer, replica, values)


async def _look_again(writer: Writer, replica: Row) -> None:
    wait = timedelta(seconds=backoff_seconds(replica["looks"] + 1))
    reason = "looking for an upload whose answer was lost"
    values = {"due_at": datetime.now(UTC) + wait, "looks": replica["looks"] + 1, "last_error": reason}
    await replica_queries.settle(writer, replica, values)


async def _nothing_made(writer: Writer, replica: Row, file: Row) -> None:
    """A lost upload made no file: it is made again if it is still wanted."""
    if file["state"] == "ready" and replica["replaces"] is None:
        reason = "the upload's answer was lost, and the provider has no such file"
        await replica_queries.settle(
            writer, replica, {"state": "failed", "due_at": datetime.now(UTC), "last_error": reason}
        )
    else:
        await replica_queries.forget_replica(writer, replica)


async def _named(account: Account, replica: Row) -> list[ProviderFile]:
    try:
        return [await account.provider.retrieve_file(account.provider.chosen_file_id(replica["id"]))]
    except Missing:
        return []


async def _alike(account: Account, file: Row, replica: Row) -> list[ProviderFile]:
    """The provider's files that this replica may have become."""
    earliest = (replica["created_at"] - CLOCK_SKEW).timestamp()
    latest = (replica["lost_at"] + STORING + CLOCK_SKEW).timestamp()
    alike: list[ProviderFile] = []
    after: str | None = None
    while True:
        page = await account.provider.list_files(after, PAGE)
        alike += [one for one in page.files if _is_alike(one, file) and earliest <= (one.created_at or 0) <= latest]
        oldest = min((one.created_at or 0 for one in page.files), default=0)
        after = page.after
        if after is None or oldest < earliest:
            return alike


def _is_alike(one: ProviderFile, file: Row) -> bool:
    return one.filename == file["filename"] and (file["bytes"] is None or one.bytes == file["bytes"])
