"""The verbs of a provider that has no files, or runs no batches: each says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from app.errors import Unsupported
from app.formats.batch_lines import BatchResult
from app.providers.protocol import (
    BatchSubmission,
    ChatRequest,
    FileContent,
    FileUpload,
    ProviderBatch,
    ProviderBatchPage,
    ProviderFile,
    ProviderFilePage,
    StoragePlace,
)


class WithoutFiles:
    """Each verb raises Unsupported."""

    async def upload_file(self, upload: FileUpload) -> ProviderFile:
        """Raise Unsupported."""
        raise _no_files()

    async def retrieve_file(self, provider_file_id: str) -> ProviderFile:
        """Raise Unsupported."""
        raise _no_files()

    def read_file(self, provider_file_id: str) -> AbstractAsyncContextManager[FileContent]:
        """Raise Unsupported."""
        raise _no_files()

    async def list_files(self, after: str | None, limit: int, storage: StoragePlace | None = None) -> ProviderFilePage:
        """Raise Unsupported."""
        raise _no_files()

    async def delete_file(self, provider_file_id: str) -> None:
        """Raise Unsupported."""
        raise _no_files()


class WithoutBatches:
    """Each verb raises Unsupported."""

    def batch_line(self, key: str, endpoint: str, request: ChatRequest) -> bytes:
        """Raise Unsupported."""
        raise _no_batches()

    async def create_batch(self, batch: BatchSubmission) -> ProviderBatch:
        """Raise Unsupported."""
        raise _no_batches()

    async def retrieve_batch(self, provider_batch_id: str) -> ProviderBatch:
        """Raise Unsupported."""
        raise _no_batches()

    async def list_batches(self, after: str | None, limit: int) -> ProviderBatchPage:
        """Raise Unsupported."""
        raise _no_batches()

    async def cancel_batch(self, provider_batch_id: str) -> None:
        """Raise Unsupported."""
        raise _no_batches()

    def read_batch_output(self, batch: ProviderBatch) -> AbstractAsyncContextManager[AsyncIterator[list[BatchResult]]]:
        """Raise Unsupported."""
        raise _no_batches()

    async def forget_batch(self, batch: ProviderBatch) -> None:
        """Raise Unsupported."""
        raise _no_batches()


def _no_files() -> Unsupported:
    return Unsupported("this provider has no Files API")


def _no_batches() -> Unsupported:
    return Unsupported("this provider runs no batches")
