"""A gateway that is killed at any moment of a batch's life: whoever takes it up ends the batch with one answer to each
line in one output, out of one batch at each provider, of which nothing is left."""

import asyncio
from contextlib import suppress

import openai
import pytest

from tests.every_provider.test_errors import PROVIDERS
from tests.support.gates import Crossing
from tests.support.killable import CLAUDE, GEMINI, NOVA, OPENAI
from tests.support.world import until

# Their kinds: one has no names for batches, the other a token that makes one of two.
SPLIT = (CLAUDE, NOVA)
# So many stand still at once that the gateway has connections left to go on.
EDGES_AT_ONCE = 6
FIRST_EDGES = range(1, 24, EDGES_AT_ONCE)
OVER = "SELECT count(*) FROM batches WHERE input_file_id = $1 AND due_at IS NULL"


async def are_answered(gateway, files, model_names, words="slow:0"):
    """Whether there is one batch of each file, with an answer to each line, and nothing else."""
    await gateway.world.come_to_rest()
    batches = {one.filename: (await gateway.create_batch(one)).id for one in files}
    await gateway.world.come_to_rest()
    for one in files:
        expected = dict.fromkeys(model_names, f"{words} {one.filename}")
        assert await gateway.answers(one, batches[one.filename]) == expected
    assert sorted(await gateway.listed()) == sorted([*batches, *(f"{one}_output.jsonl" for one in batches.values())])
    return True


@pytest.mark.parametrize("first", FIRST_EDGES)
async def test_between_two_transactions(gateway, first):
    edges = range(first, first + EDGES_AT_ONCE)
    files = [Crossing("batch", edge, commits, CLAUDE) for edge in edges for commits in (False, True)]
    for one in files:
        await gateway.upload_lines(one, SPLIT)
    await gateway.gates.close(*files)
    requests = [asyncio.create_task(gateway.create_batch(one)) for one in files]

    async def all_stand_still():
        waiting = (await gateway.gates.look()).values()
        overs = [one in waiting or await gateway.world.connection.fetchval(OVER, one.file_id) for one in files]
        return all(overs)

    await until(all_stand_still)
    await gateway.kill()
    await asyncio.gather(*requests, return_exceptions=True)
    await gateway.take_up()
    assert await are_answered(gateway, files, SPLIT)
    # All that a batch has were tried.
    assert [one.reached for one in files] == sorted((one.reached for one in files), reverse=True)
    assert files[-1].reached is (first != FIRST_EDGES[-1])


@pytest.mark.parametrize(
    ("model_name", "operation", "moment", "calls"),
    [
        (OPENAI, "upload_file", "before_answer", 2),
        (GEMINI, "create_batch", "start", 2),
        (GEMINI, "create_batch", "before_answer", 1),
    ],
)
async def test_while_a_provider_answers(gateway, model_name, operation, moment, calls):
    one = Crossing(f"{operation} {moment}", 0, False, model_name)
    both = (OPENAI, GEMINI)
    await gateway.upload_lines(one, both)
    verb, sandbox = f"{PROVIDERS[model_name]}.{operation}", gateway.world.sandbox
    before = sandbox.calls(verb)
    await killed_at(gateway, model_name, operation, moment, gateway.create_batch(one))
    assert await are_answered(gateway, [one], both)
    assert sandbox.calls(verb) - before == calls


async def running(gateway, one, words):
    """A batch of this file's lines, once it runs at its providers."""
    await gateway.upload_lines(one, SPLIT, words)
    batch = await gateway.create_batch(one)

    async def is_running():
        return (await gateway.client.batches.retrieve(batch.id)).status == "in_progress"

    await until(is_running)
    return batch


async def test_while_it_is_cancelled(gateway):
    one = Crossing("cancellation", 0, False, OPENAI)
    batch = await running(gateway, one, "slow:80000")
    await killed_at(gateway, NOVA, "cancel_batch", "before_answer", gateway.client.batches.cancel(batch.id))
    gateway.world.advance(10)
    await gateway.world.come_to_rest()
    batch = await gateway.client.batches.retrieve(batch.id)
    assert (batch.status, batch.output_file_id, batch.request_counts.failed) == ("cancelled", None, 2)
    assert {one["state"] for one in gateway.world.sandbox.state()["batches"]} <= {"done", "cancelled"}


async def killed_at(gateway, model_name, operation, moment, asking):
    """Have the gateway die of what is asked, and come back."""
    fault = {"kill_pid": gateway.pid, "kill_at": moment}
    gateway.world.sandbox.fault(PROVIDERS[model_name], operation, **fault)
    with suppress(openai.APIConnectionError):
        await asking

    async def is_dead():
        return not gateway.is_alive

    await until(is_dead)
    await gateway.kill()
    await gateway.take_up()


# --- two gateways -----------------------------------------------------------------------------------------------


async def test_twenty_clients_at_two_gateways_see_one_end(gateway):
    one = Crossing("many clients", 0, False, OPENAI)
    batch = await running(gateway, one, "slow:80000")
    verb, sandbox = "anthropic.read_batch_output", gateway.world.sandbox
    before = sandbox.calls(verb)
    with gateway.world.start("other") as other:
        second = gateway.client.with_options(base_url=f"{other.url}/v1")

        async def the_end(client):
            while (found := await client.batches.retrieve(batch.id)).status != "completed":
                await asyncio.sleep(0.02)
            return found.output_file_id

        gateway.world.advance(80_000)
        async with asyncio.timeout(120):
            outputs = await asyncio.gather(*(the_end(client) for client in (gateway.client, second) * 10))
    assert len(set(outputs)) == 1
    assert sandbox.calls(verb) - before == 1
    await gateway.world.end_leases()
    assert await are_answered(gateway, [one], SPLIT, "slow:80000")
