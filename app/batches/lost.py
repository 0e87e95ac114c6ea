"""A part whose batch may have been created, and nobody knows: it is looked for at its provider.

Where we name batches the name tells. Elsewhere one of that time and so many lines, which no row knows, may be ours; its
results tell whether it is, for their keys are ours alone. Until they are there nobody is sure, and nothing is created.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from app.batches import queries
from app.batches.lines import number_of
from app.batches.parts import account_of
from app.db.session import Row
from app.deployments import Account
from app.errors import Missing, Overloaded, ProviderError, Unavailable
from app.gateway import Gateway
from app.providers.protocol import ENDED, ProviderBatch

PAGE = 100
# How far a provider's clock, which counts whole seconds, may be from ours.
CLOCK_SKEW = timedelta(seconds=10)


class NotSure(Overloaded):
    """It is not there now, or nobody can tell; to be looked for again."""

    # A provider may still be creating what it was sent when it is first asked.
    LOOKS: ClassVar[int] = 3

    def __init__(self, looks: int) -> None:
        reason = "looking for a batch whose creation was not answered"
        super().__init__(reason, retry_after_seconds=float(2**looks))


def may_be_there(failure: ProviderError) -> bool:
    """Whether a creation that has failed may have made a batch all the same: whoever answers 5xx may be a proxy whose
    provider has gone on."""
    return failure.outcome_unknown or isinstance(failure, Unavailable)


async def found_again(gateway: Gateway, part: Row) -> ProviderBatch | None:
    """The batch that was created for this part, if there is one. Raises NotSure, ProviderError."""
    account = account_of(gateway, part)
    candidates = await _since(account, part)
    named = next((one for one in candidates if one.name == part["name"]), None)
    if named is not None or account.provider.capabilities.batch.named:
        return named
    async with gateway.database.read() as reader:
        known = await queries.known_batches(reader, account.provider_name, [one.id for one in candidates])
    nameless = [one for one in candidates if one.name is None and one.id not in known and one.total == part["lines"]]
    unsure = False
    for one in nameless:
        if one.status not in ENDED:
            unsure = True
        elif await _is_ours(account, part, one):
            return one
    if unsure:
        raise NotSure(looks=2)
    return None


async def _since(account: Account, part: Row) -> list[ProviderBatch]:
    """The account's batches from about when this one may have been created."""
    earliest = (part["creating_at"] - CLOCK_SKEW).timestamp()
    found: list[ProviderBatch] = []
    after: str | None = None
    while True:
        page = await account.provider.list_batches(after, PAGE)
        found += [one for one in page.batches if (one.created_at or earliest) >= earliest]
        oldest = min((one.created_at or earliest for one in page.batches), default=0)
        after = page.after
        if after is None or oldest < earliest:
            return found


async def _is_ours(account: Account, part: Row, batch: ProviderBatch) -> bool:
    try:
        async with account.provider.read_batch_output(batch) as results:
            async for some in results:
                for one in some:
                    return number_of(part["id"], one.key) is not None
    except Missing:
        pass
    return False
