"""How often each operation was done, how long it took, and how it failed."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import quantiles

import httpx
import openai


class Failed(Exception):
    """An operation that did not succeed: `status` is None when no whole answer came."""

    def __init__(self, status: int | None, code: str) -> None:
        super().__init__(f"{status} {code}" if status else code)
        self.status, self.code = status, code

    @classmethod
    def of(cls, error: openai.APIError | httpx.HTTPError) -> "Failed":
        """In the words of the tally."""
        if isinstance(error, openai.APIStatusError):
            return cls(error.status_code, error.code or error.type or "")
        if isinstance(error, openai.APIConnectionError | httpx.HTTPError):
            return cls(None, f"cut off: {type(error.__cause__ or error).__name__}")
        return cls(None, f"cut off: an error within the stream, {error.code or error.type}")

    @property
    def is_down(self) -> bool:
        """Whether nobody listened, or a gateway says that it cannot serve now."""
        return self.status == 503 or self._is_unconnected

    @property
    def is_refusal(self) -> bool:
        """Whether it was certainly not done."""
        return self._is_unconnected if self.status is None else self.status < 500

    @property
    def is_unknown_file(self) -> bool:
        """Whether the gateway says that there is no such file."""
        return self.code in ("not_found", "file_not_found")

    @property
    def _is_unconnected(self) -> bool:
        return self.code == f"cut off: {httpx.ConnectError.__name__}"


class Tally:
    """The figures of a run."""

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.errors: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.faults: Counter[str] = Counter()
        self.faults_not_met = self.kills = self.restarts = 0
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)

    def __str__(self) -> str:
        errors = sum(errors.total() for errors in self.errors.values())
        faults = self.faults.total()
        return f"{self.operations.total():,} operations, {errors:,} errors, {faults:,} faults, {self.kills} kills"

    @property
    def has_bugs(self) -> bool:
        """Whether a gateway has answered 500, which is never right and breaks no promise by itself."""
        return any("500 internal_error" in errors for errors in self.errors.values())

    @contextmanager
    def measured(self, operation: str) -> Iterator[None]:
        """Count and time what is done inside. Raises Failed."""
        self.operations[operation] += 1
        started = time.perf_counter()
        try:
            yield
        except (openai.APIError, httpx.HTTPError) as error:
            failure = Failed.of(error)
            self.errors[operation][str(failure)] += 1
            raise failure from error
        self._seconds[operation].append(time.perf_counter() - started)

    def milliseconds(self, operation: str) -> tuple[float, float]:
        """p50 and p99 of those that succeeded."""
        taken = self._seconds[operation]
        if len(taken) < 2:
            return (taken[0] * 1000,) * 2 if taken else (0.0, 0.0)
        points = quantiles(taken, n=100)
        return points[49] * 1000, points[98] * 1000
