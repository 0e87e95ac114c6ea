"""The wrappers: what is repeated, how long it is waited for, and what is measured."""

import asyncio
from contextlib import AsyncExitStack

import pytest
import stamina
from prometheus_client import REGISTRY

from app.errors import Missing, QuotaExceeded, RateLimited, Rejected, Unauthorized, Unavailable
from app.providers.protocol import BatchSubmission, ChatRequest, ProviderBatch
from app.providers.wrappers import ATTEMPTS, MAX_WAIT_SECONDS, Impatient, Observed, Retrying
from tests.support.providers import MemoryProvider, upload_of


async def read(provider):
    async with provider.read_file("file-1") as content:
        return b"".join([chunk async for chunk in content.chunks])


async def read_output(provider):
    async with provider.read_batch_output(ProviderBatch("batch-1", "completed")) as results:
        return [one async for one in results]


CHAT = ChatRequest("gpt", b"{}")
BATCH = BatchSubmission("a name", "gpt", "/v1/chat/completions", input_file_id="file-1")
CALLS = {
    "check": lambda provider: provider.check(),
    "upload_file": lambda provider: provider.upload_file(upload_of()),
    "retrieve_file": lambda provider: provider.retrieve_file("file-1"),
    "read_file": read,
    "list_files": lambda provider: provider.list_files(None, 10),
    "delete_file": lambda provider: provider.delete_file("file-1"),
    "chat": lambda provider: provider.chat(CHAT),
    "stream_chat": lambda provider: provider.stream_chat(CHAT),
    "create_batch": lambda provider: provider.create_batch(BATCH),
    "retrieve_batch": lambda provider: provider.retrieve_batch("batch-1"),
    "list_batches": lambda provider: provider.list_batches(None, 10),
    "cancel_batch": lambda provider: provider.cancel_batch("batch-1"),
    "read_batch_output": read_output,
    "forget_batch": lambda provider: provider.forget_batch(ProviderBatch("batch-1", "completed")),
}
REPEATED = {"upload_file", "retrieve_file", "list_files"}
every_call = pytest.mark.parametrize("operation", CALLS)


@pytest.fixture
async def memory():
    """A provider that holds file-1."""
    provider = MemoryProvider()
    await provider.upload_file(upload_of())
    provider.calls.clear()
    return provider


@pytest.fixture
def without_waits():
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        yield


@every_call
@pytest.mark.usefixtures("without_waits")
async def test_only_what_is_safe_is_repeated(memory, operation):
    memory.fail(operation, *[Unavailable("down")] * ATTEMPTS)
    with pytest.raises(Unavailable):
        await CALLS[operation](Retrying(memory))
    assert memory.calls[operation] == (ATTEMPTS if operation in REPEATED else 1)


@pytest.mark.parametrize("operation", sorted(REPEATED))
@pytest.mark.usefixtures("without_waits")
async def test_what_succeeds_at_last_has_succeeded(memory, operation):
    memory.fail(operation, Unavailable("down"), RateLimited("slow down"))
    assert await CALLS[operation](Retrying(memory)) is not None
    assert memory.calls[operation] == 3


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("no answer", outcome_unknown=True),
        RateLimited("much later", retry_after_seconds=MAX_WAIT_SECONDS + 0.1),
        QuotaExceeded("pay first"),
        Rejected("no"),
        Missing("gone"),
        Unauthorized("who are you"),
        ZeroDivisionError(),
    ],
    ids=lambda error: f"{type(error).__name__}",
)
@pytest.mark.usefixtures("without_waits")
async def test_what_a_retry_does_not_mend_is_not_repeated(memory, error):
    memory.fail("upload_file", error)
    with pytest.raises(type(error)):
        await CALLS["upload_file"](Retrying(memory))
    assert memory.calls["upload_file"] == 1


@pytest.mark.usefixtures("without_waits")
async def test_an_upload_whose_outcome_is_unknown_is_repeated_under_a_name_of_ours():
    """The first may have arrived: the second meets it there, where elsewhere it would be another file."""
    named = MemoryProvider(chooses_id=True)
    named.fail("upload_file", *[Unavailable("no answer", outcome_unknown=True)] * (ATTEMPTS - 1))
    file = await Retrying(named).upload_file(upload_of(replica_id="replica-1"))
    assert named.calls["upload_file"] == ATTEMPTS
    assert [*named.files] == [file.id] == [Retrying(named).chosen_file_id("replica-1")]


