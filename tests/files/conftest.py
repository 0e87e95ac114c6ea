"""What the tests of a file's life share."""

import contextlib
import uuid

import pytest

from tests.conftest import Clients
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


@pytest.fixture(scope="session")
def keepless_gateway(make_gateway):
    """A gateway that keeps no sources: it has only what the providers give back."""
    with make_gateway(filemux={"sources": {"store": "none"}}) as running:
        yield running


@pytest.fixture
def keepless(keepless_gateway, clients_of):
    """The official SDK with a member key of that gateway."""
    return clients_of(keepless_gateway).member()
