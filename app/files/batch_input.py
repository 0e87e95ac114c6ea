"""A file of purpose `batch`: its lines, each of which is checked while it is uploaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from app.errors import BadRequest
from app.formats.batch_lines import BadLine, Inspection, Lines


async def inspected(chunks: AsyncIterator[bytes], param: str = "file") -> dict[str, Any]:
    """What the lines ask for, as `Inspection.facts` tells it. Raises BadRequest with the first line that is wrong."""
    inspection = Inspection()
    with told(param):
        async for chunk in chunks:
            await asyncio.to_thread(inspection.feed, chunk)
        inspection.finish()
    return inspection.facts()


async def lines_in(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[tuple[int, bytes]]]:
    """The file's lines, each with its number, as many at a time as end in a chunk. Raises BadLine as Lines does."""
    lines = Lines()
    async for chunk in chunks:
        if found := list(lines.of(chunk)):
            yield found
    if found := list(lines.rest()):
        yield found


@contextmanager
def told(param: str = "file") -> Iterator[None]:
    """A line that is wrong is the caller's to hear of: BadLine becomes BadRequest."""
    try:
        yield
    except BadLine as bad:
        raise BadRequest(str(bad), param=param, code=bad.code) from None
