"""How a command gets at a gateway: one of its own, on the database of those that run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import click

from app.access.authenticate import Caller, keyless_admin
from app.access.teams import existing_team
from app.cli_database import database_url_of
from app.configuration import load, with_secrets
from app.gateway import Gateway
from app.main import running

Result = TypeVar("Result")


def with_gateway(config: Path | None, team: str, work: Callable[[Gateway, Caller], Awaitable[Result]]) -> Result:
    """Run `work` in a gateway of this process, as an admin of the team."""

    async def run(url: str) -> Result:
        async with running(replace(found, database_url=url)) as gateway:
            async with gateway.database.read() as reader:
                caller = keyless_admin(await existing_team(reader, team))
            return await work(gateway, caller)

    found = with_secrets(load(config), tell=lambda line: click.echo(line, err=True))
    with database_url_of(found) as url:
        return asyncio.run(run(url))