@pytest.mark.usefixtures("without_waits")
async def test_what_an_attempt_may_have_made_is_not_forgotten_when_a_later_one_is_refused():
    named = MemoryProvider(chooses_id=True)
    named.fail("upload_file", Unavailable("no answer", outcome_unknown=True), *[RateLimited("busy")] * (ATTEMPTS - 1))
    with pytest.raises(RateLimited) as failure:
        await Retrying(named).upload_file(upload_of(replica_id="replica-1"))
    assert failure.value.outcome_unknown


async def test_the_wait_is_the_one_that_the_provider_asks_for(memory):
    waits = []
    memory.fail(
        "upload_file", RateLimited("soon", retry_after_seconds=0.01), Unavailable("soon", retry_after_seconds=0)
    )
    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([lambda details: waits.append(details.wait_for)])
    try:
        await CALLS["upload_file"](Retrying(memory))
    finally:
        stamina.instrumentation.set_on_retry_hooks(before)
    assert waits == [pytest.approx(0.01), 0]


@pytest.mark.usefixtures("without_waits")
async def test_each_repeated_upload_begins_at_the_first_byte(memory):
    memory.fail("upload_file", Unavailable("down"), Unavailable("down"))
    await Retrying(memory).upload_file(upload_of(b"from the start"))
    assert [attempt.received for attempt in memory.attempts[-3:]] == [b"from the start"] * 3


# --- patience ---------------------------------------------------------------------------------------------------


@pytest.fixture
def short_patience(monkeypatch):
    monkeypatch.setattr("app.providers.wrappers.CHUNK_SECONDS", 0.1)
    monkeypatch.setattr("app.providers.wrappers.ANSWER_SECONDS", 0.2)


@pytest.mark.usefixtures("short_patience")
async def test_an_upload_whose_answer_never_comes_may_have_arrived(memory):
    memory.answers.clear()
    with pytest.raises(Unavailable, match="did not answer") as failure:
        await Impatient(memory).upload_file(upload_of())
    assert memory.attempts[-1].received == b"some bytes"
    assert failure.value.outcome_unknown


class Stuck(MemoryProvider):
    """Takes one chunk and then no more."""

    async def upload_file(self, upload):
        async for _ in upload.open():
            await asyncio.Event().wait()


@pytest.mark.usefixtures("short_patience")
async def test_an_upload_whose_provider_takes_no_more_is_given_up_and_may_be_repeated():
    with pytest.raises(Unavailable, match="took no more") as failure:
        await Impatient(Stuck()).upload_file(upload_of())
    assert not failure.value.outcome_unknown


@pytest.mark.usefixtures("short_patience")
async def test_a_client_may_take_its_time(memory):
    async def slow_bytes():
        for _ in range(3):
            await asyncio.sleep(0.15)
            yield b"slow "

    await Impatient(memory).upload_file(upload_of(open=slow_bytes))
    assert memory.attempts[-1].received == b"slow slow slow "


@pytest.mark.usefixtures("short_patience")
async def test_a_time_out_of_the_providers_own_is_not_ours(memory):
    memory.fail("upload_file", TimeoutError("a bug"))
    with pytest.raises(TimeoutError, match="a bug"):
        await Impatient(memory).upload_file(upload_of())


@every_call
async def test_all_else_is_passed_on(memory, operation):
    await CALLS[operation](Impatient(memory))
    assert memory.calls == {operation: 1}


# --- measuring --------------------------------------------------------------------------------------------------


def measured(provider, operation, outcome):
    labels = {"provider": provider, "operation": operation, "outcome": outcome}
    return REGISTRY.get_sample_value("filemux_provider_seconds_count", labels) or 0


@every_call
async def test_every_call_is_measured_with_its_outcome(memory, operation):
    name = f"measured {operation}"
    observed = Observed(memory, name)
    await CALLS[operation](observed)
    assert (measured(name, operation, "ok"), measured(name, operation, "Unavailable")) == (1, 0)
    memory.fail(operation, Unavailable("down"))
    with pytest.raises(Unavailable):
        await CALLS[operation](observed)
    assert (measured(name, operation, "ok"), measured(name, operation, "Unavailable")) == (1, 1)


@pytest.mark.usefixtures("without_waits")
async def test_each_attempt_is_measured(memory):
    memory.fail("upload_file", Unavailable("down"), Unavailable("down"))
    await Retrying(Observed(memory, "attempts")).upload_file(upload_of())
    assert measured("attempts", "upload_file", "Unavailable") == 2
    assert measured("attempts", "upload_file", "ok") == 1


async def test_a_reader_that_fails_is_measured_as_failed(memory):
    async with AsyncExitStack() as stack:
        stack.enter_context(pytest.raises(ZeroDivisionError))
        await stack.enter_async_context(Observed(memory, "reader").read_file("file-1"))
        raise ZeroDivisionError
    assert measured("reader", "read_file", "ZeroDivisionError") == 1
