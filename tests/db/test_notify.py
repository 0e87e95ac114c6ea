"""A notified cache never answers with what is no longer true: a load races a NOTIFY, the listener is cut off."""

import asyncio
import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from app.db.notify import EVERYTHING, NotifiedCache, listen
from app.errors import Overloaded
from tests.conftest import connected
from tests.support.clock import StillClock

CHANNEL = "filemux_test"
LISTENER = "SELECT pid FROM pg_stat_activity WHERE application_name = 'filemux listen' AND datname = current_database()"


def listening_cache(max_entries=100):
    cache = NotifiedCache(CHANNEL, max_entries)
    cache.listening(True)
    return cache


async def load(value):
    return value


async def test_a_value_is_loaded_once():
    cache = listening_cache()
    assert await cache.get_or_load("a", lambda: load(1)) == 1
    assert await cache.get_or_load("a", lambda: load(2)) == 1
    assert cache.get("a") == 1


async def test_nothing_found_is_asked_again():
    cache = listening_cache()
    assert await cache.get_or_load("a", lambda: load(None)) is None
    assert await cache.get_or_load("a", lambda: load(1)) == 1


async def test_without_a_listener_nothing_is_kept():
    cache = NotifiedCache(CHANNEL, 100)
    assert await cache.get_or_load("a", lambda: load(1)) == 1
    assert cache.get("a") is None


@pytest.mark.parametrize("payload", ["a", EVERYTHING])
async def test_forgetting(payload):
    cache = listening_cache()
    for key in ("a", "b"):
        await cache.get_or_load(key, lambda: load(1))
    cache.forget(payload)
    assert cache.get("a") is None
    assert cache.get("b") == (None if payload == EVERYTHING else 1)


async def test_the_cache_is_bounded():
    cache = listening_cache(max_entries=3)
    for key in "abcde":
        await cache.get_or_load(key, lambda: load(1))
    assert [key for key in "abcde" if cache.get(key)] == ["c", "d", "e"]


# --- what is remembered -----------------------------------------------------------------------------------------


async def out_of_reach():
    raise Overloaded("the database cannot be reached")


async def remembered(cache, key):
    """What a cache answers without a database."""
    with contextlib.suppress(Overloaded):
        return await cache.get_or_load(key, out_of_reach)


@pytest.fixture
async def cut_off():
    """A cache that has lost its listener, and knew a and b when it did."""
    cache = NotifiedCache(CHANNEL, 3, remember_seconds=60)
    cache.listening(True)
    for key in ("a", "b"):
        await cache.get_or_load(key, lambda: load(1))
    cache.listening(False)
    return cache


async def test_what_was_true_when_the_listener_was_lost_answers_for_an_unreachable_database(cut_off):
    assert cut_off.get("a") is None
    assert [await remembered(cut_off, key) for key in "abc"] == [1, 1, None]
    assert await cut_off.get_or_load("a", lambda: load(2)) == 2
    assert await remembered(cut_off, "a") == 2


async def test_a_cache_that_is_not_to_remember_does_not():
    cache = listening_cache()
    await cache.get_or_load("a", lambda: load(1))
    cache.listening(False)
    await cache.get_or_load("b", lambda: load(1))
    assert [await remembered(cache, key) for key in "ab"] == [None, None]


async def test_what_is_known_to_be_gone_is_not_remembered(cut_off):
    assert await cut_off.get_or_load("a", lambda: load(None)) is None
    cut_off.forget("b")
    assert [await remembered(cut_off, key) for key in "ab"] == [None, None]


async def test_a_revocation_that_is_heard_while_the_database_is_asked_counts(cut_off):
    async def forgotten_meanwhile():
        cut_off.forget("a")
        return await out_of_reach()

    with pytest.raises(Overloaded):
        await cut_off.get_or_load("a", forgotten_meanwhile)


async def test_it_is_remembered_for_a_while_from_when_it_was_last_known_to_be_true(cut_off, monkeypatch):
    clock = StillClock()
    monkeypatch.setattr("app.db.notify.time", clock)
    clock.now += 59
    assert await remembered(cut_off, "a") == 1
    cut_off.listening(False)
    clock.now += 2
    assert await remembered(cut_off, "a") is None


