"""Batches of all simulated providers: how far the sandbox's clock has brought each of their lines.

The user's text decides a line's fate: `slow:90` has it take 90 seconds instead of RUN_SECONDS, `fail:400` has it fail
with that status. What is not done when a batch is cancelled or expires never runs.
"""

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

State = Literal["validating", "running", "cancelling", "ended"]
Ending = Literal["done", "cancelled", "expired"]

VALIDATING_SECONDS = 1
RUN_SECONDS = 2
CANCEL_SECONDS = 1
EXPIRY_SECONDS = 24 * 3600

_SLOW = re.compile(r"\bslow:(\d+)")
_FAIL = re.compile(r"\bfail:(\d{3})")


def seconds_of(text: str) -> int:
    """Return how long the request with this user text takes in a batch."""
    found = _SLOW.search(text)
    return int(found[1]) if found else RUN_SECONDS


def failure_of(text: str) -> int | None:
    """Return the status with which the request with this user text fails in a batch, if it does."""
    found = _FAIL.search(text)
    return int(found[1]) if found else None


@dataclass(slots=True, kw_only=True)
class Batch:
    """One batch at one account; `line_seconds` tells, in the order of its lines, how long each takes.

    `name` is what its creator calls it, where the provider has a place for that. A provider's own class adds what it
    was asked, and `finish`, which writes the results.
    """

    provider: str
    account: str
    id: str
    name: str | None
    created_at: int
    line_seconds: Sequence[int] = field(repr=False, default_factory=lambda: array("I"))
    expiry_seconds: int = EXPIRY_SECONDS
    cancelled_at: int | None = None
    _finished: bool = field(default=False, repr=False)
    _finished_at: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._finished_at = self.created_at + max(self.line_seconds, default=VALIDATING_SECONDS)

    def finish(self) -> None:
        """Write the results; called once, when it has ended."""

    def end(self, now: int) -> None:
        """Finish it if it has ended by now and nobody has yet."""
        if not self._finished and self.state(now) == "ended":
            self._finished = True
            self.finish()

    @property
    def expires_at(self) -> int:
        """When it ends whatever is left to do."""
        return self.created_at + self.expiry_seconds

    @property
    def ended_at(self) -> int:
        """When it ends, or has ended."""
        cancelled = self.expires_at if self.cancelled_at is None else self.cancelled_at + CANCEL_SECONDS
        return min(self._finished_at, self.expires_at, cancelled)

    @property
    def ending(self) -> Ending:
        """How it ends, or has ended."""
        if self._finished_at <= self.ended_at:
            return "done"
        return "expired" if self.expires_at <= self.ended_at else "cancelled"

    def state(self, now: int) -> State:
        """Return how far it is."""
        if now >= self.ended_at:
            return "ended"
        if self.cancelled_at is not None:
            return "cancelling"
        return "validating" if now < self.created_at + VALIDATING_SECONDS else "running"

    def cancel(self, now: int) -> None:
        """Ask for it to end; one that has ended, or was asked before, is left as it is."""
        if self.cancelled_at is None and self.state(now) != "ended":
            self.cancelled_at = now

    def has_run(self, index: int, now: int) -> bool:
        """Return whether a line is done by now; when the batch has ended, the others never will be."""
        # What runs when a batch is cancelled is finished within CANCEL_SECONDS or not at all.
        end = self.ended_at if self.cancelled_at is None else min(self.ended_at, self.cancelled_at)
        return self.created_at + self.line_seconds[index] <= min(now, end)
