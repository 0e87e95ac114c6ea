"""Fan-out, one situation each: starting over, cutting off, and what the outcomes say."""

import asyncio
import tracemalloc

import pytest
import stamina
import structlog

from app.deployments import Account
from app.errors import RateLimited, Rejected, Unavailable
from app.files.fanout import Fanout, FileFacts, Sink
from app.files.spool import WRITE_BYTES, Spool
from app.providers.protocol import ProviderFile
from app.providers.wrappers import ATTEMPTS, Retrying
from tests.support.providers import Failure, MemoryProvider

FACTS = FileFacts("a.bin", "application/octet-stream", "user_data", 3600)
CONTENT = bytes(range(256)) * 8192


@pytest.fixture(autouse=True)
def without_waits():
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        yield


@pytest.fixture
async def spool(tmp_path):
    async with Spool(tmp_path) as opened:
        yield opened


def fan_out(spool, *providers, size_hint=None):
    sinks = [
        Sink(Account(f"account-{index}", "memory", Retrying(provider)), f"replica-{index}", ("mini",))
        for index, provider in enumerate(providers)
    ]
    return Fanout(spool, FACTS, sinks, size_hint)


async def write_all(spool, content=CONTENT):
    await spool.write(content)
    await spool.finish()


async def test_a_failed_upload_starts_over_from_the_spool(spool):
    flaky = MemoryProvider(Failure(Unavailable("down"), after_bytes=1000), Failure(Unavailable("down")))
    fanout = fan_out(spool, flaky)
    await write_all(spool)
    [outcome] = await fanout.settled(stop_at_first_failure=True)
    assert outcome.stored and outcome.error is None
    assert [*flaky.files.values()] == [CONTENT]
    assert flaky.calls["upload_file"] == 3


async def test_a_slow_account_does_not_hold_up_the_others(spool):
    slow, quick = MemoryProvider(), MemoryProvider()
    slow.reads.clear()
    fanout = fan_out(spool, slow, quick)
    await write_all(spool)
    await quick.delivered.wait()
    assert not slow.delivered.is_set()
    slow.reads.set()
    assert all(outcome.stored for outcome in await fanout.settled(stop_at_first_failure=True))


@pytest.mark.parametrize("promised", [len(CONTENT) - 1, len(CONTENT) + 1])
async def test_a_wrong_size_starts_over_with_the_right_one(spool, promised):
    provider = MemoryProvider(needs_length=True)
    fanout = fan_out(spool, provider, size_hint=promised)
    await write_all(spool)
    [outcome] = await fanout.settled(stop_at_first_failure=True)
    assert outcome.stored
    assert [attempt.size_bytes for attempt in provider.attempts] == [promised, len(CONTENT)]


async def test_an_unknown_length_is_waited_for_where_it_is_needed(spool):
    patient, eager = MemoryProvider(needs_length=True), MemoryProvider()
    fanout = fan_out(spool, patient, eager)
    await spool.write(CONTENT)
    assert patient.attempts == []
    await spool.finish()
    await fanout.settled(stop_at_first_failure=True)
    assert [attempt.size_bytes for attempt in patient.attempts] == [len(CONTENT)]
    assert [attempt.size_bytes for attempt in eager.attempts] == [None]


async def test_a_failure_cuts_off_who_has_not_everything_and_waits_for_who_has(spool):
    failing, reading, answering = MemoryProvider(Failure(Rejected("no"))), MemoryProvider(), MemoryProvider()
    for gate in (failing.reads, reading.reads, answering.answers):
        gate.clear()
    fanout = fan_out(spool, failing, reading, answering)
    await write_all(spool)
    await answering.delivered.wait()
    settling = asyncio.create_task(fanout.settled(stop_at_first_failure=True))
    failing.reads.set()
    failed, cut_off, delivered = fanout.outcomes
    while failed.error is None:
        await asyncio.sleep(0)
    assert not settling.done()
    answering.answers.set()
    assert await settling == [failed, cut_off, delivered]
    assert isinstance(failed.error, Rejected) and not failed.stored
    assert (cut_off.file, cut_off.error, cut_off.delivered, cut_off.may_exist) == (None, None, False, False)
    assert delivered.stored and [*answering.files.values()] == [CONTENT]


