"""One worker of `filemux serve`: uvicorn, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app import ids, logs
from app.errors import BadRequest
from app.settings import Settings

# What a request that is cut off may take to clean up.
GIVE_UP_SECONDS = 1.0


class _Protocol(HttpToolsProtocol):
    """Refuses what is no HTTP in the same envelope as everything else."""

    def send_400_response(self, msg: str) -> None:
        refusal = BadRequest("this is no valid HTTP request", code="invalid_http")
        body = refusal.body()
        facts = {"x-request-id": ids.new_request_id(), "content-length": len(body), "connection": "close"}
        lines = [f"{name}: {value}" for name, value in (refusal.headers() | facts).items()]
        self.transport.write("\r\n".join(["HTTP/1.1 400 Bad Request", *lines, "", ""]).encode() + body)
        self.transport.close()


class Server(uvicorn.Server):
    """Calls `says_ready` once it listens.

    The first signal lets its requests end first, for `drain_seconds`; the next SIGINT or `at_once` cuts them off.
    """

    def __init__(self, found: Settings, says_ready: Callable[[], None], at_once: signal.Signals) -> None:
        logs.configure()
        from app.main import create_app  # noqa: PLC0415  its metrics read PROMETHEUS_MULTIPROC_DIR when imported

        config = uvicorn.Config(
            create_app(found),
            loop="uvloop",
            http=_Protocol,
            ws="none",
            lifespan="on",
            access_log=False,
            log_level="warning",
            server_header=False,
            # Longer than the balancers' and clients' minute: who closes first must not be us.
            timeout_keep_alive=75,
        )
        super().__init__(config)
        self._says_ready = says_ready
        self._drain_seconds = found.options.drain_seconds
        self._at_once = at_once

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self.started:
            self._says_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and wait for those that run."""
        # uvicorn's own grace period ends behind the application's back, which then cannot take its rows back.
        end_of_grace = asyncio.get_running_loop().call_later(self._drain_seconds, self._cut_off)
        await super().shutdown(sockets)
        end_of_grace.cancel()

    def _cut_off(self) -> None:
        loop = asyncio.get_running_loop()
        self._cancel_requests()
        # Who is still cleaning up then leaves the rest to the next start, and who takes no answer then gets none.
        loop.call_later(GIVE_UP_SECONDS, self._cancel_requests)
        loop.call_later(2 * GIVE_UP_SECONDS, self._disconnect)

    def _disconnect(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _cancel_requests(self) -> None:
        for task in self.server_state.tasks:
            task.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first signal ends the main loop."""
        # uvicorn's own version raises the signal again at the end, which makes an orderly end look like a crash.
        loop = asyncio.get_running_loop()

        def end(number: int, _frame: FrameType | None) -> None:
            if self.should_exit and number in (signal.SIGINT, self._at_once):
                loop.call_soon_threadsafe(self._cut_off)
            self.should_exit = True

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        yield
