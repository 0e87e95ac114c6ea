"""A sandbox, a database and gateways of a test's own: nothing else is there, so all there is can be compared."""

import asyncio
import time
from collections import Counter

import yaml

from app.sandbox.config import BUCKET, sandbox_configuration
from tests.conftest import MASTER_KEY
from tests.support.processes import Gateway
from tests.support.rest import SOURCES, SOURCES_KEY

# A repair waits between two looks for what a provider may still be storing. Where whoever sent it is dead, nothing is.
NO_WAITS = """
CREATE FUNCTION look_again_at_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.due_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER look_again_at_once BEFORE UPDATE ON replicas
FOR EACH ROW WHEN (NEW.state = 'pending' AND NEW.looks > OLD.looks) EXECUTE FUNCTION look_again_at_once();
"""
# The providers' clock may be days ahead, so what they made last is not too young to be a lost upload's.
LOST_IN_THE_FUTURE = """
CREATE FUNCTION lost_in_the_future() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.lost_at := NEW.lost_at + interval '10 years';
    RETURN NEW;
END $$;
CREATE TRIGGER lost_in_the_future BEFORE UPDATE OF lost_at ON replicas
FOR EACH ROW WHEN (OLD.lost_at IS NULL) EXECUTE FUNCTION lost_in_the_future();
"""
BACKLOG = """
SELECT f.filename, r.account, r.state, r.due_at, r.attempts, r.looks, r.last_error
FROM replicas r JOIN files f ON f.id = r.file_id
WHERE r.state IN ('pending', 'processing', 'deleting') OR r.due_at IS NOT NULL
UNION ALL
SELECT filename, source, state, due_at, attempts, 0, last_error FROM files WHERE state <> 'ready'
UNION ALL
SELECT b.id, p.account, p.state, b.due_at, b.attempts, p.looks, coalesce(p.last_error, b.last_error)
FROM batches b JOIN batch_parts p ON p.batch_id = b.id WHERE b.due_at IS NOT NULL OR p.state <> 'gone'
"""
LIVE = """
SELECT r.provider, r.provider_file_id AS id, f.sha256, f.filename FROM replicas r JOIN files f ON f.id = r.file_id
WHERE r.state = 'stored' AND (r.expires_at IS NULL OR r.expires_at > now() + $1 * interval '1 second')
"""


async def until(probe, seconds=120.0):
    """Poll until the probe, which awaits, is true."""
    deadline = time.monotonic() + seconds
    while not await probe():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def bare(id_or_address):
    """The last name in a path."""
    return (id_or_address or "").rpartition("/")[2]


class World:
    """`connection` is a raw one to the database; each gateway has its directory below `directory`."""

    def __init__(self, sandbox, database_url, connection, directory):
        self.sandbox, self.connection = sandbox, connection
        self._database_url, self._directory = database_url, directory
        # How far the providers' clock is ahead of the rows'.
        self._ahead_seconds = 0

    def start(self, name="gateway"):
        """The gateway of this name, on the data directory that it had before."""
        directory = self._directory / name
        directory.mkdir(exist_ok=True)
        config = directory / "config.yaml"
        keys = {"access_key_id": SOURCES_KEY, "secret_access_key": "secret"}
        bucket = {"bucket": BUCKET, "endpoint_url": f"{self.sandbox.url}/s3"}
        content = {
            **sandbox_configuration(self.sandbox.url),
            "general_settings": {"master_key": MASTER_KEY},
            "filemux": {"sources": {"store": "s3", **bucket, **keys}},
        }
        config.write_text(yaml.safe_dump(content))
        return Gateway("--config", config, FILEMUX_DATA_DIR=directory, DATABASE_URL=self._database_url)

    def advance(self, seconds):
        """Move the providers' clock forward."""
        self.sandbox.advance(seconds)
        self._ahead_seconds += seconds

    async def forget(self):
        """Let there be no file anywhere, whatever a failed test has left."""
        await self.connection.execute("TRUNCATE files, replicas, file_targets, idempotency_keys, batches, batch_parts")
        self.sandbox.reset()
        self._ahead_seconds = 0

    async def end_leases(self):
        """Nobody is left who could renew them."""
        for table in ("files", "replicas", "batches"):
            await self.connection.execute(f"UPDATE {table} SET due_at = now() WHERE due_at > now()")

    async def come_to_rest(self, seconds=120.0):
        """Wait until nothing is due; the providers then hold exactly the live replicas and no batch that no part knows,
        the bucket the ready files."""
        deadline = time.monotonic() + seconds
        while due := await self.connection.fetch(BACKLOG):
            assert time.monotonic() < deadline, "\n".join(map(str, due))
            # A batch rests between two looks at its provider.
            await self.connection.execute("UPDATE batches SET due_at = now() WHERE lease IS NULL AND due_at > now()")
            await asyncio.sleep(0.05)
        live = [tuple(row) for row in await self.connection.fetch(LIVE, self._ahead_seconds)]
        there = self.sandbox.files
        held = [(one["provider"], one["id"], one["sha256"], one["filename"]) for one in there]
        of_providers = [row for row, one in zip(held, there, strict=True) if one["account"] != SOURCES]
        kept = [bare(one["id"]) for one in there if one["account"] == SOURCES]
        ready = [row["id"] for row in await self.connection.fetch("SELECT id FROM files")]
        known = await self.connection.fetch("SELECT provider_batch_id AS id FROM batch_parts WHERE state = 'gone'")
        running = {bare(one["id"]) for one in self.sandbox.state()["batches"]}
        problems = {
            "held, but no live replica": Counter(of_providers) - Counter(live),
            "live replica, but not held": Counter(live) - Counter(of_providers),
            "kept, but no ready file": Counter(kept) - Counter(ready),
            "ready file, but not kept": Counter(ready) - Counter(kept),
            "batch that no part knows": running - {bare(row["id"]) for row in known},
        }
        assert not any(problems.values()), problems
