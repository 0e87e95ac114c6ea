"""The HTTP client of the provider tests."""

import pytest

from app.providers.http import open_http


@pytest.fixture(scope="session")
async def http():
    async with open_http() as opened:
        yield opened
