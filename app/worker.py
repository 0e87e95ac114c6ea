"""Runs the `*_due` functions for ever. It knows no domain: each function claims, works, and says how much it found."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from app.errors import Overloaded
from app.gateway import Gateway

log = structlog.get_logger("filemux.worker")

Due = Callable[[Gateway], Awaitable[int]]

IDLE_SECONDS = 0.5
FAILED_SECONDS = 5.0


async def run(gateway: Gateway, dues: Iterable[Due]) -> None:
    """Work until cancelled; each function has its own loop, so that a slow provider holds up only its own kind."""
    async with asyncio.TaskGroup() as loops:
        for due in dues:
            loops.create_task(_loop(gateway, due))


async def _loop(gateway: Gateway, due: Due) -> None:
    while True:
        try:
            wait = 0.0 if await due(gateway) else IDLE_SECONDS
        except Overloaded:
            wait = FAILED_SECONDS
        except Exception:
            log.exception("a worker's round failed", due=getattr(due, "__name__", "?"))
            wait = FAILED_SECONDS
        await asyncio.sleep(wait)
