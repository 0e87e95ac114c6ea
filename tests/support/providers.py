"""Providers without a network: one that keeps files in memory and fails as told, and a server that says one thing."""

import asyncio
import contextlib
import mimetypes
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field, replace

from app import ids
from app.errors import Missing
from app.providers.openai import CAPABILITIES
from app.providers.protocol import (
    FileContent,
    FileUpload,
    ProviderBatch,
    ProviderBatchPage,
    ProviderFile,
    ProviderFilePage,
)


@dataclass(frozen=True)
class Failure:
    """A call that fails; an upload only after so many bytes (None: after the last one, in place of the answer)."""

    error: Exception
    after_bytes: int | None = None


@dataclass
class Attempt:
    """One upload as the provider saw it: the size it was promised, and what arrived."""

    size_bytes: int | None
    received: bytearray = field(default_factory=bytearray)


class MemoryProvider:
    """One account. Uploads wait for `reads` before their first byte and for `answers` after their last one."""

    def __init__(self, *upload_failures, **capabilities):
        self.capabilities = replace(CAPABILITIES, **capabilities)
        self.files = {}
        self.attempts = []
        self.calls = Counter()
        self.reads, self.answers, self.delivered = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.reads.set()
        self.answers.set()
        self._failures = defaultdict(deque, upload_file=deque(upload_failures))

    def fail(self, operation, *errors):
        """Have the next calls of an operation raise these, one each."""
        self._failures[operation].extend(Failure(error) for error in errors)

    def _meet(self, operation):
        self.calls[operation] += 1
        failures = self._failures[operation]
        return failures.popleft() if failures else None

    def _called(self, operation):
        if failure := self._meet(operation):
            raise failure.error

    def _file(self, provider_file_id):
        if provider_file_id not in self.files:
            raise Missing("no such file")
        return ProviderFile(provider_file_id, "a.txt", len(self.files[provider_file_id]), "user_data", 0)

    async def check(self):
        self._called("check")

    async def upload_file(self, upload: FileUpload):
        failure = self._meet("upload_file")
        attempt = Attempt(upload.size_bytes)
        self.attempts.append(attempt)
        await self.reads.wait()
        async for chunk in upload.open():
            attempt.received += chunk
            if failure and failure.after_bytes is not None and len(attempt.received) > failure.after_bytes:
                raise failure.error
        self.delivered.set()
        await self.answers.wait()
        if failure:
            raise failure.error
        named = self.capabilities.chooses_id
        provider_file_id = self.chosen_file_id(upload.replica_id) if named else f"file-{len(self.attempts)}"
        self.files[provider_file_id] = bytes(attempt.received)
        return self._file(provider_file_id)

    async def retrieve_file(self, provider_file_id):
        self._called("retrieve_file")
        return self._file(provider_file_id)

    @contextlib.asynccontextmanager
    async def read_file(self, provider_file_id):
        self._called("read_file")
        file = self._file(provider_file_id)
        yield FileContent(chunks_of(self.files[file.id]), file.bytes)

    async def list_files(self, after, limit, storage=None):
        self._called("list_files")
        return ProviderFilePage(tuple(map(self._file, self.files)), None)

    async def delete_file(self, provider_file_id):
        self._called("delete_file")
        self._file(provider_file_id)
        del self.files[provider_file_id]

    def chosen_file_id(self, replica_id):
        return f"named-{replica_id}"

    async def chat(self, request):
        self._called("chat")
        return request.body

    async def stream_chat(self, request):
        self._called("stream_chat")
        return chunks_of(request.body)

    def batch_line(self, key, endpoint, request):
        return request.body

    async def create_batch(self, batch):
        self._called("create_batch")
        return ProviderBatch("batch-1", "validating", name=batch.name)

    async def retrieve_batch(self, provider_batch_id):
        self._called("retrieve_batch")
        return ProviderBatch(provider_batch_id, "completed")

    async def list_batches(self, after, limit):
        self._called("list_batches")
        return ProviderBatchPage((), None)

    async def cancel_batch(self, provider_batch_id):
        self._called("cancel_batch")

    @contextlib.asynccontextmanager
    async def read_batch_output(self, batch):
        self._called("read_batch_output")
        yield chunks_of(b"")

    async def forget_batch(self, batch):
        self._called("forget_batch")


async def chunks_of(content, size=64 * 1024):
    """Bytes as an asynchronous iterator; empty content has no chunk."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


def upload_of(content=b"some bytes", *, promised=True, mime_type="text/plain", **fields):
    """An upload of these bytes, its size promised or not; its name fits its type."""
    values = {
        "replica_id": ids.new_replica_id(),
        "filename": f"a{mimetypes.guess_extension(mime_type)}",
        "mime_type": mime_type,
        "purpose": "user_data",
        "size_bytes": len(content) if promised else None,
        "expires_after_seconds": None,
        "open": lambda: chunks_of(content),
    }
    return FileUpload(**{**values, **fields})


@contextlib.asynccontextmanager
async def canned(status=200, headers=None, body=b"{}"):
    """A real server that answers every request the same way: its URL, and the list of requests it got, as bytes.

    A body that depends on the request is a function of it.
    """
    requests = []

    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        requests.append(head + await reader.readexactly(int(length.partition(b":")[2])))
        content = body(requests[-1]) if callable(body) else body
        lines = [f"HTTP/1.1 {status} Canned", f"content-length: {len(content)}", "connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests
