"""What the gateway's database says of a file, as an operator would ask it."""

import asyncio
import time

from sqlalchemy import text


class Rows:
    """The rows of files, by filename: a failed upload tells its caller no id."""

    def __init__(self, database):
        self._database = database

    async def mappings(self, filename):
        """The file's rows of `file_mappings`."""
        return await self._all(
            "SELECT * FROM file_mappings WHERE filename = :name ORDER BY model_name, account", filename
        )

    async def failed(self, filename, account):
        """The file's row of `replica_backlog` at an account where it has failed, between two tries."""
        deadline = time.monotonic() + 60
        while True:
            rows = [row for row in await self.backlog(filename) if row["account"] == account]
            if [row["state"] for row in rows] == ["failed"]:
                return rows[0]
            assert time.monotonic() < deadline, rows
            await asyncio.sleep(0.02)

    async def backlog(self, filename):
        """The file's rows of `replica_backlog`."""
        statement = "SELECT b.* FROM replica_backlog b JOIN files f ON f.id = b.file_id WHERE f.filename = :name"
        return await self._all(statement, filename)

    async def settled(self, filename, seconds=60.0):
        """Whether nothing is to be done for the file any more soon."""
        deadline = time.monotonic() + seconds
        while (left := await self.backlog(filename)) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return not left

    async def forgotten(self, filename, seconds=60.0):
        """Whether nothing is left of the file soon: every provider has confirmed that it holds it no more."""
        return not await self._files(filename, 0, seconds)

    async def file_ids(self, filename, seconds=60.0):
        """The ids of the files of this name, once what was begun too early is forgotten: one, or soon a failed test."""
        return await self._files(filename, 1, seconds)

    async def _files(self, filename, expected, seconds):
        deadline = time.monotonic() + seconds
        while len(rows := await self._all("SELECT id FROM files WHERE filename = :name", filename)) > expected:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.02)
        return [row["id"] for row in rows]

    async def expire(self, file_id):
        """Let a file's time have come a second ago."""
        statement = "UPDATE files SET expires_at = now() - interval '1 second' WHERE id = :id"
        async with self._database.write() as writer:
            assert await writer.execute(text(statement), {"id": file_id}) == 1

    async def lease_ends(self, filename):
        """Let whoever worked on a file's replicas have been gone for long."""
        statement = "UPDATE replicas SET due_at = now() WHERE file_id IN (SELECT id FROM files WHERE filename = :name)"
        async with self._database.write() as writer:
            await writer.execute(text(statement), {"name": filename})

    async def _all(self, statement, filename):
        async with self._database.read() as reader:
            return await reader.all(text(statement), {"name": filename})
