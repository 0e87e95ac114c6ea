"""The worker's loops: what fails is tried again, and all of them end when they are asked to."""

import asyncio

from app import worker


async def test_a_function_that_fails_is_called_again_and_holds_up_no_other(monkeypatch):
    monkeypatch.setattr(worker, "FAILED_SECONDS", 0.0)
    calls, often = [], asyncio.Event()

    async def failing(_):
        calls.append("failing")
        raise ZeroDivisionError

    async def working(_):
        calls.append("working")
        if min(map(calls.count, ("failing", "working"))) > 2:
            often.set()
        return 0

    loops = worker.start(None, {failing: 60.0, working: 0.0})
    await often.wait()
    await worker.end(loops)
    assert all(loop.cancelled() for loop in loops)


async def test_a_failure_in_a_cancellations_place_keeps_nothing_from_ending(monkeypatch):
    monkeypatch.setattr(worker, "AGAIN_SECONDS", 0.01)
    begun = asyncio.Event()

    async def cut_off(_):
        begun.set()
        try:
            return await asyncio.Event().wait()
        finally:
            raise ConnectionError

    loops = worker.start(None, {cut_off: 60.0})
    await begun.wait()
    await worker.end(loops)
    assert all(loop.cancelled() for loop in loops)
