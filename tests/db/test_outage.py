"""A database that hangs, or was restarted: nobody waits for it twice, and it is found again by itself."""

import asyncio
import contextlib
import os
import signal
import time
import uuid
from pathlib import Path

import pytest
from sqlalchemy import text

from app.db.embedded import EmbeddedPostgres
from app.db.notify import NotifiedCache, listen
from app.db.session import POOL_WAIT_SECONDS, Database
from app.errors import Overloaded
from tests.db.test_notify import CHANNEL, kept, until
from tests.support.processes import family

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="stops all processes of a server by /proc")
PATIENCE_SECONDS = 0.5


@pytest.fixture(scope="module")
def server(data_dir):
    """A PostgreSQL that may hang and stop."""
    with EmbeddedPostgres(data_dir / uuid.uuid4().hex) as running:
        yield running


@pytest.fixture
async def opened(server, monkeypatch):
    monkeypatch.setattr("app.db.session.LOOK_SECONDS", 0.05)
    database = Database(server.url)
    yield database
    await database.close()


@pytest.fixture
async def impatient(monkeypatch, opened):
    """The same, with less patience."""
    monkeypatch.setattr("app.db.session.POOL_WAIT_SECONDS", PATIENCE_SECONDS)
    database = Database(opened.url.render_as_string(hide_password=False))
    yield database
    await database.close()


@contextlib.contextmanager
def hanging(server):
    """All processes of the server stand still until the block ends."""
    postmaster = int((server.data_dir / "postgres/postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGSTOP)
    pids = [postmaster, *family(postmaster)]
    _tell(signal.SIGSTOP, pids)
    try:
        yield
    finally:
        _tell(signal.SIGCONT, pids)


def _tell(number, pids):
    for pid in pids:
        # One may have been about to end.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def backend(database):
    """The server's process that a connection of the pool has."""
    async with database.read() as reader:
        return (await reader.first(text("SELECT pg_backend_pid() AS pid")))["pid"]


async def answers(database):
    with contextlib.suppress(Overloaded):
        return await backend(database) is not None


async def seconds_to_refuse(database, times=1):
    started = time.monotonic()
    for _ in range(times):
        with pytest.raises(Overloaded):
            await backend(database)
    return time.monotonic() - started


async def test_a_database_that_hangs_is_waited_for_once(impatient, server):
    with hanging(server):
        assert await seconds_to_refuse(impatient) >= PATIENCE_SECONDS
        assert await seconds_to_refuse(impatient, times=100) < 100 * PATIENCE_SECONDS / 2
    assert await until(lambda: answers(impatient))


async def test_a_listener_that_hears_nothing_tells_that_the_database_hangs(opened, server, monkeypatch):
    monkeypatch.setattr("app.db.notify.HEARTBEAT_SECONDS", 0.2)
    cache = NotifiedCache(CHANNEL, 100, remember_seconds=60)
    listening = asyncio.create_task(listen(opened, [cache]))
    assert await kept(cache, "first")

    async def found():
        # So short a heartbeat may miss a beat.
        with contextlib.suppress(Overloaded):
            return await backend(opened)

    before = await until(found)

    async def lost():
        return cache.get("first") is None

    with hanging(server):
        assert await until(lost)
        # The pool's connection would hang for as long as a statement may take.
        assert await seconds_to_refuse(opened, times=100) < 100 * POOL_WAIT_SECONDS / 2
        assert await cache.get_or_load("first", lambda: backend(opened)) == 1
    assert await until(found) not in (None, before)
    assert await kept(cache, "first")
    listening.cancel()
    await asyncio.wait({listening})


async def test_a_connection_from_before_an_outage_is_not_used_again(opened, server):
    async with asyncio.timeout(120):
        await asyncio.gather(*(backend(opened) for _ in range(5)))
        server.stop()
        assert not await answers(opened)
        server.start()
        assert await until(lambda: answers(opened))
        await asyncio.gather(*(backend(opened) for _ in range(10)))


async def test_a_pool_ends_while_its_database_hangs(server):
    database = Database(server.url)
    assert await until(lambda: answers(database))
    with hanging(server):
        await asyncio.wait_for(database.close(), 60)


async def test_a_server_that_refuses_is_no_server_that_hangs(server):
    """Such as one that is starting, or has no connection to spare: the next request may be luckier."""
    refusing = Database(server.url.replace("/filemux?", "/no-such-database?"))
    for _ in range(2):
        with pytest.raises(Overloaded, match="refuses"):
            await backend(refusing)
    refusing.lost()
    with pytest.raises(Overloaded, match="cannot be reached"):
        await backend(refusing)

    async def found_again():
        with pytest.raises(Overloaded) as failure:
            await backend(refusing)
        return "refuses" in failure.value.message

    assert await until(found_again)
    await refusing.close()
