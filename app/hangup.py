"""A caller that hangs up ends the work that is being done for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

Receive = Callable[[], Awaitable[Any]]

# Most answers come sooner than this, and a watcher that never starts costs nothing.
PATIENCE_SECONDS = 0.02


class HungUp(Exception):
    """The caller has left; its answer has no reader."""


class EndedByHangUp:
    """`async with EndedByHangUp(receive):` cancels the block when the caller leaves, and raises HungUp.

    `receive` is the ASGI one, its body already read: the only message left is http.disconnect.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._hung_up = False
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> EndedByHangUp:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._hung_up:
            assert self._task is not None
            # The cancellation was ours: it ends here.
            self._task.uncancel()
            if kind is not None and issubclass(kind, asyncio.CancelledError):
                raise HungUp from error

    def _start(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._hung_up = True
        assert self._task is not None
        self._task.cancel()
