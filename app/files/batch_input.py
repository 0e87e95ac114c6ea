"""A file of purpose `batch`: each of its lines is checked while it is uploaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from app.errors import BadRequest
from app.formats.batch_lines import BadLine, Inspection


async def inspected(chunks: AsyncIterator[bytes], param: str = "file") -> dict[str, Any]:
    """What the lines ask for, as `Inspection.facts` tells it. Raises BadRequest with the first line that is wrong."""
    inspection = Inspection()
    try:
        async for chunk in chunks:
            await asyncio.to_thread(inspection.feed, chunk)
        inspection.finish()
    except BadLine as bad:
        raise BadRequest(str(bad), param=param, code=bad.code) from None
    return inspection.facts()
