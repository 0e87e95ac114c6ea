"""What the proofs share that a killed gateway loses nothing."""

import pytest

from tests.conftest import connected, migrated_database
from tests.support.processes import SandboxProcess
from tests.support.sandbox import Switchboard
from tests.support.world import NO_WAITS, World


@pytest.fixture(scope="module")
async def world(postgres_url, tmp_path_factory):
    """A sandbox and a database of the module's own, in which a repair does not wait between two looks."""
    with SandboxProcess() as process:
        sandbox = Switchboard(process.url)
        async with migrated_database(postgres_url) as url, connected(url) as connection:
            await connection.execute(NO_WAITS)
            yield World(sandbox, url, connection, tmp_path_factory.mktemp("world"))
        sandbox.close()
