"""Caches that NOTIFY keeps true in every process.

A cache answers only while the listening connection lives; without it every look-up goes to the database.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, TypeVar

import asyncpg
import structlog
from sqlalchemy import URL

log = structlog.get_logger("filemux.db")

RECONNECT_SECONDS = 1.0
HEARTBEAT_SECONDS = 5.0
# The payload that empties a cache.
EVERYTHING = "*"

Value = TypeVar("Value")


class NotifiedCache(Generic[Value]):
    """A bounded map from key to value; a NOTIFY on its channel whose payload is the key forgets the entry."""

    def __init__(self, channel: str, max_entries: int) -> None:
        self.channel = channel
        self._max_entries = max_entries
        self._entries: OrderedDict[str, Value] = OrderedDict()
        self._listening = False
        # Counts what was forgotten, so that a value read before a NOTIFY is not kept after it.
        self._generation = 0

    def get(self, key: str) -> Value | None:
        """The cached value, if there is one that is surely true."""
        return self._entries.get(key)

    async def get_or_load(self, key: str, load: Callable[[], Awaitable[Value | None]]) -> Value | None:
        """The cached value or what `load` finds; None is never kept."""
        if (value := self._entries.get(key)) is not None:
            return value
        generation = self._generation
        loaded = await load()
        if loaded is not None and self._listening and generation == self._generation:
            self._entries[key] = loaded
            if len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
        return loaded

    def forget(self, key: str) -> None:
        """Drop one entry, or all for `*`."""
        self._generation += 1
        if key == EVERYTHING:
            self._entries.clear()
        else:
            self._entries.pop(key, None)

    def listening(self, alive: bool) -> None:
        """Told by the listener; a broken connection may have missed something, so everything goes."""
        self._listening = alive
        self._generation += 1
        self._entries.clear()


async def listen(url: URL, caches: Iterable[NotifiedCache[Any]]) -> None:
    """Keep one listening connection for ever, feeding the caches. Runs as a task; ends when cancelled."""
    caches = tuple(caches)
    while True:
        try:
            await _listen_once(url, caches)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as failure:
            log.warning("lost the listening connection", reason=type(failure).__name__)
        finally:
            for cache in caches:
                cache.listening(False)
        await asyncio.sleep(RECONNECT_SECONDS)


async def _listen_once(url: URL, caches: tuple[NotifiedCache[Any], ...]) -> None:
    # SQLAlchemy's dialect knows how its URLs are meant for asyncpg, a socket's directory in the query included.
    arguments = url.get_dialect()().create_connect_args(url)[1]
    arguments["server_settings"] = {"application_name": "filemux listen"}
    connection = await asyncpg.connect(**arguments, timeout=5)
    ended = asyncio.Event()
    connection.add_termination_listener(lambda _: ended.set())
    try:
        for cache in caches:
            await connection.add_listener(cache.channel, _forgets(cache))
        for cache in caches:
            cache.listening(True)
        while not ended.is_set():
            # A half-open connection hears nothing: ask, and give up when no answer comes.
            await connection.fetchval("SELECT 1", timeout=HEARTBEAT_SECONDS)
            try:
                await asyncio.wait_for(ended.wait(), HEARTBEAT_SECONDS)
            except TimeoutError:
                continue
    finally:
        await asyncio.shield(_closed(connection))


async def _closed(connection: asyncpg.Connection) -> None:
    try:
        await connection.close(timeout=1)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        connection.terminate()


def _forgets(cache: NotifiedCache[Any]) -> Callable[..., None]:
    def heard(_connection: object, _pid: int, _channel: str, payload: str) -> None:
        cache.forget(payload)

    return heard
