"""The rows of a file's replicas as the gateway keeps them, and a hand on their clock."""

import asyncio
import time

from sqlalchemy import text

from app.files.replicas.queries import FILES_CHANNEL


class Replicas:
    """Those of one file."""

    def __init__(self, database, file_id):
        self._database, self._file_id = database, file_id

    async def all(self):
        """Their rows, the oldest first."""
        async with self._database.read() as reader:
            query = "SELECT * FROM replicas WHERE file_id = :id ORDER BY created_at, id"
            return await reader.all(text(query), {"id": self._file_id})

    async def set(self, condition="true", **columns):
        """Change the rows behind the gateway's back, by SQL expressions."""
        changes = ", ".join(f"{column} = {expression}" for column, expression in columns.items())
        statement = f"UPDATE replicas SET {changes} WHERE file_id = :id AND {condition}"
        async with self._database.write() as writer:
            assert await writer.execute(text(statement), {"id": self._file_id})
            await writer.notify(FILES_CHANNEL, self._file_id)

    async def until(self, probe, seconds=120.0):
        """The rows once the probe is true of them."""
        deadline = time.monotonic() + seconds
        while not probe(rows := await self.all()):
            assert time.monotonic() < deadline, rows
            await asyncio.sleep(0.02)
        return rows

    async def become(self, *states):
        """The rows once there are exactly some in these states."""
        return await self.until(lambda rows: sorted(row["state"] for row in rows) == sorted(states))
