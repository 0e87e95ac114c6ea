"""An account that has left the configuration: what is to be done there waits, and says why, until it is back."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import configuration
from tests.support.chats import answer_of, ask, file_part, seen
from tests.support.processes import run_cli
from tests.support.replicas import Replicas
from tests.support.sandbox import eventually
from tests.support.uploads import sha256, upload

LONG_DUE = "now() - interval '2 minutes'"


class Account:
    """An account of the test's own, which no other gateway has."""

    def __init__(self, sandbox_url):
        self.name = f"leaving-{uuid.uuid4().hex[:8]}"
        params = {"model": "openai/gpt-4o-mini", "api_base": f"{sandbox_url}/openai/v1", "api_key": f"sk-{self.name}"}
        entry = {"model_name": "leaving", "litellm_params": {**params, "account": self.name}}
        self.model_list = [*configuration(sandbox_url)["model_list"], entry]
        self.reason = f"blocked: the account {self.name} is not in the configuration"

    def files(self, sandbox):
        return [one for one in sandbox.files if one["account"] == sha256(f"sk-{self.name}".encode())[:8]]


@pytest.fixture
def account(sandbox_process, sandbox):
    return Account(sandbox_process.url)


@pytest.fixture
def gateway_with(make_gateway, account, tmp_path):
    """The gateway while it has the account."""
    return lambda: make_gateway(directory=tmp_path, model_list=account.model_list)


async def test_a_file_is_deleted_to_the_end_once_its_account_is_back(
    gateway_with, clients, clients_of, account, sandbox, database, database_url
):
    with gateway_with() as before:
        file = upload(clients_of(before).admin, "mini,leaving")
    replicas = Replicas(database, file.id)
    clients.admin.files.delete(file.id)
    [blocked] = await replicas.until(lambda rows: len(rows) == 1)
    assert (blocked["state"], blocked["blocked"], blocked["due_at"]) == ("deleting", True, None)
    statement = f"SELECT account, state, blocked, due_at, last_error FROM replica_backlog WHERE file_id = '{file.id}'"
    for arguments in (("sql", statement), ("backlog",)):
        ended = run_cli(*arguments, "--json", DATABASE_URL=database_url)
        [row] = [row for row in json.loads(ended.stdout) if row["account"] == account.name]
        assert (row["state"], row["blocked"], row["due_at"]) == ("deleting", True, None)
        assert row["last_error"] == account.reason
    # Since then many rounds of the worker have passed.
    assert await replicas.all() == [blocked]
    assert len(account.files(sandbox)) == 1 and sandbox.calls("openai.delete_file") == 1
    with gateway_with():
        assert await replicas.become() == []
    assert account.files(sandbox) == []


async def test_whatever_is_due_there_is_blocked_after_a_minute_and_goes_on(
    gateway_with, clients, clients_of, account, sandbox, database
):
    states = ("deleting", "failed", "pending", "processing")
    with gateway_with() as before:
        files = {state: upload(clients_of(before).admin, "leaving", state.encode()) for state in states}
    replicas = {state: Replicas(database, file.id) for state, file in files.items()}
    for state in states:
        known = "provider_file_id" if state in ("deleting", "processing") else "NULL"
        await replicas[state].set(state=f"'{state}'", provider_file_id=known, due_at=LONG_DUE, attempts="3", looks="4")
    for state in states:
        [blocked] = await replicas[state].until(lambda rows: rows[0]["blocked"])
        assert (blocked["state"], blocked["due_at"], blocked["attempts"]) == (state, None, 3)
        assert blocked["last_error"] == account.reason
    with gateway_with() as after:
        assert await replicas.pop("deleting").become() == []
        for state, of_file in replicas.items():
            [row] = await of_file.become("stored")
            assert (row["blocked"], row["due_at"]) == (False, None)
            answer = answer_of(ask(clients_of(after).admin, "leaving", file_part(files[state].id)))
            assert answer == seen("a.pdf", state.encode())
    assert sha256(b"deleting") not in {one["sha256"] for one in account.files(sandbox)}


async def test_what_another_gateway_may_still_do_is_left_to_it(
    gateway_with, clients, clients_of, account, sandbox, database
):
    """This one has the account, the shared one has not."""
    with gateway_with() as running, ThreadPoolExecutor(1) as pool:
        file = upload(clients_of(running).admin, "leaving")
        sandbox.fault("openai", "delete_file", delay_seconds=600)
        deleting = pool.submit(clients_of(running).admin.files.delete, file.id)
        assert eventually(lambda: sandbox.calls("openai.delete_file") == 1)
        [row] = await Replicas(database, file.id).all()
        assert (row["state"], row["blocked"]) == ("deleting", False)
        sandbox.release()
        assert deleting.result().deleted
    assert account.files(sandbox) == []
