"""What keeps one account's trouble its own: a limit of calls at once, and a circuit that opens when it keeps failing.

`Guarded` is a wrapper, as those of `app.providers.wrappers`; its `Guard` is shared by all deployments of an account.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType

import structlog
from prometheus_client import Counter, Gauge

from app.errors import ProviderError, RateLimited, Unavailable
from app.providers.protocol import ChatRequest, ChatStream, Provider
from app.providers.wrapped import Wrapped

log = structlog.get_logger("filemux.providers")

# What a caller over the limit is told to wait.
FULL_SECONDS = 1.0
FIRST_OPEN_SECONDS = 1.0
MAX_OPEN_SECONDS = 60.0

CIRCUIT_OPEN = Gauge(
    "filemux_account_circuit_open",
    "1 while an account that kept failing is not called",
    ["account", "provider"],
    multiprocess_mode="livemax",
)
CIRCUIT_OPENINGS = Counter(
    "filemux_account_circuit_openings", "How often an account's circuit opened", ["account", "provider"]
)


@dataclass(frozen=True)
class Limits:
    """`max_calls` at once; more than `allowed_fails` in a row open the circuit."""

    max_calls: int = 1000
    allowed_fails: int = 9


class Guard:
    """`with guard:` is one call to the account; it raises RateLimited or Unavailable where there shall be none.

    The circuit opens after failures in a row that say nothing but that the provider is not there (5xx, a time-out, a
    broken connection). Then one call is let through after a second, the next after two, up to a minute, until one is
    answered, however.
    """

    def __init__(self, account: str, provider_name: str, limits: Limits) -> None:
        self._account = account
        self._limits = limits
        self._calls = 0
        self._failures = 0
        self._open_seconds = 0.0
        # When the next call may try; None while the circuit is closed.
        self._try_at: float | None = None
        self._gauge = CIRCUIT_OPEN.labels(account, provider_name)
        self._gauge.set(0)
        self._openings = CIRCUIT_OPENINGS.labels(account, provider_name)

    def __enter__(self) -> None:
        if self._calls >= self._limits.max_calls:
            reason = f"{self._calls} calls to the account {self._account} are under way, which is its limit"
            raise RateLimited(reason, retry_after_seconds=FULL_SECONDS)
        if self._try_at is not None:
            self._wait_for_the_next_try(self._try_at)
        self._calls += 1

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls -= 1
        if isinstance(failure, Unavailable):
            self._failures += 1
            if self._failures == self._limits.allowed_fails + 1:
                self._open()
        elif self._failures and (failure is None or isinstance(failure, ProviderError)):
            self._close()

    def hold(self) -> None:
        """Count a call that goes on when its block has ended."""
        self._calls += 1

    def release(self) -> None:
        """That call has ended."""
        self._calls -= 1

    def _wait_for_the_next_try(self, try_at: float) -> None:
        now = time.monotonic()
        if now < try_at:
            wait = try_at - now
            reason = f"the account {self._account} keeps failing; it is tried again in {math.ceil(wait)} s"
            raise Unavailable(reason, retry_after_seconds=wait)
        # Whether this try is answered or not, the next one waits its turn.
        self._open_seconds = min(2 * self._open_seconds, MAX_OPEN_SECONDS)
        self._try_at = now + self._open_seconds

    def _open(self) -> None:
        self._open_seconds = FIRST_OPEN_SECONDS
        self._try_at = time.monotonic() + FIRST_OPEN_SECONDS
        self._gauge.set(1)
        self._openings.inc()
        log.warning("an account keeps failing and is not called for a while", account=self._account)

    def _close(self) -> None:
        self._failures = 0
        if self._try_at is not None:
            self._try_at = None
            self._gauge.set(0)
            log.info("an account answers again", account=self._account)


class Guarded(Wrapped):
    """Makes calls under the account's guard, but for `check`, which asks whether the provider answers."""

    def __init__(self, provider: Provider, guard: Guard) -> None:
        super().__init__(provider)
        self._guard = guard

    def _around(self, operation: str) -> AbstractContextManager[None]:
        return nullcontext() if operation == "check" else self._guard

    async def stream_chat(self, request: ChatRequest) -> ChatStream:
        """See Provider; under way until the stream is closed."""
        return _HeldStream(await super().stream_chat(request), self._guard)


class _HeldStream:
    __slots__ = ("_guard", "_stream")

    def __init__(self, stream: ChatStream, guard: Guard) -> None:
        self._stream = stream
        self._guard: Guard | None = guard
        guard.hold()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        if self._guard is not None:
            self._guard.release()
            self._guard = None
        await self._stream.aclose()
