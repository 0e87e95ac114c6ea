"""What the tests of who may call share."""

import pytest

from tests.conftest import connected


@pytest.fixture
async def sql(database_url):
    """A raw connection to the gateway's database."""
    async with connected(database_url) as connection:
        yield connection


@pytest.fixture
def as_key(clients):
    """The headers by which httpx calls with a secret instead of the master key."""
    return lambda secret: {"authorization": f"Bearer {secret}"}
