"""The sandbox as the tests start it: `DELETE /_sandbox/delays` lets go whatever a fault delays or slows down now.

So what is to be seen while a call is under way is not a matter of how fast the machine is: the call lasts for as long
as the test wants.
"""

import asyncio

from starlette.responses import Response
from starlette.routing import Route

from app.sandbox import exchange, main, server, switchboard


class Delays:
    """Those of now; who is delayed later waits for the next release."""

    def __init__(self):
        self.released = asyncio.Event()

    def release(self):
        self.released.set()
        self.released = asyncio.Event()


delays = Delays()


async def unless_released(waiting, released):
    """Wait, but not for longer than until the release."""
    tasks = [asyncio.ensure_future(waiting), asyncio.ensure_future(released.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


class Connection(server.Connection):
    async def wait_lost(self, timeout_seconds=None):
        if timeout_seconds is None:
            await super().wait_lost()
        else:
            await unless_released(super().wait_lost(timeout_seconds), delays.released)


class Pace(exchange.Pace):
    def __init__(self, bytes_per_second):
        super().__init__(bytes_per_second)
        self._released = delays.released

    async def spend(self, count, *, last):
        if not self._released.is_set():
            await unless_released(super().spend(count, last=last), self._released)


class Switchboard(switchboard.Switchboard):
    def routes(self):
        return [*super().routes(), Route("/delays", self._release, methods=["DELETE"])]

    async def _release(self, _request):
        delays.release()
        return Response(status_code=204)


if __name__ == "__main__":
    server.Connection, exchange.Pace, main.Switchboard = Connection, Pace, Switchboard
    main.run("127.0.0.1", 0)
