"""uvicorn, with connections that can be cut from inside a request.

ASGI has no way to drop a connection: an application that returns without an answer is given a 500. So the
protocol puts its connection into each request's scope.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "filemux.sandbox.connection"
_PR_SET_PDEATHSIG = 1
# SO_LINGER of zero seconds turns a close into a reset (RST), as a crashed machine or a firewall gives it.
_LINGER_ZERO = struct.pack("ii", 1, 0)


class Connection:
    """The TCP connection below a request."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.lost = asyncio.Event()

    def reset(self) -> None:
        """Cut the connection at once, with whatever is in flight."""
        if not self._transport.is_closing():
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self._transport.abort()

    def close(self) -> None:
        """Cut the connection after what was already sent."""
        self._transport.close()

    async def wait_sent(self) -> None:
        """Return when the kernel has taken all that was written, or the connection is lost."""
        while self._transport.get_write_buffer_size() and not self.lost.is_set():
            await self.wait_lost(0.001)

    async def wait_lost(self, timeout_seconds: float | None = None) -> None:
        """Return when the connection is lost, or after the timeout."""
        await wait_for_any(timeout_seconds, self.lost)


async def wait_for_any(timeout_seconds: float | None, *events: asyncio.Event) -> None:
    """Return when one of these is set, or after the timeout."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


def connection_of(scope: Scope) -> Connection:
    """Return the connection that a request came over; only the sandbox's own server tells."""
    connection = scope.get("extensions", {}).get(_EXTENSION)
    if not isinstance(connection, Connection):
        raise TypeError("the sandbox runs on its own server only: see app.sandbox.main.run")
    return connection


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with its connection in every scope."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._connection = Connection(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connection.lost.set()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: Any = {_EXTENSION: self._connection}
        self.scope["extensions"] = extensions


class _Server(uvicorn.Server):
    """A server that says where it listens once it does, and for which SIGTERM is an ordinary end."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets
        host, port = sockets[0].getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        print(f"sandbox listening on http://{host}:{port}", flush=True)  # noqa: T201

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own version raises the signal again at the end, which makes a clean exit look like a crash.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


def serve(app: ASGIApp, host: str, port: int) -> None:
    """Run `app` until SIGINT or SIGTERM; port 0 takes a free one."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        # Clients keep idle connections for a minute; a server that gave up first would race with their next request.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=2048) as listener:
        _Server(config).run(sockets=[listener])


def die_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the parent dies, however it dies. Linux only; elsewhere nothing."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was asked
        os.kill(os.getpid(), signal.SIGTERM)
