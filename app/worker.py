"""Runs the `*_due` functions for ever. It knows no domain: each function claims, works, and says how much it found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from app.errors import Overloaded
from app.gateway import Gateway

log = structlog.get_logger("filemux.worker")

Due = Callable[[Gateway], Coroutine[Any, Any, int]]

FAILED_SECONDS = 5.0


async def run(gateway: Gateway, dues: Mapping[Due, float]) -> None:
    """Work until cancelled; each function has its own loop, so that a slow provider holds up only its own kind, and
    rests for its own number of seconds when it found nothing."""
    async with asyncio.TaskGroup() as loops:
        for due, idle_seconds in dues.items():
            loops.create_task(_loop(gateway, due, idle_seconds))


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
