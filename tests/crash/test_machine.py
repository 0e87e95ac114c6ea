"""Two gateways, any order of events: uploads, chats, deletes, failing providers, kills, days that pass.

Whenever everything is well again and at rest, the providers hold exactly the live replicas, and every file that a
client was told about and nobody has asked to delete is there whole. `FILEMUX_CRASH_EXAMPLES=200` looks for longer,
and at other examples each time.
"""

import asyncio
import itertools
import os
from contextlib import suppress
from dataclasses import dataclass

import openai
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    rule,
    run_state_machine_as_test,
)

from app.sandbox.config import MODELS
from tests.every_provider.test_errors import PROVIDERS
from tests.support.batches import create, jsonl, line, lines_of
from tests.support.chats import answer_of, ask, file_part, text_part
from tests.support.pair import GATEWAYS, Pair
from tests.support.uploads import sha256

EXAMPLES = os.environ.get("FILEMUX_CRASH_EXAMPLES")
SMALL, LARGE = 1, 2_000_000
# 49 hours: Gemini's files have expired.
TWO_DAYS_SECONDS = 49 * 3600

model_names = st.sampled_from(sorted(MODELS))
gateways = st.sampled_from(GATEWAYS)
failures = st.sampled_from(
    [
        {"status": 500},
        {"status": 503},
        {"status": 429, "retry_after_seconds": 1},
        {"lose_answer": True},
        {"reset_after_bytes": 0},
        {"reset_after_bytes": 1_000_000},
    ]
)
kills = st.sampled_from(
    [
        {"kill_at": "start"},
        {"kill_at": "before_answer"},
        {"kill_at": "after_answer"},
        {"kill_after_bytes": 1},
        {"kill_after_bytes": 1_000_000},
    ]
)
# What befalls the next calls of one of the providers concerned.
troubles = st.none() | st.tuples(st.integers(0, 5), st.integers(1, 4), failures | kills)


@dataclass(frozen=True)
class Told:
    """A file whose id a client was told."""

    id: str
    name: str
    content: bytes
    targets: tuple[str, ...]


