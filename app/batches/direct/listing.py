"""GET /batches of accounts, and not of the rows: their providers' own lists, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from app.batches.direct.address import Naming
from app.batches.direct.shown import shown
from app.errors import BadRequest
from app.files.direct import address
from app.providers.protocol import ProviderBatch

CALL_BATCHES = 100
# How far a list is followed to find where a page begins.
MAX_CALLS = 100


async def page_of(namings: Sequence[Naming], after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """The batches behind the one of this id, one account after the other, and whether there are more. Raises
    BadRequest."""
    found: list[tuple[ProviderBatch, Naming]] = []
    begun = after is None
    async for naming, batches in _calls(namings):
        own_ids = [one.id for one in batches]
        hidden = await address.foreign_batches(naming.gateway, naming.caller, naming.account, own_ids)
        for one in batches:
            if begun and one.id not in hidden:
                found.append((one, naming))
            begun = begun or after in (one.id, naming.batch(one.id))
        if len(found) > limit:
            break
    if not begun:
        raise BadRequest(f"after must be the id of a batch of this list, not {str(after)[:100]!r}", param="after")
    return [shown(one, naming) for one, naming in found[:limit]], len(found) > limit


async def _calls(namings: Sequence[Naming]) -> AsyncIterator[tuple[Naming, Sequence[ProviderBatch]]]:
    """The lists as they are asked for, call by call."""
    left = MAX_CALLS
    for naming in namings:
        cursor: str | None = None
        while left:
            page = await naming.account.provider.list_batches(cursor, CALL_BATCHES)
            yield naming, page.batches
            left, cursor = left - 1, page.after
            if cursor is None:
                break
