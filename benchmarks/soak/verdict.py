"""After the last fault: once nothing is due, clients, rows, providers and kept bytes must agree."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

import httpx
from openai import AsyncOpenAI
from sqlalchemy import text

from app.db.session import Database, Row, Rows
from benchmarks.soak.clients import chat, content_sha256, sdk
from benchmarks.soak.fleet import Fleet
from benchmarks.soak.ledger import Ledger, Told
from benchmarks.soak.tally import Failed, Tally

DRAIN_SECONDS, LOOK_SECONDS = 300.0, 0.5
AT_ONCE, TIMES, AGAIN_SECONDS = 8, 3, 0.5
# What travels inside the request may not be larger at any provider; a PDF travels by reference, up to this.
MAX_CHAT_BYTES = {True: 10_000_000, False: 50_000_000}
# Whose model names give a file of any purpose back.
READABLE = {"gemini-2.0-flash", "nova-lite"}

BACKLOG = """
SELECT file_id, provider AS place, state, due_at, attempts, last_error FROM replica_backlog
UNION ALL SELECT file_id, source, state, due_at, attempts, last_error FROM source_backlog
"""
# Nobody is left who could renew them.
END_LEASES = "UPDATE {table} SET due_at = now() WHERE due_at > now() AND state <> 'ready'"
REPLICAS = """
SELECT r.id, r.file_id, r.provider, r.provider_file_id, r.state, r.last_error, f.state AS file_state, f.filename
FROM replicas r JOIN files f ON f.id = r.file_id
"""
FILES = "SELECT id, filename, state, source, sha256, created_at, ready_at FROM files"


class Judge:
    """Judges a run whose clients have stopped and whose providers are healthy."""

    def __init__(self, fleet: Fleet, ledger: Ledger, tally: Tally, http: httpx.AsyncClient) -> None:
        self._fleet, self._ledger, self._tally, self._http = fleet, ledger, tally, http
        self._database = Database(fleet.postgres.url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._database.close()

    # --- until nothing is due -------------------------------------------------------------------------------------

    async def forget_unanswered(self) -> None:
        """Delete what was uploaded or deleted without an answer: it may be there, and nobody counts on it."""
        for team in self._fleet.teams:
            client = sdk(self._http, self._fleet.gateways[0], team)
            async for file in client.files.list(limit=1000):
                if file.filename in self._ledger.unanswered or file.id in self._ledger.doubted:
                    await client.files.delete(file.id)

    async def drain(self, *, end_leases: bool, show: Callable[[str], None]) -> Rows:
        """Wait until the workers have nothing left to do; what is left after DRAIN_SECONDS."""
        if end_leases:
            async with self._database.write() as writer:
                for table in ("files", "replicas"):
                    await writer.execute(text(END_LEASES.format(table=table)))
        deadline = time.monotonic() + DRAIN_SECONDS
        while (due := await self._rows(BACKLOG)) and time.monotonic() < deadline:
            show(f"draining: {len(due)} rows are due, for at most {deadline - time.monotonic():.0f} s more")
            await asyncio.sleep(LOOK_SECONDS)
        return due

    async def _rows(self, statement: str) -> Rows:
        async with self._database.read() as reader:
            return await reader.all(text(statement))

    # --- who has what ---------------------------------------------------------------------------------------------

    async def compare(self, at_providers: list[dict[str, Any]]) -> None:
        """Every file of the ledger is a ready row, every row's replica a provider file of the right bytes, and nothing
        else is anywhere."""
        rows = {row["id"]: row for row in await self._rows(FILES)}
        self._compare_files(rows)
        self._compare_replicas(rows, await self._rows(REPLICAS), at_providers)
        self._compare_sources(rows, await asyncio.to_thread(self._fleet.kept_files))

    def _compare_files(self, rows: dict[str, Row]) -> None:
        ledger = self._ledger
        for told in ledger.live.values():
            row = rows.get(told.file_id)
            if row is None or row["state"] != "ready":
                ledger.lost.append(f"{told}: its row is {dict(row) if row else 'gone'}")
            elif row["sha256"] != told.sha256:
                ledger.wrong_bytes.append(f"{told}: its row says {row['sha256']}, not {told.sha256}")
        for row in rows.values():
            if row["state"] == "ready" and row["id"] not in ledger.live:
                what = "was deleted" if row["id"] in ledger.deleted else "was never told to a client"
                ledger.orphans.append(f"the row of {row['id']} is ready, which {what}: {dict(row)}")

    def _compare_replicas(self, rows: dict[str, Row], replicas: Rows, at_providers: list[dict[str, Any]]) -> None:
        ledger = self._ledger
        stored = {(file["provider"], file["id"]): file for file in at_providers}
        for replica in replicas:
            if replica["state"] in ("stored", "processing") and replica["file_state"] == "ready":
                file = stored.pop((replica["provider"], replica["provider_file_id"]), None)
                if file is None:
                    ledger.lost.append(f"no provider file for the replica {dict(replica)}")
                elif file["sha256"] != rows[replica["file_id"]]["sha256"]:
                    ledger.wrong_bytes.append(f"{file} is not what the replica {dict(replica)} should hold")
        of_row = {(replica["provider"], replica["provider_file_id"]): dict(replica) for replica in replicas}
        by_name = {row["filename"]: dict(row) for row in rows.values()}
        for key, file in stored.items():
            known = of_row.get(key) or by_name.get(file["filename"]) or "no row"
            ledger.orphans.append(f"{file} at the provider has no live replica; there is {known}")

    def _compare_sources(self, rows: dict[str, Row], kept: set[str]) -> None:
        wanted = {row["id"]: row for row in rows.values() if row["source"] and row["state"] == "ready"}
        for file_id in wanted.keys() - kept:
            self._ledger.lost.append(f"the kept bytes of {dict(wanted[file_id])} are gone")
        for file_id in kept - wanted.keys():
            self._ledger.orphans.append(f"the bytes of {file_id} are kept; its row is {rows.get(file_id, 'gone')}")

    # --- each file once more --------------------------------------------------------------------------------------

    async def ask_for_each(self, sources: str, show: Callable[[str], None]) -> None:
        """Read each live file back, and ask each of its targets about it."""
        slots = asyncio.Semaphore(AT_ONCE)
        left = len(self._ledger.live)

        async def ask(told: Told) -> None:
            nonlocal left
            readable = sources != "none" or bool(READABLE & {*told.targets})
            async with slots:
                if readable:
                    await self._read(told)
                if told.size_bytes <= MAX_CHAT_BYTES[told.is_text] and (readable or not told.is_text):
                    for model_name in told.targets:
                        await self._chat(told, model_name)
            left -= 1
            show(f"asking for each file: {left} left")

        async with asyncio.TaskGroup() as group:
            for told in list(self._ledger.live.values()):
                group.create_task(ask(told))

    async def _read(self, told: Told) -> None:
        read = functools.partial(content_sha256, told=told)
        if sha256 := await self._asked("content, at the end", told, read):
            self._ledger.check_content(told, "its content, at the end,", sha256)

    async def _chat(self, told: Told, model_name: str) -> None:
        ask = functools.partial(chat, told=told, model_name=model_name, stream=False)
        if answer := await self._asked("chat, at the end", told, ask, model_name):
            self._ledger.check_answer(told, model_name, answer)

    async def _asked(
        self, operation: str, told: Told, ask: Callable[[AsyncOpenAI], Awaitable[str]], of: str = "its content"
    ) -> str | None:
        """The answer of the first gateway that gives one: of two with a disk each, only one has kept the bytes."""
        gateways = self._fleet.gateways * TIMES
        for gateway in gateways:
            try:
                with self._tally.measured(operation):
                    return await ask(sdk(self._http, gateway, told.team))
            except Failed as failure:
                failed = failure
            await asyncio.sleep(AGAIN_SECONDS)
        self._ledger.lost.append(f"{told}: {of} was answered {failed} at the end, {len(gateways)} times")
        return None
