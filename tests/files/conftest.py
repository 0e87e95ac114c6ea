"""What the tests of a file's life share."""

import contextlib
import uuid

import pytest
import yaml

from tests.conftest import Clients, configuration
from tests.support.processes import Gateway
from tests.support.rows import Rows
from tests.support.uploads import raw_client


@pytest.fixture
def http(member):
    """httpx with the key of `member`, for what the SDK would not send."""
    with raw_client(member) as opened:
        yield opened


@pytest.fixture
def filename():
    """A name that no other test's file has."""
    return f"{uuid.uuid4().hex}.pdf"


@pytest.fixture
def rows(database):
    return Rows(database)


@pytest.fixture
def clients_of(sandbox):
    """Clients of another gateway than the shared one; closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def opened(gateway):
            return stack.enter_context(contextlib.closing(Clients(gateway.url)))

        yield opened


@pytest.fixture
def keepless(keepless_gateway, clients_of):
    """The official SDK with a member key of that gateway."""
    return clients_of(keepless_gateway).member()


@pytest.fixture(scope="session")
def gateway_at(sandbox_process, database_url):
    """Start a gateway on a data directory of the test's own: `gateway_at(directory, store="none")`; further keywords
    are further options of its sources."""

    def start(directory, store="disk", **options):
        config = directory / "config.yaml"
        content = {**configuration(sandbox_process.url), "filemux": {"sources": {"store": store, **options}}}
        config.write_text(yaml.safe_dump(content))
        return Gateway("--config", config, FILEMUX_DATA_DIR=directory, DATABASE_URL=database_url)

    return start
