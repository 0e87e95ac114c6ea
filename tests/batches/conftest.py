"""What the tests of batches share: the gateway that has all six providers."""

import pytest
from sqlalchemy import text

from tests.every_provider.conftest import client, six, six_clients
from tests.files.conftest import rows

__all__ = ["client", "rows", "six", "six_clients"]


@pytest.fixture(autouse=True)
async def nothing_is_due(database):
    """What a test has left running is not taken on in the middle of the next one."""
    yield
    over = "UPDATE batches SET status = 'failed', due_at = NULL, lease = NULL WHERE due_at IS NOT NULL"
    async with database.write() as writer:
        await writer.execute(text(over))
