"""The results of a direct batch, as if they were files: OpenAI's lines, made while they are read.

Where a provider's results are not files of OpenAI's lines, these ids stand for them: `batch-output:<provider batch id>`
and `batch-errors:<provider batch id>`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.deployments import Account
from app.errors import BadRequest
from app.providers.protocol import ENDED, FileContent, ProviderBatch, ProviderFile

OUTPUT, ERRORS = "batch-output:", "batch-errors:"


@dataclass(frozen=True, slots=True)
class Results:
    """One of the two files of a batch at an account."""

    account: Account
    provider_batch_id: str
    failed: bool

    @classmethod
    def of(cls, account: Account, provider_file_id: str) -> Results | None:
        """What an id stands for; None when it is another file's."""
        for prefix in (OUTPUT, ERRORS):
            if provider_file_id.startswith(prefix):
                return cls(account, provider_file_id.removeprefix(prefix), prefix == ERRORS)
        return None

    @property
    def id(self) -> str:
        """The id that stands for it."""
        return (ERRORS if self.failed else OUTPUT) + self.provider_batch_id

    async def described(self) -> ProviderFile:
        """It as a file; how large it is nobody knows before it was read. Raises Missing or BadRequest."""
        batch = await self._ended()
        return ProviderFile(self.id, self._filename, None, "batch_output", batch.ended_at or batch.created_at)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[FileContent]:
        """Its lines as they are made. Raises Missing or BadRequest."""
        async with self.account.provider.read_batch_output(await self._ended()) as results:

            async def chunks() -> AsyncIterator[bytes]:
                number = 0
                async for some in results:
                    lines = []
                    for one in some:
                        if one.succeeded != self.failed:
                            number += 1
                            lines.append(one.line(one.key, f"batch_req_{number}"))
                    yield b"".join(lines)

            yield FileContent(chunks(), None)

    async def delete(self) -> None:
        """Delete the results, both files. Raises Missing."""
        await self.account.provider.forget_batch(await self._ended())

    @property
    def _filename(self) -> str:
        return f"{self.provider_batch_id.rpartition('/')[2]}_{'errors' if self.failed else 'output'}.jsonl"

    async def _ended(self) -> ProviderBatch:
        batch = await self.account.provider.retrieve_batch(self.provider_batch_id)
        if batch.status not in ENDED:
            raise BadRequest(f"the batch is {batch.status}; its results are there when it has ended", param="id")
        return batch
