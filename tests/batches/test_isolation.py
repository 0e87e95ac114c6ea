"""Another team's batch is one that never existed, also for a key that may use the provider's own files and batches: it,
its lines and its results, whether a row knows their ids already or not, and in whatever way an id is written."""

from datetime import UTC, datetime, timedelta

import openai
import pytest

from tests.batches.test_direct import MODEL_NAMES, sealed_input
from tests.every_provider.test_errors import PROVIDERS
from tests.support.batch_rows import IDLE, BatchRows
from tests.support.batches import ENDPOINT, answer_in, create, line, lines_of, upload_lines
from tests.support.killable import CLAUDE, OPENAI

SLOW = "slow:80000"
RAW = {PROVIDERS[name]: name for name in MODEL_NAMES}


@pytest.fixture
def follow(database, sandbox):
    """The rows of batches."""
    return lambda *batches: BatchRows(database, sandbox, *batches)


@pytest.fixture
def owner(six_clients):
    return six_clients.member(permissions=["provider_files"])


@pytest.fixture
def other(six_clients):
    """Of another team."""
    return six_clients.member(permissions=["provider_files"])


async def left_alone(rows):
    """Have nobody ask for the batch for an hour."""

    async def put_off():
        await rows.set(IDLE, due_at="now() + interval '1 hour'")
        return await rows.batches()

    soon = datetime.now(UTC) + timedelta(minutes=30)
    await rows.until(lambda found: found[0]["lease"] is None and found[0]["due_at"] > soon, put_off, hurried=False)


@pytest.mark.parametrize("provider", RAW)
async def test_results_at_the_provider(owner, other, sandbox, follow, provider):
    at = {"provider": provider}
    lines = [line("secret", RAW[provider], "slow:60 top secret"), line("slow", CLAUDE, SLOW)]
    batch = create(owner, upload_lines(owner, lines))
    rows = follow(batch)
    await rows.become("running")
    await left_alone(rows)
    inputs = {file.id for file in owner.files.list(extra_query=at)}
    sandbox.advance(100)
    results = {file.id for file in owner.files.list(extra_query=at)} - inputs
    assert results and other.files.list(extra_query=at).data == [], "nobody has told that there are any"
    await rows.until(lambda parts: any(part["state"] == "ended" for part in parts))
    assert other.files.list(extra_query=at).data == []
    for file_id in results:
        for call in (other.files.retrieve, other.files.content, other.files.delete):
            with pytest.raises(openai.NotFoundError):
                call(file_id, extra_query=at)
    sandbox.advance(80_000)
    await rows.come_to_rest()
    output = lines_of(owner, owner.batches.retrieve(batch.id).output_file_id)
    assert answer_in(output["secret"]) == "slow:60 top secret"


SPELLINGS = {
    "gemini": lambda own_id: own_id.rpartition("/")[2],
    "bedrock": lambda own_id: own_id.rpartition("/")[2],
    "vertex_ai": lambda own_id: f"projects/any/locations/any/batchPredictionJobs/{own_id}",
}


@pytest.mark.parametrize("provider", SPELLINGS)
async def test_an_id_that_is_written_in_another_way(owner, other, sandbox, follow, provider):
    rows = follow(create(owner, upload_lines(owner, [line("one", RAW[provider], SLOW)])))
    [part] = await rows.become("running")
    for own_id in (part["provider_batch_id"], SPELLINGS[provider](part["provider_batch_id"])):
        assert owner.batches.retrieve(own_id, extra_query={"provider": provider}).id == part["provider_batch_id"]
        for call in (other.batches.retrieve, other.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                call(own_id, extra_query={"provider": provider})
        with pytest.raises(openai.NotFoundError):
            other.files.content(f"batch-output:{own_id}", extra_query={"provider": provider})
    sandbox.advance(80_000)
    await rows.come_to_rest()


def test_a_key_runs_batches_of_its_own_model_names_only(six_clients, sandbox):
    team = six_clients.new_team()
    bound = six_clients.member(team, models=[CLAUDE], permissions=["provider_files"])
    sealed = sealed_input(six_clients.member(team), OPENAI, [line("one", "x", SLOW)])
    with pytest.raises(openai.PermissionDeniedError):
        create(bound, sealed)
    body = {"provider": "openai", "model": OPENAI, "requests": [line("one", OPENAI, SLOW)]}
    with pytest.raises(openai.PermissionDeniedError):
        bound.batches.create(input_file_id="", endpoint=ENDPOINT, completion_window="24h", extra_body=body)
    assert sandbox.state()["batches"] == []
