"""The suites, against the sandbox, for every entry of the registry."""

import pytest

from app.providers.registry import REGISTRY
from tests.conformance.accounts import ACCOUNTS, WITH_BATCHES, WITH_FILES
from tests.conformance.batch_suite import BatchSuite
from tests.conformance.chat_suite import ChatSuite, ChatWithFilesSuite
from tests.conformance.suite import AccountSuite, FilesSuite


def test_every_registered_provider_is_simulated():
    assert {account.kind for account in ACCOUNTS} == set(REGISTRY)


def test_every_provider_that_stores_files_runs_the_files_suite():
    storing = {name for name, kind in REGISTRY.items() if kind.capabilities.stores_files}
    assert {account.kind for account in WITH_FILES} == storing


def test_every_provider_that_runs_batches_runs_the_batch_suite():
    running = {name for name, kind in REGISTRY.items() if kind.capabilities.batch_input != "none"}
    assert {account.kind for account in WITH_BATCHES} == running


@pytest.mark.parametrize("subject", ACCOUNTS, indirect=True, ids=str)
class TestAccount(AccountSuite):
    pass


@pytest.mark.parametrize("subject", WITH_FILES, indirect=True, ids=str)
class TestFiles(FilesSuite):
    pass


@pytest.mark.parametrize("subject", ACCOUNTS, indirect=True, ids=str)
class TestChat(ChatSuite):
    pass


@pytest.mark.parametrize("subject", WITH_FILES, indirect=True, ids=str)
class TestChatWithFiles(ChatWithFilesSuite):
    pass


@pytest.mark.parametrize("subject", WITH_BATCHES, indirect=True, ids=str)
class TestBatches(BatchSuite):
    pass
