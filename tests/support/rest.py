"""The promise, in one place: once the worker is idle, the files at the providers are exactly the live replica rows."""

import asyncio
import time

from sqlalchemy import text

from tests.support.uploads import sha256

# The access key of a bucket for kept bytes in the sandbox's S3, which no provider's account has.
SOURCES_KEY = "AKIASOURCES"
SOURCES = sha256(SOURCES_KEY.encode())[:8]
OF_FILES = "file_id IN (SELECT id FROM files WHERE filename = :name)"


class Traces:
    """Everything that there is of the files of one name and content: rows, provider files, kept bytes."""

    def __init__(self, database, sandbox, filename, content):
        self._database, self._sandbox = database, sandbox
        self._filename, self._sha256 = filename, sha256(content)

    async def files(self):
        return await self._rows("SELECT *, due_at - now() AS lease FROM files WHERE filename = :name")

    async def replicas(self):
        return await self._rows(f"SELECT *, due_at - now() AS lease FROM replicas WHERE {OF_FILES} ORDER BY id")

    def held(self):
        """What the providers hold, the kept bytes not counted."""
        return [one["id"] for one in self._there() if one["account"] != SOURCES]

    def kept(self):
        """The ids of the files whose bytes are kept."""
        return [one["id"].rpartition("/")[2] for one in self._there() if one["account"] == SOURCES]

    async def end_leases(self):
        """Let the lease of everything that is claimed have passed."""
        await self._write("UPDATE files SET due_at = now() WHERE filename = :name AND due_at IS NOT NULL")
        await self._write(f"UPDATE replicas SET due_at = now() WHERE {OF_FILES} AND due_at IS NOT NULL")

    async def end_waits(self):
        """Let a repair look again at once; none is looking now, for its lease is longer than any wait."""
        between = "state = 'pending' AND looks > 0 AND due_at < now() + interval '30 seconds'"
        await self._write(f"UPDATE replicas SET due_at = now() WHERE {OF_FILES} AND {between}")

    async def come_to_rest(self, *, hurried=False, seconds=120.0):
        """Wait until nothing is due, and check the promise; the ids of the ready files.

        Where the providers are known to be idle, the waits between two looks can be ended: `hurried`.
        """
        deadline = time.monotonic() + seconds
        while not await self._rests():
            assert time.monotonic() < deadline, (await self.files(), await self.replicas())
            if hurried:
                await self.end_waits()
            await asyncio.sleep(0.02)
        known = [row["provider_file_id"] for row in await self.replicas() if row["state"] in ("stored", "processing")]
        assert sorted(self.held()) == sorted(known)
        ready = [row["id"] for row in await self.files()]
        assert self.kept() == ready
        return ready

    def _there(self):
        return [one for one in self._sandbox.files if one["sha256"] == self._sha256]

    async def _rests(self):
        due = [row for row in await self.replicas() if row["due_at"] or row["state"] in ("pending", "deleting")]
        return not due and all(row["state"] == "ready" for row in await self.files())

    async def _write(self, statement):
        async with self._database.write() as writer:
            await writer.execute(text(statement), {"name": self._filename})

    async def _rows(self, statement):
        async with self._database.read() as reader:
            return await reader.all(text(statement), {"name": self._filename})
