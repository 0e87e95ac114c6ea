"""A batch whose requests come in the body of POST /batches: they become a file of their own, as if uploaded before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import orjson

from app.access.authenticate import Caller
from app.errors import BadRequest
from app.files.batch_input import inspected
from app.files.made import MadeFile, being_made
from app.files.spool import Spool
from app.files.targets import BATCH_EXPIRY_SECONDS
from app.formats.batch_lines import MIME_TYPE
from app.gateway import Gateway

MAX_INLINE_BYTES = 32 * 1024 * 1024


@asynccontextmanager
async def spooled(
    gateway: Gateway, requests: Sequence[dict[str, Any]], endpoint: str, model: str | None
) -> AsyncIterator[tuple[Spool, dict[str, Any]]]:
    """The requests as lines, and what they ask for. Raises BadRequest that names the one that is wrong."""
    async with Spool(gateway.spool_dir) as spool:
        for line in lines_of(requests, endpoint, model):
            await spool.write(line)
        await spool.finish()
        yield spool, await inspected(spool.read(None), "requests")


def kept(
    gateway: Gateway, caller: Caller, spool: Spool, facts: Mapping[str, Any]
) -> AbstractAsyncContextManager[MadeFile]:
    """Keep the lines as a file of purpose `batch`, which is there once it is made ready."""
    file = {
        "team_id": caller.team_id,
        "created_by": caller.key_id,
        "filename": "requests.jsonl",
        "purpose": "batch",
        "mime_type": MIME_TYPE,
    }
    return being_made(gateway, file, spool, BATCH_EXPIRY_SECONDS, facts)


def lines_of(requests: Sequence[dict[str, Any]], endpoint: str, model: str | None) -> Iterator[bytes]:
    """The requests as lines of a file. Raises BadRequest that names the one that is wrong."""
    for number, request in enumerate(requests):
        # Anthropic's users, and Bifrost's, call the body `params`.
        body = request.get("body", request.get("params"))
        if not isinstance(body, dict):
            reason = f"requests[{number}] needs a body, the request itself"
            raise BadRequest(reason, param=f"requests[{number}].body")
        named = {"model": model, **body} if model else body
        line = {
            "custom_id": request.get("custom_id"),
            "method": request.get("method", "POST"),
            "url": request.get("url", endpoint),
            "body": named,
        }
        try:
            yield orjson.dumps(line) + b"\n"
        except orjson.JSONEncodeError as failure:
            raise BadRequest(f"requests[{number}] cannot be written as JSON: {failure}", param="requests") from None
