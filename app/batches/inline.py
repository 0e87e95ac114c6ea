"""A batch whose requests come in the body of POST /batches: they become a file of their own, as if uploaded before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from app import ids
from app.access.authenticate import Caller
from app.db.session import Row
from app.errors import BadRequest
from app.files.batch_input import inspected
from app.files.made import make_file
from app.files.spool import Spool
from app.files.targets import BATCH_EXPIRY_SECONDS
from app.formats.batch_lines import MIME_TYPE
from app.gateway import Gateway

MAX_INLINE_BYTES = 32 * 1024 * 1024


async def inline_file(
    gateway: Gateway,
    caller: Caller,
    requests: Sequence[dict[str, Any]],
    endpoint: str,
    model: str | None,
    check: Callable[[Mapping[str, Any]], object],
) -> Row:
    """The requests as a file of purpose `batch`, once `check` has passed what they ask for. Raises BadRequest that
    names the one that is wrong, or what `check` does."""
    async with Spool(gateway.spool_dir) as spool:
        for line in lines_of(requests, endpoint, model):
            await spool.write(line)
        await spool.finish()
        facts = await inspected(spool.read(None), "requests")
        check(facts)
        file = {
            "id": ids.new_file_id(),
            "team_id": caller.team_id,
            "created_by": caller.key_id,
            "filename": "requests.jsonl",
            "purpose": "batch",
            "mime_type": MIME_TYPE,
            "expires_at": datetime.now(UTC) + timedelta(seconds=BATCH_EXPIRY_SECONDS),
        }
        return await make_file(gateway, file, spool, facts)


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
        yield orjson.dumps(line) + b"\n"
