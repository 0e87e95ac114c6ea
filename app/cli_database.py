"""How a command gets at the database: the configured one, or the embedded one of the data directory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

import click

from app.configuration import load
from app.db.embedded import attach_or_start
from app.db.session import Database
from app.settings import Settings

Result = TypeVar("Result")

config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="The YAML file; default: FILEMUX_CONFIG."
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON for scripts instead of a table.")


def database_url_of(found: Settings) -> AbstractContextManager[str]:
    """The configured database, or the embedded one: the running gateway's, or one for just this command."""
    return nullcontext(found.database_url) if found.database_url else attach_or_start(found.data_dir)


def with_database(config: Path | None, work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Run `work` on the database, an embedded one migrated first."""

    async def run(url: str) -> Result:
        database = Database(url)
        try:
            return await work(database)
        finally:
            await database.close()

    found = load(config)
    with database_url_of(found) as url:
        if not found.database_url:
            from app.db import migrations  # noqa: PLC0415  alembic would double a command's start

            migrations.upgrade(url)
        return asyncio.run(run(url))
