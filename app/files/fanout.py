"""One file to many accounts at once; each account's outcome is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from app.deployments import Account
from app.errors import ProviderError, Unavailable
from app.files.spool import Abandoned, LengthChanged
from app.providers.protocol import FileUpload, ProviderFile, StoragePlace, UploadInterrupted

log = structlog.get_logger("filemux.files")


class Supply(Protocol):
    """The bytes that are fanned out: a spool, or what is kept of a file; `size_bytes` and `sha256` are final once it
    is `finished`."""

    size_bytes: int
    finished: bool

    @property
    def sha256(self) -> str:
        """The hexadecimal digest of all bytes."""

    async def wait_finished(self) -> None:
        """Wait until all bytes are there. Raises UploadInterrupted."""

    def read(self, promised_bytes: int | None) -> AsyncIterator[bytes]:
        """All bytes from the start. Raises UploadInterrupted."""


@dataclass(frozen=True, slots=True)
class Sink:
    """An account that is to get the file, and the id of the row that stands for it."""

    account: Account
    replica_id: str
    model_names: tuple[str, ...]


@dataclass(slots=True)
class Outcome:
    """What became of one sink: a provider file, an error, or neither when it was cut off before the end.

    `delivered` tells whether the last byte was handed over: until then the provider cannot have made a file, unless an
    attempt before this one was `delivered_before`.
    """

    sink: Sink
    file: ProviderFile | None = None
    error: ProviderError | None = None
    delivered: bool = field(default=False, repr=False)
    delivered_before: bool = field(default=False, repr=False)

    @property
    def stored(self) -> bool:
        """Whether the provider holds the file, whole."""
        return self.file is not None and self.error is None

    @property
    def may_exist(self) -> bool:
        """Whether the provider may hold a file that we have no id of."""
        unknown = self.error is not None and self.error.outcome_unknown
        return self.file is None and (unknown or self.delivered_before)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What every provider is told about the file."""

    filename: str
    mime_type: str
    purpose: str
    expires_after_seconds: int | None
    storage: StoragePlace | None = None


class Fanout:
    """The concurrent uploads of one file."""

    def __init__(self, supply: Supply, facts: FileFacts, sinks: Iterable[Sink], size_hint: int | None) -> None:
        self._supply = supply
        self._facts = facts
        self._size_hint = size_hint
        self._abandoned = False
        self.outcomes = [Outcome(sink) for sink in sinks]
        self._tasks = [asyncio.create_task(self._upload(outcome)) for outcome in self.outcomes]

    async def settled(self, *, stop_at_first_failure: bool) -> list[Outcome]:
        """Wait for every sink; with `stop_at_first_failure`, one error cuts the others off."""
        waiting = set(self._tasks)
        while waiting:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if stop_at_first_failure and any(outcome.error for outcome in self.outcomes):
                return await self.abandoned()
        return self.outcomes

    async def abandoned(self) -> list[Outcome]:
        """Cut off the uploads that the provider cannot have completed, and wait for the answers of the others."""
        self._abandoned = True
        if not self._tasks:
            return []
        for task, outcome in zip(self._tasks, self.outcomes, strict=True):
            if not outcome.delivered:
                task.cancel()
        await asyncio.wait(self._tasks)
        return self.outcomes

    async def _upload(self, outcome: Outcome) -> None:
        try:
            try:
                outcome.file = await self._attempt(outcome, self._size_hint)
            except LengthChanged:
                # A part followed the file after all, or the client closes its forms in its own way.
                await self._supply.wait_finished()
                outcome.file = await self._attempt(outcome, self._supply.size_bytes)
        except ProviderError as failure:
            outcome.error = failure
        except UploadInterrupted:
            return
        except Exception as bug:
            log.exception("a provider failed in a way it does not declare", account=outcome.sink.account.name)
            reason = f"unexpected {type(bug).__name__} while uploading"
            outcome.error = Unavailable(reason, outcome_unknown=outcome.delivered)

    async def _attempt(self, outcome: Outcome, size_bytes: int | None) -> ProviderFile:
        capabilities = outcome.sink.account.provider.capabilities
        if self._supply.finished:
            size_bytes = self._supply.size_bytes
        elif size_bytes is None and capabilities.needs_length:
            await self._supply.wait_finished()
            size_bytes = self._supply.size_bytes

        async def chunks() -> AsyncIterator[bytes]:
            # Repeated after its answer was lost, where the file bears the replica's name.
            outcome.delivered_before = outcome.delivered_before or (outcome.delivered and capabilities.chooses_id)
            outcome.delivered = False
            if self._abandoned:
                raise Abandoned
            async for chunk in self._supply.read(size_bytes):
                yield chunk
            outcome.delivered = True

        facts = self._facts
        upload = FileUpload(
            replica_id=outcome.sink.replica_id,
            filename=facts.filename,
            mime_type=facts.mime_type,
            purpose=facts.purpose,
            size_bytes=size_bytes,
            expires_after_seconds=facts.expires_after_seconds,
            open=chunks,
            sha256=lambda: self._supply.sha256,
            storage=facts.storage,
        )
        file = await outcome.sink.account.provider.upload_file(upload)
        if not outcome.delivered or file.bytes not in (None, self._supply.size_bytes):
            # Its id is kept, so that what it did store is deleted.
            outcome.file = file
            size = "part of the file" if not outcome.delivered else f"{file.bytes} bytes of {self._supply.size_bytes}"
            raise Unavailable(f"the provider has taken only {size}")
        return file
