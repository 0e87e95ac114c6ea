"""A migrated database of the test's own."""

import contextlib

import pytest

from app.db.session import Database
from tests.conftest import migrated_database


@pytest.fixture
async def own_url(postgres_url):
    """A database with this version's schema and no rows but the default team's."""
    async with migrated_database(postgres_url) as url:
        yield url


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
