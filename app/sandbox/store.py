"""What the sandbox remembers: each account's files and batches, how often each operation was called, and the time."""

import hashlib
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from app.sandbox.batches import Batch
from app.sandbox.blobs import Hash, Incoming


def account_digest(key: str) -> str:
    """Return the name under which an API key's account is shown: a digest, for keys are never shown."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


class Clock:
    """The sandbox's time: the real one, plus what tests have advanced it by."""

    def __init__(self) -> None:
        self._advanced_seconds = 0

    def now(self) -> int:
        """Return the time in whole seconds since 1970."""
        return int(time.time()) + self._advanced_seconds

    def advance(self, seconds: int) -> None:
        """Let `seconds` pass at once."""
        self._advanced_seconds += seconds

    def reset(self) -> None:
        """Go back to the real time."""
        self._advanced_seconds = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file at one account of one provider; its bytes are at `path`."""

    provider: str
    account: str
    id: str
    filename: str
    size_bytes: int
    sha256: str
    purpose: str
    content_type: str
    created_at: int
    expires_at: int | None
    path: Path


class Upload(Protocol):
    """An upload of several requests, from its start on."""

    @property
    def is_open(self) -> bool:
        """Whether its end is still to come."""

    async def discard(self) -> None:
        """Leave nothing of it behind."""


AnUpload = TypeVar("AnUpload", bound=Upload)


class Store:
    """The state of all simulated providers, with the bytes in a private temporary directory."""

    def __init__(self, max_file_bytes: int | None = None) -> None:
        self.clock = Clock()
        # Replaces every provider's own limit, for benchmarks that upload more than a provider takes.
        self.max_file_bytes = max_file_bytes
        self.requests: Counter[str] = Counter()
        # Whose the objects of the buckets are, by id: every credential may use them.
        self.owners: dict[str, str] = {}
        self._directory = tempfile.TemporaryDirectory(prefix="filemux-sandbox-")
        # One dict per provider and account, in order of creation.
        self._files: defaultdict[tuple[str, str], dict[str, StoredFile]] = defaultdict(dict)
        self._uploads: list[dict[str, Any]] = []
        self._batches: defaultdict[tuple[str, str], dict[str, Batch]] = defaultdict(dict)

    def incoming(self, *more_hashes: Hash) -> Incoming:
        """Open a place on disk for a file that is about to arrive."""
        return Incoming(Path(self._directory.name) / uuid4().hex, *more_hashes)

    def uploads(self) -> dict[str, AnUpload]:
        """Return a new table for uploads under way, by id: when everything is forgotten, they are discarded."""
        table: dict[str, AnUpload] = {}
        self._uploads.append(table)
        return table

    def make_file(self, chunks: Iterable[bytes], **facts: Any) -> StoredFile:
        """Keep a file that the provider makes itself, such as a batch's results; `facts` are what else it is."""
        path, sha256, size_bytes = Path(self._directory.name) / uuid4().hex, hashlib.sha256(), 0
        with path.open("xb") as written:
            for chunk in chunks:
                sha256.update(chunk)
                size_bytes += written.write(chunk)
        file = StoredFile(size_bytes=size_bytes, sha256=sha256.hexdigest(), path=path, **facts)
        self.add(file)
        return file

    def add(self, file: StoredFile) -> None:
        """Make `file` visible to its account."""
        self._files[file.provider, file.account][file.id] = file

    def find(self, provider: str, account: str, file_id: str) -> StoredFile | None:
        """Return the account's file, or None when it never was, was deleted, or has expired."""
        self._end_batches()
        file = self._files[provider, account].get(file_id)
        if file is not None and self._expired(file):
            self.remove(file)
            return None
        return file

    def find_object(self, provider: str, file_id: str) -> StoredFile | None:
        """Return an object of a bucket, whoever asks."""
        self._end_batches()
        return self.find(provider, self.owners.get(file_id, ""), file_id)

    def files_of(self, provider: str, account: str) -> list[StoredFile]:
        """Return the account's files, oldest first."""
        self._sweep()
        return [*self._files[provider, account].values()]

    def remove(self, file: StoredFile) -> None:
        """Forget `file` and its bytes."""
        if self._files[file.provider, file.account].pop(file.id, None):
            file.path.unlink(missing_ok=True)

    def everything(self) -> list[StoredFile]:
        """Return all files of all accounts, oldest first within each."""
        self._sweep()
        return [file for files in self._files.values() for file in files.values()]

    def add_batch(self, batch: Batch) -> None:
        """Let a batch run."""
        self._batches[batch.provider, batch.account][batch.id] = batch

    def find_batch(self, provider: str, account: str, batch_id: str) -> Batch | None:
        """Return the account's batch, or None when it never was or was deleted."""
        self._end_batches()
        return self._batches[provider, account].get(batch_id)

    def batches_of(self, provider: str, account: str) -> list[Batch]:
        """Return the account's batches, oldest first."""
        self._end_batches()
        return [*self._batches[provider, account].values()]

    def remove_batch(self, batch: Batch) -> None:
        """Forget a batch."""
        self._batches[batch.provider, batch.account].pop(batch.id, None)

    def all_batches(self) -> list[Batch]:
        """Return all batches of all accounts, oldest first within each."""
        self._end_batches()
        return [batch for batches in self._batches.values() for batch in batches.values()]

    def open_uploads(self) -> int:
        """Return how many uploads of several requests have not come to their end."""
        return sum(upload.is_open for table in self._uploads for upload in table.values())

    async def clear(self) -> None:
        """Forget all uploads under way, files, batches and counters, and go back to the real time."""
        for table in self._uploads:
            while table:
                await table.popitem()[1].discard()
        for file in self.everything():
            self.remove(file)
        self._batches.clear()
        self.owners.clear()
        self.requests.clear()
        self.clock.reset()

    def close(self) -> None:
        """Remove the temporary directory."""
        self._directory.cleanup()

    def _expired(self, file: StoredFile) -> bool:
        return file.expires_at is not None and file.expires_at <= self.clock.now()

    def _sweep(self) -> None:
        self._end_batches()
        for files in self._files.values():
            for file in [file for file in files.values() if self._expired(file)]:
                self.remove(file)

    def _end_batches(self) -> None:
        now = self.clock.now()
        for batch in [one for batches in self._batches.values() for one in batches.values()]:
            batch.end(now)
