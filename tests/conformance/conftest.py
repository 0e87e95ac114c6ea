"""What the suites run on: one account of the sandbox at a time."""

from dataclasses import dataclass

import pytest
import stamina

from app.providers.http import Http, open_http
from app.providers.protocol import Capabilities, Provider
from app.providers.wrappers import ATTEMPTS
from tests.conformance.accounts import Simulated
from tests.support.sandbox import Switchboard

pytest.register_assert_rewrite(*(f"tests.conformance.{name}" for name in ("suite", "chat_suite", "batch_suite")))


@dataclass(frozen=True)
class Subject:
    """The account under test, and the sandbox that stands behind it."""

    account: Simulated
    provider: Provider
    sandbox: Switchboard
    http: Http

    @property
    def capabilities(self) -> Capabilities:
        return self.provider.capabilities

    @property
    def no_file(self):
        """An id of this provider's that stands for nothing."""
        return self.provider.chosen_file_id("0" * 32) if self.capabilities.chooses_id else "file-1"

    def fault(self, operation, **fault):
        """Have every further call of an operation fail, retries included."""
        self.sandbox.fault(self.account.simulator, operation, times=-1, **fault)

    def calls(self, operation):
        return self.sandbox.calls(f"{self.account.simulator}.{operation}")

    def sibling(self, sandbox_url=None, **params):
        """The same account with other parameters, or elsewhere."""
        return self.account.built(sandbox_url or self.sandbox.url, self.http, **params)


@pytest.fixture(scope="session")
async def http():
    async with open_http() as opened:
        yield opened


@pytest.fixture
def subject(request, sandbox, http):
    """The account that the test's parameter describes."""
    return Subject(request.param, request.param.built(sandbox.url, http), sandbox, http)


@pytest.fixture(autouse=True)
def without_waits():
    """Retries as in production, without the pauses between them."""
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        yield
