"""Providers that fail, or whose answers get lost, at each step of a batch's life: there is one batch at the provider
all the same, every line is answered once, and nothing is left there in the end."""

from collections import Counter

import pytest

from tests.batches.test_batches import MODEL_NAMES
from tests.every_provider.test_errors import PROVIDERS
from tests.support.batch_rows import BatchRows
from tests.support.batches import answer_in, create, line, lines_of, upload_lines

ONCE_EACH = dict.fromkeys(PROVIDERS.values(), 1)
FAILING = ({"status": 500}, {"status": 503}, {"status": 429, "retry_after_seconds": 1})


def two_lines(model_name):
    return [line(f"{model_name}, {number}", model_name, f"say {number}") for number in (1, 2)]


@pytest.fixture
def inputs(client):
    """A file for each provider; its lines name one model."""
    return {name: upload_lines(client, two_lines(name)) for name in MODEL_NAMES}


@pytest.fixture
def run(client, sandbox, database, inputs):
    """A batch at each provider, all at the same time, to their end: the batches by model name."""

    async def to_the_end():
        made = {name: create(client, file) for name, file in inputs.items()}
        rows = BatchRows(database, sandbox, *made.values())
        await rows.become("running", "ended", "gone")
        # One that is over by now may be forgotten there already.
        assert created(sandbox).items() <= ONCE_EACH.items()
        await rows.come_to_rest()
        return {name: client.batches.retrieve(batch.id) for name, batch in made.items()}

    return to_the_end


def created(sandbox):
    """How many batches each provider has."""
    return Counter(batch["provider"] for batch in sandbox.state()["batches"])


def answers(client, batch):
    return {custom_id: answer_in(found) for custom_id, found in lines_of(client, batch.output_file_id).items()}


def are_answered(client, batches):
    """Whether every line of every batch has its answer."""
    assert {name: batch.status for name, batch in batches.items()} == dict.fromkeys(MODEL_NAMES, "completed")
    for name, batch in batches.items():
        assert answers(client, batch) == {f"{name}, {number}": f"say {number}" for number in (1, 2)}
        assert batch.error_file_id is None
        assert (batch.request_counts.completed, batch.request_counts.total) == (2, 2)
    return True


@pytest.mark.parametrize("failing", FAILING)
async def test_a_creation_that_fails_at_first(client, sandbox, run, failing):
    for provider in PROVIDERS.values():
        sandbox.fault(provider, "create_batch", **failing)
    assert are_answered(client, await run())


async def test_a_creation_that_was_done_and_never_answered(client, sandbox, run):
    """It is found again: by its name, or where there is none by its time, its size and the keys of its results."""
    for provider in PROVIDERS.values():
        sandbox.fault(provider, "create_batch", lose_answer=True)
        sandbox.fault(provider, "list_batches", status=503)
    assert are_answered(client, await run())
    assert {provider: sandbox.calls(f"{provider}.create_batch") for provider in PROVIDERS.values()} == ONCE_EACH


async def test_a_batch_that_every_provider_refuses(client, sandbox, database, inputs):
    for provider in PROVIDERS.values():
        sandbox.fault(provider, "create_batch", status=400, times=-1)
    made = [create(client, file) for file in inputs.values()]
    await BatchRows(database, sandbox, *made).come_to_rest()
    for name, batch in zip(MODEL_NAMES, made, strict=True):
        found = client.batches.retrieve(batch.id)
        assert (found.status, found.failed_at is not None, found.output_file_id) == ("failed", True, None)
        [error] = found.errors.data
        assert error.code == "provider_refused"
        assert error.message.startswith(f"{name} ({PROVIDERS[name]}): ")
    assert created(sandbox) == {}


async def test_a_provider_that_refuses_its_part_of_a_batch(client, sandbox, database):
    lines = [one for name in MODEL_NAMES for one in two_lines(name)]
    sandbox.fault("gemini", "create_batch", status=400, times=-1)
    batch = create(client, upload_lines(client, lines))
    await BatchRows(database, sandbox, batch).come_to_rest()
    batch = client.batches.retrieve(batch.id)
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 10, 2)
    refused = {one["custom_id"] for one in two_lines("gemini-flash")}
    errors = lines_of(client, batch.error_file_id)
    assert {*errors} == refused
    assert {one["error"]["code"] for one in errors.values()} == {"batch_failed"}
    assert {*answers(client, batch)} == {one["custom_id"] for one in lines} - refused


# Where a provider's results are files, they are read as files are.
@pytest.mark.parametrize(
    ("operations", "failing"),
    [
        (("retrieve_batch",), {"status": 503, "times": 2}),
        (("read_batch_output", "read_file"), {"status": 500, "times": 2}),
        (("read_batch_output", "read_file"), {"reset_after_bytes": 300}),
        (("delete_batch", "delete_file"), {"status": 503, "times": 2}),
        (("delete_batch", "delete_file"), {"lose_answer": True}),
    ],
)
async def test_what_fails_for_a_while_later(client, sandbox, run, operations, failing):
    for provider in PROVIDERS.values():
        for operation in operations:
            sandbox.fault(provider, operation, **failing)
    assert are_answered(client, await run())


async def test_an_input_whose_upload_was_not_answered_is_found_and_deleted(client, sandbox, run):
    for provider in PROVIDERS.values():
        sandbox.fault(provider, "upload_file", lose_answer=True)
    assert are_answered(client, await run())


async def test_a_cancellation_that_fails_for_a_while(client, sandbox, database):
    slow = [line("slow", name, "slow:80000") for name in MODEL_NAMES]
    made = [create(client, upload_lines(client, [one])) for one in slow]
    rows = BatchRows(database, sandbox, *made)
    await rows.become("running")
    for provider in PROVIDERS.values():
        sandbox.fault(provider, "cancel_batch", status=503)
        sandbox.fault(provider, "cancel_batch", lose_answer=True)
    for batch in made:
        assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    await rows.come_to_rest()
    for batch in made:
        found = client.batches.retrieve(batch.id)
        assert (found.status, found.output_file_id) == ("cancelled", None)
        assert lines_of(client, found.error_file_id)["slow"]["error"]["code"] == "batch_cancelled"
    assert {batch["state"] for batch in sandbox.state()["batches"]} == {"cancelled"}
