"""One request and its answer, on a wire that a fault may slow down, cut or silence, or whose client it kills."""

import asyncio
import os
import signal
from contextlib import suppress
from time import monotonic

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from app.sandbox.faults import Fault
from app.sandbox.server import Connection, connection_of, wait_for_any

# What a TCP receive window would absorb: a line that stalled this long catches up, and no more, so that
# sleeping too long by a millisecond costs nothing but an idle line saves nothing up.
_SLACK_SECONDS = 0.1
# Below this a timer is less exact than no timer.
_MIN_SLEEP_SECONDS = 0.002
_PACED_BYTES = 64 * 1024


class Pace:
    """Lets bytes pass no faster than a rate, by the deadline of each byte rather than a sleep per chunk."""

    def __init__(self, bytes_per_second: int, released: asyncio.Event) -> None:
        self._bytes_per_second = bytes_per_second
        self._released = released
        self._due = monotonic()

    async def spend(self, count: int, *, last: bool) -> None:
        """Return when `count` more bytes may have passed; to the moment if they are the last ones. At once when the
        line is released."""
        now = monotonic()
        self._due = max(self._due, now - _SLACK_SECONDS) + count / self._bytes_per_second
        ahead_seconds = self._due - now
        if ahead_seconds > (0 if last else _MIN_SLEEP_SECONDS):
            await wait_for_any(ahead_seconds, self._released)


class Exchange:
    """The two ASGI callables of a request. They are plain until `meet` tells which fault they suffer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._holds_back_body = (b"expect", b"100-continue") in scope["headers"]
        self._connection: Connection = connection_of(scope)
        self._cut = False
        self._silent = False
        self._up_pace: Pace | None = None
        self._down_pace: Pace | None = None
        self._up_bytes_left: int | None = None
        self._down_bytes_left: int | None = None
        self._kill_pid: int | None = None
        self._kill_at: str | None = None

    async def meet(self, fault: Fault, released: asyncio.Event, *, uploads: bool) -> None:
        """Suffer `fault` from here on; when the request uploads a file, its body is what is slow or cut.

        Raises ClientDisconnect when the client does not wait for as long as the fault delays, or is killed.
        """
        if fault.delay_seconds:
            await wait_for_any(fault.delay_seconds, self._connection.lost, released)
            if self._connection.lost.is_set():
                raise ClientDisconnect
        self._kill_pid, self._kill_at = fault.kill_pid, fault.kill_at
        if self._kill_at == "start":
            self._reset()
            raise ClientDisconnect
        self._silent = fault.lose_answer
        pace = Pace(fault.bytes_per_second, released) if fault.bytes_per_second else None
        if uploads:
            self._up_pace, self._up_bytes_left = pace, fault.reset_after_bytes
        else:
            self._down_pace, self._down_bytes_left = pace, fault.reset_after_bytes
        if fault.kill_after_bytes is not None:
            self._up_bytes_left = fault.kill_after_bytes

    async def receive(self) -> Message:
        """ASGI's receive. A cut connection looks like a client that has left."""
        if self._up_bytes_left == 0 and not self._cut:
            self._reset()
        if self._cut:
            return {"type": "http.disconnect"}
        self._holds_back_body = False
        message = await self._receive()
        if message["type"] != "http.request":
            return message
        count = len(message["body"])
        if self._up_pace is not None:
            await self._up_pace.spend(count, last=not message["more_body"])
        if self._up_bytes_left is not None:
            self._up_bytes_left -= min(count, self._up_bytes_left)
            if not self._up_bytes_left:
                self._reset()
                return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """ASGI's send. What is sent on a cut or silent wire is lost."""
        if self._down_bytes_left == 0:
            self._close()
        if self._cut or self._silent:
            return
        if message["type"] == "http.response.body":
            await self._send_body(message.get("body", b""), message.get("more_body", False))
        elif self._kill_at == "before_answer":
            self._reset()
        else:
            await self._send(self._closing(message) if self._holds_back_body else message)

    async def end(self) -> None:
        """Lose the answer if that is the fault; a cut connection is gone when this returns."""
        if self._silent:
            self._reset()
        if self._cut:
            # uvicorn answers 500 for an application that returns without an answer on a live connection.
            await self._connection.wait_lost()

    async def _send_body(self, body: bytes, more: bool) -> None:
        cut = False
        if self._down_bytes_left is not None:
            body = body[: self._down_bytes_left]
            self._down_bytes_left -= len(body)
            cut = not self._down_bytes_left
        more = more or cut  # else uvicorn would take the answer for complete
        step = _PACED_BYTES if self._down_pace else max(len(body), 1)
        for start in range(0, max(len(body), 1), step):
            piece, last = body[start : start + step], start + step >= len(body)
            if self._down_pace is not None:
                await self._down_pace.spend(len(piece), last=last)
            await self._send({"type": "http.response.body", "body": piece, "more_body": more or not last})
        if cut:
            self._close()
        elif self._kill_at == "after_answer" and not more:
            await self._connection.wait_sent()
            self._kill()

    def _closing(self, message: Message) -> Message:
        """Return the head of an answer that ends the connection.

        A client that was not told to continue sends no body, and its next request would be taken for that body.
        """
        return {**message, "headers": [*message["headers"], (b"connection", b"close")]}

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            if self._kill_pid is not None:
                os.kill(self._kill_pid, signal.SIGKILL)

    def _reset(self) -> None:
        self._kill()
        self._cut = True
        self._connection.reset()

    def _close(self) -> None:
        self._cut = True
        self._connection.close()
