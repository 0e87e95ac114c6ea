"""Batches whose lines are an object of a bucket, and their results another: Vertex AI's and Bedrock's."""

import asyncio
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from app.sandbox.batches import Batch
from app.sandbox.objects import Bucket

# After so many answers others have their turn.
_SLICE = 50


class BadInput(Exception):
    """What is wrong with the lines of a batch, so that none of them runs."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of one line: its line among the results, and how long it takes."""

    result: dict[str, Any]
    seconds: int
    succeeds: bool


class Outcomes:
    """Those of all lines. `failure` is why the batch as a whole fails; then there are none."""

    def __init__(self, failure: str | None = None) -> None:
        self.failure = failure
        self.seconds = array("I")
        self.successes: list[bool] = []
        self.results: list[bytes] = []

    @classmethod
    async def of(cls, bucket: Bucket, uri: str, outcome_of: Callable[[bytes], Outcome]) -> "Outcomes":
        """Let the model answer the lines of an object."""
        key = bucket.key_of(uri)
        stored = None if key is None else bucket.find(key)
        if stored is None:
            return cls(f"The input {uri} does not exist, or it cannot be read.")
        outcomes = cls()
        try:
            await outcomes._add(stored.path, outcome_of)
        except BadInput as error:
            return cls(str(error))
        return outcomes if outcomes.results else cls(f"The input {uri} has no lines.")

    async def _add(self, path: Path, outcome_of: Callable[[bytes], Outcome]) -> None:
        with path.open("rb") as lines:
            for line in filter(bytes.strip, lines):
                outcome = outcome_of(line)
                self.seconds.append(outcome.seconds)
                self.successes.append(outcome.succeeds)
                self.results.append(orjson.dumps(outcome.result) + b"\n")
                if len(self.results) % _SLICE == 0:
                    await asyncio.sleep(0)


@dataclass(slots=True, kw_only=True)
class ObjectBatch(Batch):
    """Such a batch; its results are kept back until it has ended. A provider's own class writes them."""

    successes: Sequence[bool] = field(repr=False)
    results: Sequence[bytes] = field(repr=False)
    failure: str | None
    bucket: Bucket = field(repr=False)

    def counts(self, now: int) -> tuple[int, int, int]:
        """Return how many lines have been answered well and not well by now, and how many have not run."""
        run = [succeeds for index, succeeds in enumerate(self.successes) if self.has_run(index, now)]
        return sum(run), len(run) - sum(run), len(self.results) - len(run)

    @property
    def has_results(self) -> bool:
        """Whether any line will have run when it has ended."""
        return any(self.has_run(index, self.ended_at) for index in range(len(self.results)))

    def written(self) -> Iterable[bytes]:
        """Return the results of the lines that have run, in another order than theirs: none is promised."""
        return [line for index, line in enumerate(self.results) if self.has_run(index, self.ended_at)][::-1]
