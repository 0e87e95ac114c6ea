"""Whoever works on a batch, and loses it, or fails at it, or is asked to hurry."""

import pytest
from sqlalchemy import update

from app.db.tables import batch_parts
from tests.support.batch_rows import BatchRows
from tests.support.batches import create, line, upload_lines
from tests.support.killable import CLAUDE, OPENAI
from tests.support.sandbox import eventually

SLOW = "slow:80000"


@pytest.fixture
def follow(database, sandbox):
    """The rows of batches."""
    return lambda *batches: BatchRows(database, sandbox, *batches)


@pytest.mark.parametrize(("model", "over"), [(CLAUDE, False), (OPENAI, False), (CLAUDE, True)])
async def test_a_creation_that_outlives_its_claim(client, sandbox, follow, model, over):
    """Another is created meanwhile: the first is cancelled, and nothing of it is left, also if the batch is over."""
    provider = {CLAUDE: "anthropic", OPENAI: "openai"}[model]
    sandbox.fault(provider, "create_batch", delay_seconds=600)
    rows = follow(batch := create(client, upload_lines(client, [line("one", model, SLOW)])))
    assert eventually(lambda: sandbox.calls(f"{provider}.create_batch") == 1)
    await rows.set(lease="'of another'", due_at="now()")
    await rows.become("running")
    if over:
        client.batches.cancel(batch.id)
        await rows.come_to_rest()
    sandbox.release()

    def is_dealt_with(_):
        sandbox.advance(1)
        if over:
            return sandbox.calls(f"{provider}.delete_batch") == 2
        return sorted(one["state"] for one in sandbox.state()["batches"]) == ["cancelled", "running"]

    await rows.until(is_dealt_with)
    sandbox.advance(80_000)
    await rows.come_to_rest()
    assert client.batches.retrieve(batch.id).status == ("cancelled" if over else "completed")


async def test_a_step_that_fails_for_a_reason_that_nobody_knows(client, sandbox, follow, database):
    rows = follow(batch := create(client, upload_lines(client, [line("one", OPENAI, SLOW)])))
    [part] = await rows.become("running")

    async def tell_lines(custom_ids):
        async with database.write() as writer:
            changed = update(batch_parts).where(batch_parts.c.id == part["id"]).values(custom_ids=custom_ids)
            await writer.execute(changed)

    await tell_lines(b"not what was packed")
    sandbox.advance(80_000)
    [row] = await rows.until(lambda found: found[0]["last_error"] == "internal error", rows.batches)
    assert row["due_at"]
    await tell_lines(part["custom_ids"])
    await rows.come_to_rest()
    assert client.batches.retrieve(batch.id).status == "completed"


async def test_a_client_that_asks_does_not_hurry_what_has_failed(client, sandbox, follow):
    sandbox.fault("openai", "read_file", status=429, retry_after_seconds=100, times=-1)
    rows = follow(batch := create(client, upload_lines(client, [line("one", OPENAI, "say one")])))

    def has_failed(found):
        sandbox.advance(1)
        return found[0]["last_error"] and found[0]["status"] == "finalizing" and found[0]["lease"] is None

    await rows.until(has_failed, rows.batches, hurried=False)
    await rows.set(looked_at="NULL")
    calls = sandbox.calls("openai.read_file")
    assert client.batches.retrieve(batch.id).status == "finalizing"
    assert sandbox.calls("openai.read_file") == calls
    sandbox.heal()
    await rows.come_to_rest()