async def test_without_stopping_every_account_is_waited_for(spool):
    failing, healthy = MemoryProvider(Failure(Rejected("no"))), MemoryProvider()
    fanout = fan_out(spool, failing, healthy)
    await write_all(spool)
    failed, stored = await fanout.settled(stop_at_first_failure=False)
    assert (failed.stored, stored.stored) == (False, True)


async def test_abandoning_before_the_end_stores_nothing(spool):
    providers = [MemoryProvider(), MemoryProvider(needs_length=True)]
    fanout = fan_out(spool, *providers)
    await spool.write(CONTENT)
    outcomes = await fanout.abandoned()
    assert [(outcome.file, outcome.error) for outcome in outcomes] == [(None, None)] * 2
    assert [provider.files for provider in providers] == [{}, {}]


async def test_an_answer_that_never_came_leaves_a_file_that_may_exist(spool):
    silent = MemoryProvider(Failure(Unavailable("no answer", outcome_unknown=True)))
    fanout = fan_out(spool, silent)
    await write_all(spool)
    [outcome] = await fanout.settled(stop_at_first_failure=True)
    assert outcome.may_exist and not outcome.stored
    assert silent.calls["upload_file"] == 1


@pytest.mark.parametrize(("after_bytes", "may_exist"), [(1000, False), (None, True)])
async def test_an_undeclared_failure_is_an_unavailable_account(spool, after_bytes, may_exist):
    fanout = fan_out(spool, MemoryProvider(Failure(ZeroDivisionError(), after_bytes)))
    with structlog.testing.capture_logs() as logged:
        await write_all(spool)
        [outcome] = await fanout.settled(stop_at_first_failure=True)
    assert [line["account"] for line in logged if line["log_level"] == "error"] == ["account-0"]
    assert isinstance(outcome.error, Unavailable) and "ZeroDivisionError" in outcome.error.message
    assert outcome.may_exist is may_exist


class _Forgetful(MemoryProvider):
    """Loses the last byte, and says so."""

    async def upload_file(self, upload):
        file = await super().upload_file(upload)
        return ProviderFile(file.id, file.filename, file.bytes - 1, file.purpose, 0)


async def test_a_file_of_another_size_is_not_stored_and_its_id_is_kept(spool):
    fanout = fan_out(spool, _Forgetful())
    await write_all(spool)
    [outcome] = await fanout.settled(stop_at_first_failure=True)
    assert not outcome.stored and not outcome.may_exist
    assert outcome.file.id == "file-1" and f"{len(CONTENT) - 1} bytes" in outcome.error.message


async def test_an_account_that_never_reads_costs_no_memory(spool):
    stuck = MemoryProvider()
    stuck.reads.clear()
    fanout = fan_out(spool, stuck)
    tracemalloc.start()
    try:
        for _ in range(48):
            await spool.write(bytes(WRITE_BYTES))
        assert tracemalloc.get_traced_memory()[1] < 6 * WRITE_BYTES
    finally:
        tracemalloc.stop()
    [outcome] = await fanout.abandoned()
    assert (outcome.stored, outcome.may_exist) == (False, False)


async def test_what_an_earlier_attempt_may_have_made_is_looked_for(spool):
    answer_lost, busy = Failure(Unavailable("no answer", outcome_unknown=True)), Failure(RateLimited("busy"))
    fanout = fan_out(spool, MemoryProvider(answer_lost, busy, busy, chooses_id=True))
    await write_all(spool)
    [outcome] = await fanout.settled(stop_at_first_failure=True)
    assert isinstance(outcome.error, RateLimited) and outcome.may_exist
