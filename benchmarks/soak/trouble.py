"""What breaks while the clients work: provider calls, gateways, PostgreSQL."""

import asyncio
import itertools
import signal
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Self

import httpx

from benchmarks.soak.fleet import Fleet
from benchmarks.soak.tally import Tally

FAULTY_SHARE = 0.1
LOOK_SECONDS = 0.2
RESTARTS, DOWN_SECONDS = 2, 2.0
GoesOn = Callable[[], bool]


class Switchboard:
    """The sandbox's state and faults."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=f"{url}/_sandbox", timeout=60)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def files(self) -> list[dict[str, Any]]:
        """All files at all providers."""
        return (await self._state())["files"]

    async def inject(self, goes_on: GoesOn, tally: Tally, random: Random) -> None:
        """Let about one call of ten go wrong: for each that was made, maybe the next of its kind."""
        seen: Counter[str] = Counter()
        while goes_on():
            calls = Counter((await self._state())["requests"])
            for name in (calls - seen).elements():
                if random.random() < FAULTY_SHARE:
                    provider, _, operation = name.rpartition(".")
                    kind, fault = _fault(random)
                    body = {"provider": provider, "operation": operation, **fault}
                    (await self._http.post("/faults", json=body)).raise_for_status()
                    tally.faults[kind] += 1
            seen = calls
            await asyncio.sleep(LOOK_SECONDS)

    async def heal(self, tally: Tally) -> None:
        """Take away the faults that nobody has met."""
        waiting = (await self._http.get("/faults")).raise_for_status().json()["faults"]
        (await self._http.delete("/faults")).raise_for_status()
        tally.faults_not_met = len(waiting)

    async def _state(self) -> dict[str, Any]:
        return (await self._http.get("/state")).raise_for_status().json()


def _fault(random: Random) -> tuple[str, dict[str, Any]]:
    """A fault, and its kind for the table."""
    name = random.choice(["status", "status", "status", "lose_answer", "reset_after_bytes", "delay_seconds"])
    match name:
        case "status":
            status = random.choice([500, 429, 503])
            return f"{status}", {"status": status} | ({"retry_after_seconds": 1} if status == 429 else {})
        case "lose_answer":
            return "answer lost", {name: True}
        case "reset_after_bytes":
            return "cut off", {name: random.randint(1, 100_000)}
        case _:
            return "delayed", {name: random.uniform(1, 2)}


async def kill(fleet: Fleet, goes_on: GoesOn, tally: Tally, every_seconds: float) -> None:
    """SIGKILL the gateways in turn; each is started again at once."""
    for gateway in itertools.cycle(fleet.gateways):
        await asyncio.sleep(every_seconds)
        if not goes_on():
            return
        await gateway.end(signal.SIGKILL)
        tally.kills += 1
        await gateway.start()


async def restart_postgres(fleet: Fleet, tally: Tally, run_seconds: float) -> None:
    """Stop the database and start it again, evenly over the run."""
    for _ in range(RESTARTS):
        await asyncio.sleep(run_seconds / (RESTARTS + 1))
        await asyncio.to_thread(fleet.postgres.stop)
        await asyncio.sleep(min(DOWN_SECONDS, run_seconds / 10))
        # Not in a thread: Linux ends the server with the thread that started it.
        fleet.postgres.start()
        tally.restarts += 1
