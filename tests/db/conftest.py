"""A migrated database of the test's own."""

import asyncio
import contextlib

import pytest

from app.db import migrations
from app.db.session import Database


@pytest.fixture
async def own_url(empty_database_url):
    """A database with this version's schema and no rows but the default team's."""
    await asyncio.to_thread(migrations.upgrade, empty_database_url)
    return empty_database_url


@pytest.fixture
async def own(own_url):
    opened = Database(own_url)
    yield opened
    await opened.close()


@pytest.fixture
def rolled_back(own):
    """Do some work in a transaction that fails in the end."""

    async def attempt(work):
        with contextlib.suppress(ZeroDivisionError):
            async with own.write() as writer:
                await work(writer)
                raise ZeroDivisionError

    return attempt
