"""Policies around a provider that are providers themselves: `Retrying(Guarded(Observed(Impatient(provider))))`.

Outermost Retrying, so that each attempt counts for the account's guard (`app.providers.limits`); inside the guard
Observed, since a call that the guard refuses is none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace

import stamina
from prometheus_client import Histogram

from app.errors import ProviderError, Unavailable
from app.providers.protocol import FileUpload, Provider, ProviderFile, ProviderFilePage, StoragePlace
from app.providers.wrapped import Wrapped

PROVIDER_SECONDS = Histogram(
    "filemux_provider_seconds",
    "Time spent waiting for a provider, by call",
    ["provider", "operation", "outcome"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)

ATTEMPTS = 3
RETRY_SECONDS = 45.0
FIRST_WAIT_SECONDS = 0.2
# A provider that asks for more patience than this is answered to the caller, who knows what it is worth.
MAX_WAIT_SECONDS = 20.0
# How long a provider may take for the next of an upload's chunks, and for its answer to all of them.
CHUNK_SECONDS = 60.0
ANSWER_SECONDS = 300.0


class Observed(Wrapped):
    """Measures every call; of a stream, the time to the provider's acceptance."""

    def __init__(self, provider: Provider, name: str) -> None:
        super().__init__(provider)
        self._name = name

    @contextmanager
    def _around(self, operation: str) -> Iterator[None]:
        started = time.perf_counter()
        outcome = "ok"
        try:
            yield
        except BaseException as failure:
            outcome = type(failure).__name__
            raise
        finally:
            elapsed = time.perf_counter() - started
            PROVIDER_SECONDS.labels(self._name, operation, outcome).observe(elapsed)


class Retrying(Wrapped):
    """Repeats what is safe to repeat: an upload starts over from the spool unless the last one may have arrived.

    Chats are not repeated here (the next deployment is tried), nor what a row has due again later (deletes, the steps
    of a batch), nor reads (the next replica is read).
    """

    def __init__(self, provider: Provider) -> None:
        super().__init__(provider)
        self._retry = stamina.AsyncRetryingCaller(
            attempts=ATTEMPTS, timeout=RETRY_SECONDS, wait_initial=FIRST_WAIT_SECONDS
        ).on(self._worth_another_try)

    async def upload_file(self, upload: FileUpload) -> ProviderFile:
        """See Provider. What an attempt may have made is not made undone by the refusal of a later one."""
        may_exist = False

        async def attempt() -> ProviderFile:
            nonlocal may_exist
            try:
                return await self._provider.upload_file(upload)
            except ProviderError as failure:
                may_exist = failure.outcome_unknown = may_exist or failure.outcome_unknown
                raise

        return await self._retry(attempt)

    async def retrieve_file(self, provider_file_id: str) -> ProviderFile:
        """See Provider."""
        return await self._retry(self._provider.retrieve_file, provider_file_id)

    async def list_files(self, after: str | None, limit: int, storage: StoragePlace | None = None) -> ProviderFilePage:
        """See Provider."""
        return await self._retry(self._provider.list_files, after, limit, storage)

    def _worth_another_try(self, failure: Exception) -> bool | float:
        """False, True (wait as the policy says), or the seconds that the provider asked for."""
        if not isinstance(failure, ProviderError) or not failure.retryable:
            return False
        if failure.outcome_unknown and not self.capabilities.chooses_id:
            # A second file might come of it; under a name of ours the first is found again.
            return False
        wait = failure.retry_after_seconds
        return True if wait is None else wait if wait <= MAX_WAIT_SECONDS else False


class Impatient(Wrapped):
    """Gives up an upload whose provider takes no more bytes, or does not answer to the last one.

    How long our own client takes for its bytes does not count.
    """

    async def upload_file(self, upload: FileUpload) -> ProviderFile:
        """See Provider."""
        delivered = False

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal delivered
            delivered = False
            async for chunk in upload.open():
                _reschedule(deadline, CHUNK_SECONDS)
                yield chunk
                _reschedule(deadline, None)
            delivered = True
            _reschedule(deadline, ANSWER_SECONDS)

        try:
            async with asyncio.timeout(None) as deadline:
                return await self._provider.upload_file(replace(upload, open=chunks))
        except TimeoutError as failure:
            if not deadline.expired():
                raise
            reason = "did not answer to an upload" if delivered else "took no more of an upload's bytes"
            raise Unavailable(f"the provider {reason}", outcome_unknown=delivered) from failure


def _reschedule(deadline: asyncio.Timeout, seconds: float | None) -> None:
    # One that is past has ended the upload already, though its bytes may still be asked for.
    if not deadline.expired():
        deadline.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)
