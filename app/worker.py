"""Runs the `*_due` functions until it is ended. It knows no domain: each claims, works, and says how much it found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

import structlog

from app.errors import Overloaded
from app.gateway import Gateway

log = structlog.get_logger("filemux.worker")

Due = Callable[[Gateway], Coroutine[Any, Any, int]]

FAILED_SECONDS = 5.0
AGAIN_SECONDS = 5.0


def start(gateway: Gateway, dues: Mapping[Due, float]) -> list[asyncio.Task[None]]:
    """Each function in a loop of its own, so that a slow provider holds up only its own kind; it rests for its own
    number of seconds when it found nothing."""
    return [asyncio.create_task(_loop(gateway, due, idle_seconds)) for due, idle_seconds in dues.items()]


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel what would run for ever, and wait for its end."""
    while tasks:
        for task in tasks:
            task.cancel()
        # Once may not be enough: a failure that was on its way takes a cancellation's place.
        _, tasks = await asyncio.wait(tasks, timeout=AGAIN_SECONDS)


async def _loop(gateway: Gateway, due: Due, idle_seconds: float) -> None:
    while True:
        try:
            wait = 0.0 if await due(gateway) else idle_seconds
        except Overloaded:
            wait = FAILED_SECONDS
        except Exception:
            log.exception("a worker's round failed", due=getattr(due, "__name__", "?"))
            wait = FAILED_SECONDS
        await asyncio.sleep(wait)
