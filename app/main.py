"""Composition root: settings → database, connections, providers, caches, worker → the ASGI app."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from starlette.routing import Router

from app import deployments, routes, worker
from app.access.authenticate import Keys
from app.access.idempotency import idempotency_due
from app.batches.advance import Runs, Step, batches_due
from app.batches.finish import finish
from app.batches.forget import forget
from app.batches.poll import poll
from app.batches.submit import submit
from app.db.notify import listen
from app.db.session import Database
from app.edge import Edge
from app.files.accounts.blocked import blocked_due
from app.files.backfill.make import Backfills, backfill_due
from app.files.backfill.refresh import refresh_due
from app.files.delete import delete_due
from app.files.direct.listing import Cursors
from app.files.expire import expire_due
from app.files.mappings import Mappings
from app.files.processing import processing_due
from app.files.repair import repair_due
from app.files.sources import Sources, sources_due
from app.gateway import Gateway
from app.providers.http import open_http
from app.seals import Seals
from app.settings import Settings

log = structlog.get_logger("filemux")

# Each with how long it rests when it found nothing, in seconds.
DUES: dict[worker.Due, float] = {
    backfill_due: 0.5,
    batches_due: 0.5,
    blocked_due: 2.0,
    delete_due: 0.5,
    expire_due: 0.5,
    idempotency_due: 60.0,
    processing_due: 0.5,
    refresh_due: 5.0,
    repair_due: 0.5,
    sources_due: 0.5,
}

# What is to be done next for a batch, by its status.
BATCH_STEPS: dict[str, Step] = {
    "validating": submit,
    "in_progress": poll,
    "cancelling": poll,
    "finalizing": finish,
    "completed": forget,
    "failed": forget,
    "expired": forget,
    "cancelled": forget,
}


def create_app(settings: Settings) -> Edge:
    """The ASGI app of one process. The settings must have a database and a master key (see app.serve)."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, Any]]:
        async with running(settings) as gateway:
            _spare_the_collector()
            yield {"gateway": gateway}

    router = Router(routes.ROUTES, default=routes.not_found, redirect_slashes=False, lifespan=lifespan)
    return Edge(router)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Gateway]:
    """A gateway with its worker and its caches, until the block is left. Raises SettingsError."""
    assert settings.database_url is not None
    assert settings.master_key is not None
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(open_http())
        built = deployments.build(settings, http)
        warn_of_ignored([*settings.ignored, *built.ignored])
        database = Database(settings.database_url)
        stack.push_async_callback(database.close)
        keys = Keys(database, settings.master_key.get_secret_value())
        mappings = Mappings(database)
        spool_dir = settings.data_dir / "spool"
        spool_dir.mkdir(parents=True, exist_ok=True)
        sources = Sources(settings.options.sources, settings.data_dir / "sources")
        backfills = Backfills()
        stack.push_async_callback(backfills.close)
        batches = Runs(BATCH_STEPS)
        stack.push_async_callback(batches.close)
        secrets = [key.get_secret_value() for key in settings.secret_keys]
        gateway = Gateway(
            settings.options,
            spool_dir,
            database,
            built,
            keys,
            mappings,
            sources,
            backfills,
            batches,
            Seals(secrets, accept_litellm_ids=settings.options.accept_litellm_ids),
            Cursors(),
        )
        listener = asyncio.create_task(listen(database, (keys.cache, mappings.cache)))
        stack.push_async_callback(worker.end, [listener, *worker.start(gateway, DUES)])
        yield gateway


def _spare_the_collector() -> None:
    """Take what lives as long as the process out of the garbage collector's sight: walking through all modules in the
    middle of a request showed as a tail of 100 ms."""
    gc.collect()
    gc.freeze()


def warn_of_ignored(ignored: list[str]) -> None:
    """One warning that lists what other gateways' files hold beyond ours."""
    if ignored:
        log.warning("these settings are not filemux's and are ignored", settings=sorted(set(ignored)))
