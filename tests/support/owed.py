"""What tests have left to be done. All gateways of the tests work on one database and one sandbox, so whichever of them
would do it, would do it in the middle of the next test."""

import asyncio
import time

from sqlalchemy import text

# Who works on a row holds it for a minute or two; a row that waits to be tried again is due sooner, or later than that.
HELD = "due_at BETWEEN now() + interval '30 seconds' AND now() + interval '130 seconds'"
# What a gateway would do something about, now or of its own accord within the time that a test takes.
REPLICAS = """
SELECT id FROM replicas
WHERE due_at IS NOT NULL OR blocked OR state IN ('pending', 'processing', 'deleting')
   OR expires_at < now() + interval '12 hours'
   OR file_id IN (SELECT id FROM files WHERE state <> 'ready' OR expires_at < now() + interval '10 minutes')
"""
FILES = """
SELECT id FROM files
WHERE (state <> 'ready' OR due_at IS NOT NULL OR expires_at < now() + interval '10 minutes')
  AND NOT EXISTS (SELECT FROM replicas WHERE file_id = files.id)
"""
BATCHES = "SELECT id FROM batches WHERE due_at IS NOT NULL"
OWED = {"replicas": REPLICAS, "files": FILES, "batches": BATCHES}
# Nobody works on it.
IDLE = {"replicas": f"({HELD}) IS NOT TRUE", "files": f"({HELD}) IS NOT TRUE", "batches": "lease IS NULL"}
FORGET = {
    "replicas": "DELETE FROM replicas WHERE id IN ({})",
    "files": "DELETE FROM files WHERE id IN ({})",
    "batches": """
        WITH over AS (
            UPDATE batches SET status = 'failed', due_at = NULL, lease = NULL WHERE id IN ({}) RETURNING id
        )
        UPDATE batch_parts SET state = 'gone' WHERE batch_id IN (SELECT id FROM over)
    """,
}


async def forget_what_is_owed(database, seconds=10.0):
    """Have nothing left to be done, once what is being done is over; nothing should hold it up any more."""
    deadline = time.monotonic() + seconds
    while await _left(database, IDLE):
        if time.monotonic() > deadline:
            # Whoever works on these was killed.
            await _left(database, dict.fromkeys(OWED, "true"))
            break
        await asyncio.sleep(0.02)


async def _left(database, conditions):
    """Forget what is owed and meets these conditions; whether anything is owed still. What a gateway has locked is left
    for the next look, so that neither waits for the other."""
    async with database.write() as writer:
        for table, condition in conditions.items():
            rows = f"SELECT id FROM {table} WHERE id IN ({OWED[table]}) AND {condition} FOR UPDATE SKIP LOCKED"
            await writer.execute(text(FORGET[table].format(rows)))
        return await writer.first(text(f"({REPLICAS}) UNION ALL ({BATCHES})"))
