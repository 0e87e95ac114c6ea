"""Batches that are cancelled while they are sent, or whose account or files are gone."""

import contextlib
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace

import httpx
import openai
import pytest
from sqlalchemy import delete, insert

from app.batches.lost import found_again
from app.db import tables
from app.deployments import Account, Deployments
from app.files.accounts.queries import held_by_account, rename_account
from app.ids import new_batch_id
from app.providers.protocol import BatchLimits, ProviderBatch, ProviderBatchPage
from tests.batches.test_batches import MODEL_NAMES
from tests.conftest import Clients, configuration, connected
from tests.support.batch_rows import BatchRows
from tests.support.batches import ENDPOINT, answer_in, create, line, lines_of, upload_lines
from tests.support.killable import CLAUDE, OPENAI
from tests.support.providers import MemoryProvider
from tests.support.sandbox import eventually

SLOW = "slow:80000"
AS_OF_ANTHROPIC = {"x-api-key": "sk-ant-sandbox", "anthropic-version": "2023-06-01"}
LINES = [line("claude", CLAUDE, "say one"), line("openai", OPENAI, "say two")]


@pytest.fixture
def follow(database, sandbox):
    """The rows of batches."""
    return lambda *batches: BatchRows(database, sandbox, *batches)


def held_up(sandbox, operation):
    """The providers of which the operation was called."""
    return [name for name in sandbox.state()["requests"] if name.endswith(f".{operation}")]


# --- cancelled while it is sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "fault", "state", "created"),
    [
        ("upload_file", {}, "uploading", set()),
        ("create_batch", {}, "creating", {"cancelled"}),
        ("create_batch", {"lose_answer": True}, "creating", {"cancelled"}),
    ],
)
async def test_a_cancellation_while_a_batch_is_sent(client, sandbox, follow, operation, fault, state, created):
    at_files = [name for name in MODEL_NAMES if name != CLAUDE]
    file = upload_lines(client, [line(name, name, SLOW) for name in at_files])
    sandbox.fault("*", operation, times=len(at_files), delay_seconds=600, **fault)
    batch = create(client, file)
    rows = follow(batch)
    await rows.become(state, hurried=False)
    assert eventually(lambda: len(held_up(sandbox, operation)) == len(at_files))
    assert client.batches.cancel(batch.id).status == "cancelling"
    sandbox.release()
    await rows.come_to_rest()
    found = client.batches.retrieve(batch.id)
    assert (found.status, found.output_file_id) == ("cancelled", None)
    errors = lines_of(client, found.error_file_id)
    assert {custom_id: one["error"]["code"] for custom_id, one in errors.items()} == dict.fromkeys(
        at_files, "batch_cancelled"
    )
    assert {one["state"] for one in sandbox.state()["batches"]} == created


# --- what may be somebody else's --------------------------------------------------------------------------------


