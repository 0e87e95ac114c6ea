"""One account's trouble stays its own: how many calls it takes at once, and the circuit that opens when it fails."""

import asyncio
import contextlib

import pytest
from prometheus_client import REGISTRY

from app.errors import Missing, RateLimited, Rejected, Unauthorized, Unavailable
from app.providers import limits
from app.providers.limits import FIRST_OPEN_SECONDS, MAX_OPEN_SECONDS, Guard, Guarded, Limits
from tests.providers.test_wrappers import CALLS, CHAT, every_call
from tests.support.clock import StillClock
from tests.support.providers import MemoryProvider, upload_of

DOWN = Unavailable("down")
LIMITS = Limits()
FAILURES_TO_OPEN = LIMITS.allowed_fails + 1


@pytest.fixture
async def memory():
    """A provider that holds file-1."""
    provider = MemoryProvider()
    await provider.upload_file(upload_of())
    provider.calls.clear()
    provider.delivered.clear()
    return provider


@pytest.fixture
def clock(monkeypatch):
    """The guards' clock, which stands still."""
    made = StillClock()
    monkeypatch.setattr(limits, "time", made)
    return made


async def fail(guarded, memory, times=1, error=DOWN):
    for _ in range(times):
        memory.fail("chat", error)
        with pytest.raises(type(error)):
            await guarded.chat(CHAT)


async def refused(guarded):
    """What an open circuit says without a call."""
    with pytest.raises(Unavailable, match="keeps failing; it is tried again in") as failure:
        await guarded.chat(CHAT)
    return failure.value


def metric(name, account):
    return REGISTRY.get_sample_value(name, {"account": account, "provider": "openai"})


# --- calls at once ----------------------------------------------------------------------------------------------


@every_call
async def test_a_call_over_the_limit_is_refused_at_once_but_for_a_check(memory, operation):
    guarded = Guarded(memory, Guard("full", "openai", Limits(max_calls=1)))
    memory.answers.clear()
    running = asyncio.create_task(guarded.upload_file(upload_of()))
    await memory.delivered.wait()
    with contextlib.nullcontext() if operation == "check" else pytest.raises(RateLimited, match="limit") as failure:
        await CALLS[operation](guarded)
    assert failure is None or failure.value.retry_after_seconds == limits.FULL_SECONDS
    memory.answers.set()
    await running
    await CALLS[operation](guarded)


async def test_a_stream_counts_until_it_is_closed_and_a_reader_until_it_is_left(memory):
    guarded = Guarded(memory, Guard("held", "openai", Limits(max_calls=1)))
    stream = await guarded.stream_chat(CHAT)
    with pytest.raises(RateLimited):
        await guarded.chat(CHAT)
    assert [chunk async for chunk in stream] == [CHAT.body]
    await stream.aclose()
    await stream.aclose()
    async with guarded.read_file("file-1"):
        with pytest.raises(RateLimited):
            await guarded.chat(CHAT)
    assert await guarded.chat(CHAT) == CHAT.body
    memory.fail("stream_chat", DOWN)
    with pytest.raises(Unavailable):
        await guarded.stream_chat(CHAT)
    assert await guarded.chat(CHAT) == CHAT.body


async def test_a_call_that_is_cancelled_counts_no_more(memory):
    guarded = Guarded(memory, Guard("cancelled", "openai", Limits(max_calls=1)))
    memory.answers.clear()
    running = asyncio.create_task(guarded.upload_file(upload_of()))
    await memory.delivered.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await guarded.chat(CHAT) == CHAT.body


# --- the circuit ------------------------------------------------------------------------------------------------


async def test_an_account_that_keeps_failing_is_not_called(memory, clock):
    guarded = Guarded(memory, Guard("opened", "openai", LIMITS))
    await fail(guarded, memory, FAILURES_TO_OPEN - 1)
    assert metric("filemux_account_circuit_open", "opened") == 0
    await fail(guarded, memory)
    assert metric("filemux_account_circuit_open", "opened") == 1
    assert metric("filemux_account_circuit_openings_total", "opened") == 1
    clock.now += FIRST_OPEN_SECONDS / 2
    calls = memory.calls["chat"]
    assert (await refused(guarded)).retry_after_seconds == pytest.approx(FIRST_OPEN_SECONDS / 2)
    assert memory.calls["chat"] == calls
    await guarded.check()


