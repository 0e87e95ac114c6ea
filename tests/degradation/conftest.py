"""Gateways of the tests' own, for what would disturb those that share one."""

import contextlib
import uuid

import pytest
import yaml

from tests.conftest import Clients, configuration
from tests.support.processes import Gateway
from tests.support.rows import Rows


@pytest.fixture(scope="module")
def module_dir(data_dir):
    """A directory of the module's own that the embedded PostgreSQL's user can pass through."""
    path = data_dir / f"degradation-{uuid.uuid4().hex}"
    path.mkdir(mode=0o711)
    return path


@pytest.fixture(scope="module")
def gateway_on(sandbox_process, module_dir):
    """Start a gateway on a database and a data directory: `gateway_on(url, place)`, a context manager."""

    def make(database_url, place, *, workers=1):
        config = module_dir / "config.yaml"
        config.write_text(yaml.safe_dump(configuration(sandbox_process.url)))
        arguments = ("--config", config, "--workers", workers)
        return Gateway(*arguments, FILEMUX_DATA_DIR=place, DATABASE_URL=database_url)

    return make


@pytest.fixture
def clients_of():
    """SDK clients of a gateway, closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda gateway: stack.enter_context(contextlib.closing(Clients(gateway.url)))


@pytest.fixture
def rows(database):
    return Rows(database)
