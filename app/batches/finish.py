"""A batch whose parts have all ended: their results become one output file and one error file, in OpenAI's lines.

Both are kept first, and seen from the transaction on that records the end: whoever is cut off before has made nothing,
and what the next one finds, which may be less, is told once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import orjson

from app.batches import queries
from app.batches.lines import number_of, unpacked
from app.batches.parts import account_of
from app.batches.submit import failed_values, part_errors
from app.db.session import Row, Rows
from app.errors import Missing
from app.files.made import MadeFile, being_made
from app.files.spool import Spool
from app.formats.batch_lines import MIME_TYPE, BatchResult
from app.gateway import Gateway

# Why a line has no result, by the status of its part (wire.md §1e).
NEVER_RAN = {
    "cancelled": ("batch_cancelled", "the batch was cancelled before this request had run"),
    "expired": ("batch_expired", "the batch expired before this request had run"),
    "failed": ("batch_failed", "the provider's batch failed"),
    "completed": ("no_result", "the provider's results do not have this request"),
}


async def finish(gateway: Gateway, batch: Row) -> None:
    """Write the results and record the end. Raises GatewayError for what may pass."""
    async with gateway.database.read() as reader:
        parts = await queries.parts_of(reader, batch["id"])
    async with AsyncExitStack() as stack:
        output = await stack.enter_async_context(Spool(gateway.spool_dir))
        errors = await stack.enter_async_context(Spool(gateway.spool_dir))
        results = Results(batch["id"], output, errors)
        for part in parts:
            await _collect(gateway, part, results)
        values = _ending(batch, parts) | results.values()
        made: list[MadeFile] = []
        for column, spool in (("output_file_id", output), ("error_file_id", errors)):
            await spool.finish()
            if spool.size_bytes and values["status"] != "failed":
                file, seconds = _file(batch, column), batch["output_expires_after_seconds"]
                made.append(await stack.enter_async_context(being_made(gateway, file, spool, seconds)))
                values[column] = made[-1].file_id
        async with gateway.database.write() as writer:
            if await queries.record(writer, batch, values, status="finalizing") is not None:
                for one in made:
                    await one.ready(writer)


class Results:
    """The lines of a batch's two files, and what they come to."""

    def __init__(self, batch_id: str, output: Spool, errors: Spool) -> None:
        self._batch_id, self._output, self._errors = batch_id, output, errors
        self._completed = self._failed = 0
        self._tokens = {"input": 0, "cached": 0, "output": 0, "reasoning": 0}

    async def add(self, found: Sequence[tuple[int, str, BatchResult]]) -> None:
        """Write results, each with its line's number and custom_id."""
        # In a thread: as many as arrive together may be a few milliseconds' work, or one answer of megabytes.
        good, bad = await asyncio.to_thread(self._lines, found)
        await self._output.write(good)
        await self._errors.write(bad)

    def _lines(self, found: Sequence[tuple[int, str, BatchResult]]) -> tuple[bytes, bytes]:
        """The lines for the output and for the errors, counted."""
        good: list[bytes] = []
        bad: list[bytes] = []
        for number, custom_id, result in found:
            line = result.line(custom_id, f"batch_req_{self._batch_id[-32:]}_{number}")
            (good if result.succeeded else bad).append(line)
            if result.succeeded:
                self._count(result.body)
        self._completed += len(good)
        self._failed += len(bad)
        return b"".join(good), b"".join(bad)

    def _count(self, body: bytes) -> None:
        """Add an answer's tokens, as chats and the other endpoints tell them."""
        usage = orjson.loads(body).get("usage") or {}
        given = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        made = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
        self._tokens["input"] += usage.get("prompt_tokens") or usage.get("input_tokens") or 0
        self._tokens["output"] += usage.get("completion_tokens") or usage.get("output_tokens") or 0
        self._tokens["cached"] += given.get("cached_tokens") or 0
        self._tokens["reasoning"] += made.get("reasoning_tokens") or 0

    def values(self) -> dict[str, Any]:
        """The columns of the batch that they fill."""
        tokens = self._tokens
        usage = {
            "input_tokens": tokens["input"],
            "input_tokens_details": {"cached_tokens": tokens["cached"]},
            "output_tokens": tokens["output"],
            "output_tokens_details": {"reasoning_tokens": tokens["reasoning"]},
            "total_tokens": tokens["input"] + tokens["output"],
        }
        return {"completed_lines": self._completed, "failed_lines": self._failed, "usage": usage}


async def _collect(gateway: Gateway, part: Row, results: Results) -> None:
    """One part's results, and a line for each request that has none."""
    async with gateway.database.read() as reader:
        packed = await queries.custom_ids_of(reader, part["id"])
    missing = await asyncio.to_thread(unpacked, packed) if packed else {}
    if part["state"] == "ended" and part["provider_batch_id"]:
        provider = account_of(gateway, part).provider
        try:
            found = await provider.retrieve_batch(part["provider_batch_id"])
            async with provider.read_batch_output(found) as chunks:
                async for some in chunks:
                    numbers = [(number_of(part["id"], one.key), one) for one in some]
                    await results.add(
                        [(n, missing.pop(n), one) for n, one in numbers if n is not None and n in missing]
                    )
        except Missing:
            pass
    code, message = NEVER_RAN.get(part["status"] or "failed", NEVER_RAN["failed"])
    message = part["last_error"] or message
    rest = list(missing.items())
    for start in range(0, len(rest), 1000):
        never = [
            (n, custom_id, BatchResult("", code=code, message=message)) for n, custom_id in rest[start : start + 1000]
        ]
        await results.add(never)


def _ending(batch: Row, parts: Rows) -> dict[str, Any]:
    """How the batch has ended: cancelled if that was asked for, failed or expired if all of it has."""
    now = datetime.now(UTC)
    statuses = {part["status"] if part["state"] == "ended" else "failed" for part in parts}
    if batch["cancelling_at"] is not None:
        return {"status": "cancelled", "cancelled_at": now}
    if statuses == {"failed"}:
        return failed_values(part_errors("batch_failed", parts))
    if statuses <= {"expired", "failed"}:
        return {"status": "expired", "expired_at": now}
    return {"status": "completed", "completed_at": now}


def _file(batch: Row, column: str) -> dict[str, Any]:
    return {
        "team_id": batch["team_id"],
        "created_by": batch["created_by"],
        "filename": f"{batch['id']}_{column.removesuffix('_file_id')}.jsonl",
        "purpose": "batch_output",
        "mime_type": MIME_TYPE,
    }