async def test_only_so_much_is_remembered(cut_off):
    for key in "cde":
        await cut_off.get_or_load(key, lambda: load(1))
    assert [key for key in "abcde" if await remembered(cut_off, key)] == ["c", "d", "e"]


# --- in any order -----------------------------------------------------------------------------------------------

# What may happen, in any order, to one key of which the database holds a number: a load begins (it reads at once), the
# oldest load ends, the row changes and commits (which sends a NOTIFY), the oldest NOTIFY arrives, the listener goes and
# comes.
STEPS = st.lists(st.sampled_from(["begin", "end", "change", "notice", "cut", "restore"]), max_size=40)


@given(steps=STEPS)
def test_once_every_notify_has_arrived_no_answer_is_stale(steps):
    asyncio.run(_replayed(steps))


async def _replayed(steps):
    cache, row, notices, alive, loads = listening_cache(), [0], 0, True, []

    async def slow_load(gate):
        value = row[0] + 1
        await gate.wait()
        return value

    async def begin():
        gate = asyncio.Event()
        loads.append((gate, asyncio.create_task(cache.get_or_load("key", lambda: slow_load(gate)))))
        await asyncio.sleep(0)

    async def end():
        gate, task = loads.pop(0)
        gate.set()
        await task

    for step in steps:
        match step:
            case "begin":
                await begin()
            case "end" if loads:
                await end()
            case "change":
                row[0] += 1
                # A NOTIFY that nobody hears is lost.
                notices += alive
            case "notice" if notices:
                cache.forget("key")
                notices -= 1
            case "cut" | "restore":
                alive, notices = step == "restore", 0
                cache.listening(alive)
        if not notices:
            assert cache.get("key") in (None, row[0] + 1)
    while loads:
        await end()
    assert notices or cache.get("key") in (None, row[0] + 1)


# --- over a real connection -------------------------------------------------------------------------------------


async def until(probe, seconds=120.0):
    """Poll an async probe until it is true; its last answer."""
    deadline = time.monotonic() + seconds
    while not (answer := await probe()) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return answer


@pytest.fixture
async def listened(own, monkeypatch):
    """A cache that a real listener feeds, whom no pause of a busy machine makes lose its connection."""
    monkeypatch.setattr("app.db.notify.HEARTBEAT_SECONDS", 120)
    cache = NotifiedCache(CHANNEL, 100)
    task = asyncio.create_task(listen(own, [cache]))
    assert await kept(cache, "first")
    yield cache
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert cache.get("first") is None, "without its listener a cache is empty"


def kept(cache, key):
    """Whether a value is kept soon: only while somebody listens."""

    async def probe():
        await cache.get_or_load(key, lambda: load(1))
        return cache.get(key)

    return until(probe)


async def test_a_committed_change_is_heard(listened, own):
    async with own.write() as writer:
        await writer.notify(CHANNEL, "first")
        # Not before the commit: until then the old value is the true one.
        assert listened.get("first") == 1

    async def forgotten():
        return listened.get("first") is None

    assert await until(forgotten)


async def test_a_change_that_is_rolled_back_is_not(listened, own, rolled_back):
    await kept(listened, "second")
    await rolled_back(lambda writer: writer.notify(CHANNEL, "first"))
    async with own.write() as writer:
        await writer.notify(CHANNEL, "second")

    async def forgotten():
        return listened.get("second") is None

    # They come in order, so that the first would have come by now.
    assert await until(forgotten)
    assert listened.get("first") == 1


async def test_a_listener_that_is_cut_off_empties_the_cache_and_comes_back(listened, own_url, own):
    async with connected(own_url) as connection:
        before = await connection.fetchval(LISTENER)
        assert await connection.fetchval("SELECT pg_terminate_backend($1)", before)

        async def emptied():
            return listened.get("first") is None

        assert await until(emptied)
        assert await kept(listened, "first")
        assert await connection.fetchval(LISTENER) not in (None, before)
    async with own.write() as writer:
        await writer.execute(text("SELECT pg_notify(:channel, '*')"), {"channel": CHANNEL})
    assert await until(emptied)
