"""GET /batches of one account, and not of the rows: its provider's own list, page by page."""

from __future__ import annotations

from typing import Any

from app.batches.direct.address import Naming
from app.batches.direct.shown import shown
from app.errors import BadRequest
from app.files.direct import address
from app.providers.protocol import ProviderBatch

CALL_BATCHES = 100
# How far a list is followed to find where a page begins.
MAX_CALLS = 100


async def page_of(naming: Naming, after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """The batches behind the one of this id, and whether there are more. Raises BadRequest."""
    found: list[ProviderBatch] = []
    begun, cursor = after is None, None
    for _ in range(MAX_CALLS):
        page = await naming.account.provider.list_batches(cursor, CALL_BATCHES)
        own_ids = [one.id for one in page.batches]
        hidden = await address.foreign_batches(naming.gateway, naming.caller, naming.account, own_ids)
        for one in page.batches:
            if begun and one.id not in hidden:
                found.append(one)
            begun = begun or after in (one.id, naming.batch(one.id))
        cursor = page.after
        if cursor is None or len(found) > limit:
            break
    if not begun:
        raise BadRequest(f"after must be the id of a batch of this list, not {str(after)[:100]!r}", param="after")
    return [shown(one, naming) for one in found[:limit]], len(found) > limit
