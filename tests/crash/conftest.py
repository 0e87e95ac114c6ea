"""What the proofs share that a killed gateway loses nothing."""

import pytest

from tests.conftest import connected, migrated_database
from tests.support.gates import Gates
from tests.support.killable import Killable
from tests.support.processes import SandboxProcess
from tests.support.sandbox import Switchboard
from tests.support.world import LOST_IN_THE_FUTURE, NO_WAITS, World


@pytest.fixture(scope="module")
async def world(postgres_url, tmp_path_factory):
    """A sandbox and a database of the module's own, in which a repair does not wait between two looks."""
    with SandboxProcess() as process:
        sandbox = Switchboard(process.url)
        async with migrated_database(postgres_url) as url, connected(url) as connection:
            await connection.execute(NO_WAITS + LOST_IN_THE_FUTURE)
            yield World(sandbox, url, connection, tmp_path_factory.mktemp("world"))
        sandbox.close()


@pytest.fixture(scope="module")
async def killable(world):
    gates = Gates(world.connection)
    await gates.build()
    running = Killable(world, gates)
    yield running
    await running.stop()


@pytest.fixture
async def gateway(killable):
    """It, with no file anywhere."""
    yield killable
    async for file in killable.client.files.list():
        await killable.client.files.delete(file.id)
    await killable.world.come_to_rest()
    assert killable.world.sandbox.files == []
