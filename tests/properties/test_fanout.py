"""Fan-out: all healthy accounts get identical bytes, whatever the others do and whatever size was foreseen."""

import asyncio
import random
import tempfile
from pathlib import Path

import pytest
import stamina
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from app.deployments import Account
from app.errors import ProviderError, RateLimited, Rejected, Unavailable
from app.files.fanout import Fanout, FileFacts, Sink
from app.files.spool import Spool
from app.providers.wrappers import ATTEMPTS, Retrying
from tests.support.providers import Failure, MemoryProvider

FACTS = FileFacts("a.bin", "application/octet-stream", "user_data", None)
DATA = random.Random(3).randbytes(4 * 1024 * 1024)
SIZES = [1, 1000, 256 * 1024, 1024 * 1024, 1024 * 1024 + 1]

known = [lambda: Unavailable("down"), lambda: RateLimited("slow", retry_after_seconds=1), lambda: Rejected("no")]
silent = [lambda: Unavailable("silent", outcome_unknown=True), lambda: ZeroDivisionError("a bug")]
failures = st.builds(
    lambda error, after_bytes: Failure(error(), after_bytes), st.sampled_from(known), st.sampled_from([-1, 0, 300_000])
) | st.builds(lambda error: Failure(error()), st.sampled_from(known + silent))
capabilities = st.fixed_dictionaries({"needs_length": st.booleans(), "chooses_id": st.booleans()})
accounts = st.lists(st.tuples(st.lists(failures, max_size=4), capabilities), min_size=1, max_size=4)
hints = st.sampled_from([None, 0, -1, 1, 100_000])


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Retries as in production, without the pauses between them; no traces of the scripted bugs."""
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True), structlog.testing.capture_logs():
        yield


def _sinks(providers):
    return [
        Sink(Account(f"account-{index}", "memory", Retrying(provider)), f"replica-{index}", ("mini",))
        for index, provider in enumerate(providers)
    ]


async def _fanned_out(providers, sizes, hint, *, stop_at_first_failure=False):
    """Upload so many bytes in these steps; the content and the outcomes."""
    content = DATA[: sum(sizes)]
    with tempfile.TemporaryDirectory() as directory:
        async with Spool(Path(directory)) as spool:
            fanout = Fanout(spool, FACTS, _sinks(providers), hint)
            position = 0
            for size in sizes:
                await spool.write(content[position : position + size])
                position += size
                await asyncio.sleep(0)
            await spool.finish()
            return content, await fanout.settled(stop_at_first_failure=stop_at_first_failure)


def _hint(sizes, off_by):
    return None if off_by is None else max(1, sum(sizes) + off_by)


def _survivable(script, *, chooses_id):
    """Whether the retries outlast the failures."""
    return len(script) < ATTEMPTS and all(
        isinstance(failure.error, ProviderError)
        and failure.error.retryable
        and (chooses_id or not failure.error.outcome_unknown)
        for failure in script
    )


@settings(max_examples=150)
@given(accounts, st.lists(st.sampled_from(SIZES), min_size=1, max_size=4), hints)
def test_accounts_do_not_disturb_each_other(wanted, sizes, off_by):
    async def scenario():
        providers = [MemoryProvider(*script, **able) for script, able in wanted]
        content, outcomes = await _fanned_out(providers, sizes, _hint(sizes, off_by))
        for (script, able), provider, outcome in zip(wanted, providers, outcomes, strict=True):
            assert outcome.stored == (outcome.error is None)
            # A failure may be spent on an upload that a wrong size had cut off anyway.
            if not script or off_by in (None, 0):
                assert outcome.stored == _survivable(script, chooses_id=able["chooses_id"])
            _check(provider, outcome, content)

    asyncio.run(scenario())


def _check(provider, outcome, content):
    """One account: what it holds is what its outcome says, and what it saw was true."""
    assert [*provider.files.values()] == ([content] if outcome.stored else [])
    if outcome.may_exist:
        assert content in [attempt.received for attempt in provider.attempts]
    for attempt in provider.attempts:
        assert content.startswith(attempt.received)
        if attempt.size_bytes not in (None, len(content)):
            assert len(attempt.received) < attempt.size_bytes


@settings(max_examples=60)
@given(accounts, st.lists(st.sampled_from(SIZES), min_size=1, max_size=3), hints)
def test_stopping_at_the_first_failure_tells_what_each_account_holds(wanted, sizes, off_by):
    async def scenario():
        providers = [MemoryProvider(*script, **able) for script, able in wanted]
        content, outcomes = await _fanned_out(providers, sizes, _hint(sizes, off_by), stop_at_first_failure=True)
        for provider, outcome in zip(providers, outcomes, strict=True):
            _check(provider, outcome, content)
        assert any(outcome.error for outcome in outcomes) or all(outcome.stored for outcome in outcomes)

    asyncio.run(scenario())
