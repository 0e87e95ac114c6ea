"""One gateway with the sandbox's own model list: every provider of the mission."""

import contextlib

import pytest

from app.sandbox.config import sandbox_configuration
from tests.conftest import Clients, patient


@pytest.fixture(scope="session")
def six(make_gateway, sandbox_process):
    """The gateway."""
    with make_gateway(**patient(sandbox_configuration(sandbox_process.url))) as running:
        yield running


@pytest.fixture
def six_clients(six, sandbox):
    """Its clients, with a sandbox that was reset."""
    with contextlib.closing(Clients(six.url)) as opened:
        yield opened


@pytest.fixture
def client(six_clients):
    """The official SDK with a member key of a team of the test's own."""
    return six_clients.member()
