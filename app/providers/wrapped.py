"""A provider around a provider: every verb is passed on, so that a policy says only what it changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

from app.formats.batch_lines import BatchResult
from app.providers.protocol import (
    BatchSubmission,
    ChatRequest,
    ChatStream,
    FileContent,
    FileUpload,
    Provider,
    ProviderBatch,
    ProviderBatchPage,
    ProviderFile,
    ProviderFilePage,
    StoragePlace,
)


class Wrapped:
    """Passes every verb on, inside of what `_around` says."""

    def __init__(self, provider: Provider) -> None:
        self.capabilities = provider.capabilities
        self.chosen_file_id = provider.chosen_file_id
        self.batch_line = provider.batch_line
        self._provider = provider

    def _around(self, operation: str) -> AbstractContextManager[Any]:
        """What surrounds one call of a verb that reaches the provider."""
        return nullcontext()

    async def check(self) -> None:
        """See Provider."""
        with self._around("check"):
            await self._provider.check()

    # --- files --------------------------------------------------------------------------------------------------

    async def upload_file(self, upload: FileUpload) -> ProviderFile:
        """See Provider."""
        with self._around("upload_file"):
            return await self._provider.upload_file(upload)

    async def retrieve_file(self, provider_file_id: str) -> ProviderFile:
        """See Provider."""
        with self._around("retrieve_file"):
            return await self._provider.retrieve_file(provider_file_id)

    @asynccontextmanager
    async def read_file(self, provider_file_id: str) -> AsyncIterator[FileContent]:
        """See Provider; under way until its block ends."""
        with self._around("read_file"):
            async with self._provider.read_file(provider_file_id) as content:
                yield content

    async def list_files(self, after: str | None, limit: int, storage: StoragePlace | None = None) -> ProviderFilePage:
        """See Provider."""
        with self._around("list_files"):
            return await self._provider.list_files(after, limit, storage)

    async def delete_file(self, provider_file_id: str) -> None:
        """See Provider."""
        with self._around("delete_file"):
            await self._provider.delete_file(provider_file_id)

    # --- chat ---------------------------------------------------------------------------------------------------

    async def chat(self, request: ChatRequest) -> bytes:
        """See Provider."""
        with self._around("chat"):
            return await self._provider.chat(request)

    async def stream_chat(self, request: ChatRequest) -> ChatStream:
        """See Provider; under way until the provider has accepted it."""
        with self._around("stream_chat"):
            return await self._provider.stream_chat(request)

    # --- batches ------------------------------------------------------------------------------------------------

    async def create_batch(self, batch: BatchSubmission) -> ProviderBatch:
        """See Provider."""
        with self._around("create_batch"):
            return await self._provider.create_batch(batch)

    async def retrieve_batch(self, provider_batch_id: str) -> ProviderBatch:
        """See Provider."""
        with self._around("retrieve_batch"):
            return await self._provider.retrieve_batch(provider_batch_id)

    async def list_batches(self, after: str | None, limit: int) -> ProviderBatchPage:
        """See Provider."""
        with self._around("list_batches"):
            return await self._provider.list_batches(after, limit)

    async def cancel_batch(self, provider_batch_id: str) -> None:
        """See Provider."""
        with self._around("cancel_batch"):
            await self._provider.cancel_batch(provider_batch_id)

    @asynccontextmanager
    async def read_batch_output(self, batch: ProviderBatch) -> AsyncIterator[AsyncIterator[list[BatchResult]]]:
        """See Provider; under way until its block ends."""
        with self._around("read_batch_output"):
            async with self._provider.read_batch_output(batch) as results:
                yield results

    async def forget_batch(self, batch: ProviderBatch) -> None:
        """See Provider."""
        with self._around("forget_batch"):
            await self._provider.forget_batch(batch)