async def test_another_clients_batch_is_not_taken_for_ours(client, sandbox, follow):
    """It was created at the same time, and has as many lines."""
    params = {"model": "claude-sonnet-4-5", "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}
    theirs = {"requests": [{"custom_id": "theirs", "params": params}]}
    headers = {"x-api-key": "sk-ant-sandbox", "anthropic-version": "2023-06-01"}
    httpx.post(f"{sandbox.url}/anthropic/v1/messages/batches", json=theirs, headers=headers).raise_for_status()
    file = upload_lines(client, [line("ours", CLAUDE, "say ours")])
    sandbox.fault("anthropic", "create_batch", status=500)
    batch = create(client, file)
    await follow(batch).come_to_rest()
    output = lines_of(client, client.batches.retrieve(batch.id).output_file_id)
    assert {custom_id: answer_in(found) for custom_id, found in output.items()} == {"ours": "say ours"}
    # Ours is deleted in the end, theirs is not.
    [left] = sandbox.state()["batches"]
    assert left["lines"] == 1 and sandbox.calls("anthropic.delete_batch") == 1


async def test_a_running_batch_of_another_account_of_the_provider_holds_nothing_up(database):
    """It has as many lines; two keys of one organization see the same batches."""
    name, batch_id, now = uuid.uuid4().hex, new_batch_id(), datetime.now(UTC)
    batch = {"id": batch_id, "team_id": "team-default", "input_file_id": "file", "endpoint": ENDPOINT}
    account = {"account": "of the same organization", "provider": "anthropic", "provider_batch_id": name}
    model = {"model_name": CLAUDE, "provider_model": CLAUDE, "line_models": [CLAUDE]}
    part = {"id": name, "batch_id": batch_id, "lines": 1, "options": {}, "state": "running", **account, **model}
    async with database.write() as writer:
        await writer.execute(insert(tables.batches).values(**batch, completion_window="24h", status="in_progress"))
        await writer.execute(insert(tables.batch_parts).values(**part))
    provider = MemoryProvider(batch=BatchLimits(named=False))

    async def list_batches(*_):
        return ProviderBatchPage((ProviderBatch(name, "in_progress", total=1),), None)

    provider.list_batches = list_batches
    deployments = Deployments([], {"ours": Account("ours", "anthropic", provider)})
    lost = {"id": "lost", "account": "ours", "name": "lost", "lines": 1, "creating_at": now}
    try:
        assert await found_again(SimpleNamespace(database=database, deployments=deployments), lost) is None
    finally:
        async with database.write() as writer:
            await writer.execute(delete(tables.batches).where(tables.batches.c.id == batch_id))


# --- an account that is gone ------------------------------------------------------------------------------------


@pytest.fixture
def started(make_gateway, sandbox_process, tmp_path):
    """Start the gateway with a model name `leaving` on an account of the test's own, or without: the SDK at it."""
    name = f"leaving-{uuid.uuid4().hex[:8]}"
    params = {"model": "openai/gpt-4o-mini", "api_base": f"{sandbox_process.url}/openai/v1", "api_key": f"sk-{name}"}
    entry = {"model_name": "leaving", "litellm_params": {**params, "account": name}}
    known = configuration(sandbox_process.url)["model_list"]

    @contextlib.contextmanager
    def start(*, with_account):
        model_list = [*known, entry] if with_account else known
        running = make_gateway(directory=tmp_path, model_list=model_list)
        with running, contextlib.closing(Clients(running.url)) as opened:
            yield opened.admin

    return start


async def test_an_account_that_has_left_the_configuration(started, sandbox, follow):
    """What is to be sent there, and what runs there, waits, says why, and goes on when the account is back."""
    with started(with_account=True) as client:
        files = [upload_lines(client, [line("one", "leaving", "slow:80000 say one")]) for _ in range(2)]
        batches = [create(client, files[0])]
        await follow(*batches).become("running")
        sandbox.fault("openai", "create_batch", status=429, times=-1)
        batches.append(create(client, files[1]))
        rows = follow(*batches)
        await rows.become("running", "uploaded", hurried=False)
    sandbox.heal()
    await rows.set(due_at="now()", lease="NULL", attempts="0", last_error="NULL")

    def all_say_why(mapped):
        return all(row["last_error"] and row["account"] in row["last_error"] for row in mapped)

    with started(with_account=False):
        for row in await rows.until(all_say_why, rows.mappings, hurried=False):
            # Nobody looks again for about a minute.
            assert row["attempts"] == 1 and row["rest"].total_seconds() > 20
    with started(with_account=True) as client:
        await rows.until(lambda found: {row["status"] for row in found} == {"in_progress"}, rows.batches)
        sandbox.advance(80_000)
        await rows.come_to_rest()
        for batch in batches:
            output = client.batches.retrieve(batch.id).output_file_id
            assert answer_in(lines_of(client, output)["one"]) == "slow:80000 say one"


async def test_a_renamed_account_takes_its_batches_along(started, sandbox, follow, database):
    with started(with_account=True) as client:
        batch = create(client, upload_lines(client, [line("one", "leaving", SLOW)]))
        rows = follow(batch)
        [part] = await rows.become("running")
    await rows.set(due_at="now() + interval '1 hour'", lease="NULL", attempts="9")
    renamed = f"{part['account']}-renamed"
    await rename_account(database, part["account"], renamed)
    [row] = await rows.mappings()
    # Another gateway may have seen by now that it has no such account: that waits for a minute.
    assert row["account"] == renamed and row["attempts"] <= 1 and row["rest"].total_seconds() <= 60
    assert {one["account"]: one["batches"] for one in await held_by_account(database)}[renamed] == 1
    await rename_account(database, renamed, part["account"])
    with started(with_account=True):
        sandbox.advance(80_000)
        await rows.come_to_rest()


# --- files that are gone ----------------------------------------------------------------------------------------


async def test_an_input_that_is_deleted_before_its_lines_are_sent(client, sandbox, follow):
    sandbox.fault("anthropic", "create_batch", status=429, times=-1)
    alone, beside = (create(client, upload_lines(client, lines)) for lines in (LINES[:1], LINES))
    rows = follow(alone, beside)
    await rows.until(lambda parts: {part["state"] for part in parts} == {"waiting", "running"}, hurried=False)
    for batch in (alone, beside):
        client.files.delete(batch.input_file_id)
    sandbox.heal()
    await rows.come_to_rest()
    failed, completed = client.batches.retrieve(alone.id), client.batches.retrieve(beside.id)
    assert (failed.status, [error.code for error in failed.errors.data]) == ("failed", ["file_not_found"])
    assert completed.status == "completed"
    assert answer_in(lines_of(client, completed.output_file_id)["openai"]) == "say two"
    assert "deleted" in lines_of(client, completed.error_file_id)["claude"]["error"]["message"]


async def test_files_that_are_deleted_while_a_batch_runs_and_afterwards(client, sandbox, follow):
    batch = create(client, upload_lines(client, [line(name, name, SLOW) for name in (CLAUDE, OPENAI)]))
    rows = follow(batch)
    await rows.become("running")
    client.files.delete(batch.input_file_id)
    sandbox.advance(80_000)
    await rows.come_to_rest()
    batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    client.files.delete(batch.output_file_id)
    with pytest.raises(openai.NotFoundError):
        client.files.content(batch.output_file_id)
    assert client.batches.retrieve(batch.id).output_file_id == batch.output_file_id
    assert client.files.list().data == []


async def test_results_that_expire(client, follow, rows):
    expiry = {"anchor": "created_at", "seconds": 3600}
    batch = create(client, upload_lines(client, LINES), output_expires_after=expiry)
    await follow(batch).come_to_rest()
    output = client.files.retrieve(client.batches.retrieve(batch.id).output_file_id)
    assert output.expires_at - output.created_at == 3600
    await rows.expire(output.id)
    assert eventually(lambda: output.id not in [file.id for file in client.files.list()])
    assert await rows.forgotten(output.filename)


# A sequence counts what is rolled back, too.
REFUSE = """
CREATE SEQUENCE refusals;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('refusals');
    RAISE EXCEPTION 'not now';
END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON batches
FOR EACH ROW WHEN (OLD.id = '{}' AND NEW.status = 'completed') EXECUTE FUNCTION refuse();
"""


async def test_results_that_are_gone_before_they_are_written_once_more(client, sandbox, follow, database):
    """The end could not be recorded, and then the provider had nothing any more: no line is told twice."""
    batch = create(client, upload_lines(client, LINES))
    rows = follow(batch)
    await rows.become("running")
    async with connected(database.url) as connection:
        await connection.execute(REFUSE.format(batch.id))
        try:
            sandbox.advance(10)
            await rows.until(bool, lambda: connection.fetchval("SELECT is_called FROM refusals"))
        finally:
            await connection.execute("DROP FUNCTION refuse CASCADE; DROP SEQUENCE refusals")
    [at_anthropic] = [one["provider_batch_id"] for one in await rows.parts() if one["provider"] == "anthropic"]
    address = f"{sandbox.url}/anthropic/v1/messages/batches/{at_anthropic}"
    httpx.delete(address, headers=AS_OF_ANTHROPIC).raise_for_status()
    await rows.set(due_at="now()", lease="NULL")
    await rows.come_to_rest()
    found = client.batches.retrieve(batch.id)
    files = [found.output_file_id, found.error_file_id]
    assert sorted(file.id for file in client.files.list(purpose="batch_output")) == sorted(files)
    output, errors = (lines_of(client, file) for file in files)
    assert {custom_id: answer_in(one) for custom_id, one in output.items()} == {"openai": "say two"}
    assert {custom_id: one["error"]["code"] for custom_id, one in errors.items()} == {"claude": "no_result"}
    assert (found.request_counts.completed, found.request_counts.failed) == (1, 1)
