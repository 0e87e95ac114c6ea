"""Caches that NOTIFY keeps true in every process.

A cache answers only while the listening connection lives; without it every look-up goes to the database. One may
remember what it knew for a while, for when the database cannot be reached.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, TypeVar

import asyncpg
import structlog

from app.db.session import Database, connect
from app.errors import Overloaded

log = structlog.get_logger("filemux.db")

RECONNECT_SECONDS = 1.0
HEARTBEAT_SECONDS = 5.0
# The payload that empties a cache.
EVERYTHING = "*"

Value = TypeVar("Value")


class NotifiedCache(Generic[Value]):
    """A bounded map from key to value; a NOTIFY on its channel whose payload is the key forgets the entry."""

    def __init__(self, channel: str, max_entries: int, remember_seconds: float = 0.0) -> None:
        self.channel = channel
        self._max_entries = max_entries
        self._entries: OrderedDict[str, Value] = OrderedDict()
        self._remember_seconds = remember_seconds
        # What is no longer surely true, and until when it may still be used.
        self._remembered: OrderedDict[str, tuple[Value, float]] = OrderedDict()
        self._listening = False
        # Counts what was forgotten, so that a value read before a NOTIFY is not kept after it.
        self._generation = 0

    def get(self, key: str) -> Value | None:
        """The cached value, if there is one that is surely true."""
        return self._entries.get(key)

    async def get_or_load(self, key: str, load: Callable[[], Awaitable[Value | None]]) -> Value | None:
        """The cached value or what `load` finds; None is never kept. What is remembered, where it raises Overloaded."""
        if (value := self._entries.get(key)) is not None:
            return value
        generation = self._generation
        try:
            loaded = await load()
        except Overloaded:
            value, until = self._remembered.get(key, (None, 0.0))
            if time.monotonic() >= until:
                raise
            return value
        self._remembered.pop(key, None)
        if loaded is not None and generation == self._generation:
            self._keep(key, loaded)
        return loaded

    def _keep(self, key: str, value: Value) -> None:
        if self._listening:
            self._entries[key] = value
            if len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
        else:
            self._remember(key, value)

    def _remember(self, key: str, value: Value) -> None:
        if self._remember_seconds:
            self._remembered[key] = value, time.monotonic() + self._remember_seconds
            if len(self._remembered) > self._max_entries:
                self._remembered.popitem(last=False)

    def forget(self, key: str) -> None:
        """Drop one entry, or all for `*`."""
        self._generation += 1
        for known in (self._entries, self._remembered):
            if key == EVERYTHING:
                known.clear()
            else:
                known.pop(key, None)

    def listening(self, alive: bool) -> None:
        """Told by the listener; a broken connection may have missed something, so everything is at most remembered."""
        self._listening = alive
        self._generation += 1
        for key, value in self._entries.items():
            self._remember(key, value)
        self._entries.clear()


async def listen(database: Database, caches: Iterable[NotifiedCache[Any]]) -> None:
    """Keep one listening connection for ever, feeding the caches. Runs as a task; ends when cancelled."""
    caches = tuple(caches)
    while True:
        try:
            await _listen_once(database, caches)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as failure:
            log.warning("lost the listening connection", reason=type(failure).__name__)
            if isinstance(failure, OSError):
                database.lost()
        finally:
            for cache in caches:
                cache.listening(False)
        await asyncio.sleep(RECONNECT_SECONDS)


async def _listen_once(database: Database, caches: tuple[NotifiedCache[Any], ...]) -> None:
    connection = await connect(database.url, "filemux listen")
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
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


def _forgets(cache: NotifiedCache[Any]) -> Callable[..., None]:
    def heard(_connection: object, _pid: int, _channel: str, payload: str) -> None:
        cache.forget(payload)

    return heard
