"""A part of a batch: the lines that one deployment answers, as one batch at its provider."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from app.db.session import Row
from app.deployments import Account, Deployment
from app.errors import Overloaded
from app.gateway import Gateway
from app.providers.protocol import ENDED, ProviderBatch

# Its lines are still to be sent; nothing of it will run any more.
UNSENT = ("waiting", "uploading", "uploaded")
OVER = ("ended", "refused", "gone")
# What the configuration lacks is looked for this often.
MISSING_SECONDS = 60.0


async def all_of(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do for all parts at once what each needs, to its end; then raise the first failure, if there was one."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if outcome is not None:
            raise outcome


def running(found: ProviderBatch) -> dict[str, Any]:
    """The columns of a part whose batch has told its id."""
    told = {"provider_batch_id": found.id, "status": found.status, "result_ids": list(found.result_ids)}
    return {"state": "running", **told}


def surplus_of(part: Row) -> set[str]:
    """The batches that were created for it beside its own, one of which may have been found again and taken for it."""
    return {*part["surplus_batch_ids"]} - {part["provider_batch_id"]}


async def asked(account: Account, provider_batch_id: str, *, cancel: bool) -> ProviderBatch:
    """A batch as its provider tells it, which is asked to cancel it first. Raises ProviderError."""
    found = await account.provider.retrieve_batch(provider_batch_id)
    if cancel and found.status not in ENDED and found.status != "cancelling":
        await account.provider.cancel_batch(found.id)
        found = await account.provider.retrieve_batch(found.id)
    return found


def account_of(gateway: Gateway, part: Row) -> Account:
    """Where it runs. Raises Overloaded when the configuration has that account no more."""
    account = gateway.deployments.accounts.get(part["account"])
    if account is None:
        raise _not_configured(f"the account {part['account']} is not in the configuration")
    return account


def deployment_of(gateway: Gateway, part: Row) -> Deployment:
    """What it is sent to. Raises Overloaded when the configuration has that deployment no more."""
    for one in gateway.deployments.of(part["model_name"]):
        if (one.account.name, one.provider_model) == (part["account"], part["provider_model"]):
            return one
    raise _not_configured(f"the configuration has no {part['model_name']!r} at the account {part['account']} any more")


def _not_configured(reason: str) -> Overloaded:
    return Overloaded(reason, code="account_not_configured", retry_after_seconds=MISSING_SECONDS)