class Machine(RuleBasedStateMachine):
    """What clients do and what befalls the gateways; `files` are the names of those that nobody has asked to delete.
    Which step comes next does not depend on how another has ended."""

    files = Bundle("files")

    def __init__(self, pair):
        super().__init__()
        self.pair, self.sandbox = pair, pair.world.sandbox
        self.told = {}
        # The ids of batches that a client was told, and which models each is for.
        self.batches = {}
        # Names of files whose upload or delete was not answered: they may be there or not.
        self.doubted = set()
        self._numbers = itertools.count(1)
        pair.wait_for(pair.world.forget())
        pair.revive()

    # --- clients ----------------------------------------------------------------------------------------------

    @initialize(target=files, models=st.sets(model_names, min_size=1))
    def upload_the_first(self, models):
        return self.upload("one", models, SMALL, None)

    @rule(
        target=files,
        at=gateways,
        models=st.sets(model_names, min_size=1),
        size=st.sampled_from([SMALL, LARGE]),
        trouble=troubles,
    )
    def upload(self, at, models, size, trouble):
        name = f"file-{next(self._numbers)}.pdf"
        content = f"%PDF-1.7 {name} ".encode().ljust(size, b"x")
        form = {"purpose": "user_data", "extra_body": {"target_model_names": ",".join(sorted(models))}}
        self._befall(trouble, models, at)
        [file] = self.pair.ask(lambda client: client.files.create(file=(name, content), **form), at=at)
        if file is None:
            self.doubted.add(name)
        else:
            self.told[name] = Told(file.id, name, content, tuple(sorted(models)))
        return name

    @rule(at=gateways, name=files, model_name=model_names, times=st.sampled_from([1, 6]), trouble=troubles)
    def chat(self, at, name, model_name, times, trouble):
        """By one client, or by many at once."""
        if name not in self.told:
            return
        self._befall(trouble, [model_name], at)
        for answer in self.pair.ask(*[self._chat(self.told[name], model_name)] * times, at=at):
            assert answer is None or sha256(self.told[name].content) in answer

    @rule(at=gateways, name=consumes(files), chatting=st.none() | model_names, trouble=troubles)
    def delete(self, at, name, chatting, trouble):
        """Maybe while others chat about it."""
        file = self.told.pop(name, None)
        if file is None:
            return
        self._befall(trouble, file.targets, at)

        def chat_if_there(client):
            with suppress(openai.BadRequestError):
                return self._chat(file, chatting)(client)

        chats = [chat_if_there] * 3 if chatting else []
        deleted, *answers = self.pair.ask(lambda client: client.files.delete(file.id), *chats, at=at)
        if deleted is None:
            self.doubted.add(name)
        for answer in answers:
            assert answer is None or sha256(file.content) in answer

    @rule(at=gateways, models=st.sets(model_names, min_size=1), trouble=troubles)
    def batch(self, at, models, trouble):
        """With a line for each of these models."""
        name = f"lines-{next(self._numbers)}.jsonl"
        lines = jsonl(line(model, model, f"slow:0 {name}") for model in sorted(models))
        form = {"purpose": "batch", "extra_body": {"target_model_names": ",".join(sorted(models))}}
        self._befall(trouble, models, at)
        [file] = self.pair.ask(lambda client: client.files.create(file=(name, lines), **form), at=at)
        [batch] = self.pair.ask(lambda client: file and create(client, file), at=at)
        if batch is not None:
            self.batches[batch.id] = models

    @staticmethod
    def _chat(file, model_name):
        return lambda client: answer_of(ask(client, model_name, text_part("Which?"), file_part(file.id)))

    # --- trouble ----------------------------------------------------------------------------------------------

    def _befall(self, trouble, models, at):
        if trouble is not None:
            number, times, effect = trouble
            provider = PROVIDERS[sorted(models)[number % len(models)]]
            kills = {"kill_pid": self.pair.pid(at)} if "kill" in next(iter(effect)) else {"times": times}
            self.sandbox.fault(provider, "*", **effect, **kills)

    @rule(name=gateways)
    def is_killed(self, name):
        self.pair.kill(name)

    @rule()
    def all_is_well_again(self):
        self.pair.revive()

    @rule()
    def two_days_pass(self):
        self.pair.world.advance(TWO_DAYS_SECONDS)

    # --- the promise ------------------------------------------------------------------------------------------

    @rule()
    def come_to_rest(self):
        self.pair.revive()
        self.pair.wait_for(self.pair.world.end_leases())
        self.pair.wait_for(self.pair.world.come_to_rest())

    def teardown(self):
        """Each file that was told is there, at both gateways and all its targets, and each line of a batch has its one
        answer; without them nothing is."""
        self.come_to_rest()
        for batch_id, models in self.batches.items():
            assert self._answered(batch_id, models) == models
        for file in self.told.values():
            for at in GATEWAYS:
                assert self.pair.client(at).files.content(file.id).content == file.content
            for model_name in file.targets:
                assert sha256(file.content) in self._chat(file, model_name)(self.pair.client("one"))
        listed = {file.filename: file.id for file in self.pair.client("one").files.list()}
        assert {*self.told} <= {*listed} <= {*self.told} | self.doubted | {one for one in listed if "jsonl" in one}
        self.come_to_rest()
        for file_id in listed.values():
            self.pair.client("other").files.delete(file_id)
        self.come_to_rest()
        assert self.sandbox.files == []

    def _answered(self, batch_id, models):
        """The models whose lines a batch has answered; its provider may not have kept its results for two days."""
        client = self.pair.client("other")
        batch = client.batches.retrieve(batch_id)
        if batch.status == "failed":
            # Nor, if nobody has asked since, anything else of it.
            assert models == {"gemini-flash"}, batch
            assert ["holds no such" in error.message for error in batch.errors.data] == [True], batch
            return models
        assert batch.status == "completed", batch
        files = [lines_of(client, one) for one in (batch.output_file_id, batch.error_file_id) if one]
        answered = [custom_id for lines in files for custom_id in lines]
        assert len(answered) == batch.request_counts.total
        return {*answered}


@pytest.fixture
async def pair(world):
    running = Pair(world, asyncio.get_running_loop())
    yield running
    running.close()


async def test_nothing_is_lost_and_nothing_is_orphaned(pair):
    options = settings(
        max_examples=int(EXAMPLES or 10),
        stateful_step_count=15,
        derandomize=EXAMPLES is None,
        database=None,
        # What took a minute to fail is not repeated a hundred times to make it shorter.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    await asyncio.to_thread(run_state_machine_as_test, lambda: Machine(pair), settings=options)
