"""Two gateways of one world that are killed, asked for answers, and started again."""

import asyncio
import itertools
import signal
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress

import httpx
import openai

from tests.conftest import MASTER_KEY

GATEWAYS = ("one", "other")
LOOK_SECONDS = 0.2
# What says nothing about the file.
UNANSWERED = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError)


class Pair:
    """Two gateways of one world, for code that runs in a thread beside the loop of the world's connection."""

    def __init__(self, world, loop):
        self.world, self._loop = world, loop
        self._running, self._clients = {}, {}
        self._pool = ThreadPoolExecutor(8)
        self.revive()

    def pid(self, at):
        """Of the gateway that is asked there."""
        return self._running[self._turns(at)[0]].process.pid

    def client(self, at):
        """The SDK at this gateway, which retries what can be retried."""
        return self._clients[at].with_options(max_retries=5)

    def _turns(self, at):
        """Those that run, this one first; at least one does."""
        if not self._running:
            self.revive()
        return sorted(self._running, key=lambda name: name != at)

    def wait_for(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def revive(self):
        """Let nothing go wrong any more, and start those that are dead."""
        self.world.sandbox.heal()
        self._bury()
        dead = [name for name in GATEWAYS if name not in self._running]
        for name, running in zip(dead, self._pool.map(self.world.start, dead), strict=True):
            self._running[name] = running
            options = {"api_key": MASTER_KEY, "max_retries": 0, "timeout": 30}
            self._clients[name] = openai.OpenAI(base_url=f"{running.url}/v1", **options)

    def kill(self, name):
        if name in self._running:
            self._running[name].process.kill()
            self._bury()

    def close(self):
        for name in GATEWAYS:
            self._take_away(name)
        self._pool.shutdown()

    def ask(self, *calls, at):
        """The answers to calls with an SDK's client, all at once, at the gateways in turn; None where there is none."""
        clients = [self._clients[name] for name in self._turns(at)]
        asked = [self._pool.submit(self._answer, *one) for one in zip(calls, itertools.cycle(clients), strict=False)]
        while wait(asked, LOOK_SECONDS).not_done:
            self._bury()
        self._bury()
        return [one.result() for one in asked]

    def _answer(self, call, client):
        try:
            return call(client)
        except UNANSWERED as failure:
            if getattr(failure, "status_code", None) == 500:
                # What the gateway did not expect.
                raise
            return None

    def _bury(self):
        """Take away those that were killed. Their leases end at once, for nobody renews them; nor is anybody else to be
        killed whose pid is theirs."""
        dead = [name for name, one in self._running.items() if not answers(one)]
        for name in dead:
            self._take_away(name)
        if dead:
            self.world.sandbox.heal()
            self.wait_for(self.world.end_leases())

    def _take_away(self, name):
        if name in self._running:
            self._running.pop(name).stop(signal.SIGKILL)
            self._clients.pop(name).close()


def answers(gateway):
    """A process that was killed a moment ago may still seem to run."""
    with suppress(httpx.HTTPError):
        return httpx.get(f"{gateway.url}/healthz").is_success