async def test_an_account_of_its_own_patience(memory, clock):
    guarded = Guarded(memory, Guard("impatient", "openai", Limits(allowed_fails=1)))
    await fail(guarded, memory, 2)
    await refused(guarded)


async def test_one_call_tries_at_a_time_later_and_later_until_one_is_answered(memory, clock):
    guarded = Guarded(memory, Guard("tried", "openai", LIMITS))
    await fail(guarded, memory, FAILURES_TO_OPEN)
    wait, waits = FIRST_OPEN_SECONDS, []
    for _ in range(8):
        waits.append((await refused(guarded)).retry_after_seconds)
        clock.now += waits[-1]
        await fail(guarded, memory)
    assert waits == pytest.approx([min(wait * 2**exponent, MAX_OPEN_SECONDS) for exponent in range(8)])
    clock.now += MAX_OPEN_SECONDS
    assert await guarded.chat(CHAT) == CHAT.body
    assert metric("filemux_account_circuit_open", "tried") == 0
    assert metric("filemux_account_circuit_openings_total", "tried") == 1
    await fail(guarded, memory, FAILURES_TO_OPEN - 1)
    assert await guarded.chat(CHAT) == CHAT.body


async def test_a_try_that_hangs_or_is_given_up_does_not_keep_the_others_out(memory, clock):
    guarded = Guarded(memory, Guard("hanging", "openai", LIMITS))
    await fail(guarded, memory, FAILURES_TO_OPEN)
    clock.now += FIRST_OPEN_SECONDS
    memory.answers.clear()
    hanging = asyncio.create_task(guarded.upload_file(upload_of()))
    await memory.delivered.wait()
    await refused(guarded)
    hanging.cancel()
    await asyncio.wait({hanging})
    await refused(guarded)
    clock.now += 2 * FIRST_OPEN_SECONDS
    assert await guarded.chat(CHAT) == CHAT.body


async def test_calls_that_end_after_it_has_opened_make_nobody_wait_longer(memory, clock):
    guarded = Guarded(memory, Guard("late", "openai", LIMITS))
    memory.answers.clear()
    memory.fail("upload_file", *[DOWN] * 3 * FAILURES_TO_OPEN)
    running = [asyncio.create_task(guarded.upload_file(upload_of())) for _ in range(3 * FAILURES_TO_OPEN)]
    await memory.delivered.wait()
    memory.answers.set()
    await asyncio.wait(running)
    assert (await refused(guarded)).retry_after_seconds == pytest.approx(FIRST_OPEN_SECONDS)


@pytest.mark.parametrize(
    "error",
    [RateLimited("slow down"), Rejected("no"), Missing("gone"), Unauthorized("who?")],
    ids=lambda one: type(one).__name__,
)
async def test_whoever_answers_is_there_whatever_he_says(memory, error):
    guarded = Guarded(memory, Guard("answers", "openai", LIMITS))
    for _ in range(3):
        await fail(guarded, memory, FAILURES_TO_OPEN - 1)
        await fail(guarded, memory, error=error)


async def test_what_fails_on_our_side_tells_nothing_of_the_provider(memory):
    guarded = Guarded(memory, Guard("ours", "openai", LIMITS))
    await fail(guarded, memory, FAILURES_TO_OPEN - 1)
    await fail(guarded, memory, error=ZeroDivisionError())
    await fail(guarded, memory)
    await refused(guarded)


async def test_the_deployments_of_an_account_share_its_circuit(memory):
    guard = Guard("shared", "openai", LIMITS)
    chats, files = Guarded(memory, guard), Guarded(MemoryProvider(), guard)
    await fail(chats, memory, FAILURES_TO_OPEN)
    with pytest.raises(Unavailable, match="keeps failing"):
        await files.delete_file("file-1")
