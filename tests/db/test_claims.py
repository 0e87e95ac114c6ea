"""Claims under a lease: nobody gets another's row, and a row whose claimer died is due again."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select, update

from app import ids
from app.db.claims import FIRST_BACKOFF_SECONDS, LAST_BACKOFF_SECONDS, backoff_seconds, claim_due
from app.db.tables import DEFAULT_TEAM_ID, files, replicas

DELETING = replicas.c.state == "deleting"


@pytest.fixture
async def due(own):
    """Make replicas that are due since the given numbers of seconds; their ids."""

    async def made(*since, state="deleting"):
        now, file_id = datetime.now(UTC), ids.new_file_id()
        file = {"id": file_id, "team_id": DEFAULT_TEAM_ID, "filename": "a", "purpose": "batch", "mime_type": "a/b"}
        rows = [
            {"id": ids.new_replica_id(), "file_id": file_id, "account": f"a{index}", "provider": "openai"}
            | {"state": state, "due_at": None if seconds is None else now - timedelta(seconds=seconds)}
            for index, seconds in enumerate(since)
        ]
        async with own.write() as writer:
            await writer.execute(insert(files).values(state="ready", **file))
            await writer.execute(insert(replicas), rows)
        return [row["id"] for row in rows]

    return made


async def claimed(database, *, lease_seconds=3600.0, limit=10):
    async with database.write() as writer:
        rows = await claim_due(writer, replicas, DELETING, lease_seconds=lease_seconds, limit=limit)
    return [row["id"] for row in rows]


async def test_only_what_is_due_and_matches_is_claimed(own, due):
    (ripe, *_) = await due(5, None, -3600)
    await due(5, state="pending")
    assert await claimed(own) == [ripe]
    assert await claimed(own) == []


async def test_a_claim_counts_an_attempt_and_moves_the_due_time_by_the_lease(own, due):
    (one,) = await due(5)
    await claimed(own, lease_seconds=10_000)
    async with own.read() as reader:
        row = await reader.first(select(replicas).where(replicas.c.id == one))
    assert row["attempts"] == 1
    assert timedelta(seconds=9_800) < row["due_at"] - datetime.now(UTC) <= timedelta(seconds=10_000)


async def test_the_longest_due_come_first(own, due):
    newer, oldest, older = await due(1, 30, 20)
    assert set(await claimed(own, limit=2)) == {oldest, older}
    assert await claimed(own, limit=2) == [newer]


async def test_when_the_lease_has_passed_the_row_is_due_again(own, due):
    (one,) = await due(5)
    assert await claimed(own, lease_seconds=3000) == [one]
    assert await claimed(own) == []
    async with own.write() as writer:
        # An hour later.
        await writer.execute(update(replicas).values(due_at=replicas.c.due_at - timedelta(hours=1)))
    assert await claimed(own) == [one]


async def test_a_claimer_that_dies_before_it_commits_has_claimed_nothing(own, due, rolled_back):
    (one,) = await due(5)
    await rolled_back(lambda writer: claim_due(writer, replicas, DELETING, lease_seconds=60, limit=10))
    assert await claimed(own) == [one]


async def test_two_claimers_never_get_the_same_row(own, due):
    await due(*range(1, 101))
    got = []

    async def claimer():
        while rows := await claimed(own, limit=3):
            got.extend(rows)

    await asyncio.gather(*(claimer() for _ in range(8)))
    assert len(got) == len(set(got)) == 100


async def test_a_claimer_skips_what_another_one_is_claiming(own, due):
    await due(5, 5, 5)
    async with own.write() as writer:
        held = await claim_due(writer, replicas, DELETING, lease_seconds=60, limit=2)
        free = await claimed(own)
    assert (len(held), len(free)) == (2, 1)


@pytest.mark.parametrize("attempts", [0, 1, 2, 5, 12, 13, 100, 10_000])
def test_backoff_doubles_from_a_second_to_an_hour_with_jitter(attempts):
    ceiling = min(LAST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(attempts - 1, 60))
    waits = [backoff_seconds(attempts) for _ in range(200)]
    assert min(waits) >= ceiling / 2
    assert max(waits) <= ceiling <= LAST_BACKOFF_SECONDS
    assert len(set(waits)) > 1
