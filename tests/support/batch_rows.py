"""The rows of batches as the gateway keeps them, a hand on their clock, and what is to be left in the end: nothing."""

import asyncio
import time

from sqlalchemy import bindparam, text

# Nobody works on it, or whoever did is dead.
IDLE = "lease IS NULL AND due_at IS NOT NULL"


class BatchRows:
    """Those of some batches."""

    def __init__(self, database, sandbox, *batches):
        self._database, self._sandbox = database, sandbox
        self._ids = [one.id for one in batches]

    async def batches(self):
        """Their rows, the oldest first."""
        return await self._all("SELECT * FROM batches WHERE id IN :ids ORDER BY id")

    async def parts(self):
        """The rows of their parts."""
        return await self._all("SELECT * FROM batch_parts WHERE batch_id IN :ids ORDER BY batch_id, id")

    async def mappings(self):
        """What an operator sees of them, and how long they wait."""
        query = "SELECT *, due_at - now() AS rest FROM batch_mappings WHERE batch_id IN :ids ORDER BY batch_id, account"
        return await self._all(query)

    async def hurry(self):
        """End their waits, whatever they wait for."""
        await self.set(IDLE, due_at="now()")

    async def end_leases(self):
        """Let whoever worked on them have been gone for long."""
        await self.set("due_at IS NOT NULL", due_at="now()")

    async def set(self, condition="true", **columns):
        """Change the rows behind the gateway's back, by SQL expressions."""
        changes = ", ".join(f"{column} = {expression}" for column, expression in columns.items())
        statement = f"UPDATE batches SET {changes} WHERE id IN :ids AND {condition}"
        async with self._database.write() as writer:
            await writer.execute(self._about(statement), {"ids": self._ids})

    async def until(self, probe, look=None, *, hurried=True, seconds=120.0):
        """The rows of the parts, or whatever is looked at, once the probe is true of them."""
        look = look or self.parts
        deadline = time.monotonic() + seconds
        while not probe(found := await look()):
            assert time.monotonic() < deadline, [*map(dict, found)]
            if hurried:
                await self.hurry()
            await asyncio.sleep(0.05)
        return found

    async def become(self, *states, **options):
        """The rows of the parts once all of them are in one of these states."""
        return await self.until(lambda parts: all(part["state"] in states for part in parts), **options)

    async def come_to_rest(self):
        """Let the providers run, and wait until nothing is due for them; the providers then hold neither their inputs
        nor their results."""

        def are_over(rows):
            self._sandbox.advance(1)
            return all(row["due_at"] is None for row in rows)

        await self.until(are_over, self.batches)
        parts = await self.parts()
        assert {part["state"] for part in parts} == {"gone"}
        kept = await self._all("SELECT provider_file_id AS id FROM replicas WHERE state = 'stored'", None)
        left = {file["id"]: file["filename"] for file in self._sandbox.files}
        assert {one: left[one] for one in {*left} - {row["id"] for row in kept}} == {}

    async def _all(self, statement, ids=()):
        values = {} if ids is None else {"ids": self._ids}
        async with self._database.read() as reader:
            return await reader.all(text(statement) if ids is None else self._about(statement), values)

    @staticmethod
    def _about(statement):
        return text(statement).bindparams(bindparam("ids", expanding=True))
