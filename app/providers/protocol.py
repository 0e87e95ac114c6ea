"""What every provider does, in OpenAI's words, and the data it does it with.

Each verb raises only `app.errors.ProviderError`s. A provider holds no retry loop, no limit and no log: those are
wrappers. It knows nothing of teams, of our ids, or of Postgres.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol, TypeVar

from app.formats.batch_lines import CHAT_ENDPOINT, BatchResult
from app.formats.media import plain_type
from app.formats.openai import FileFacts

Value = TypeVar("Value")
Carriage = Literal["reference", "inline", "text", "unsupported"]

# For max_file_bytes: whoever it is that has a limit tells it.
NO_LIMIT = 2**63
PURPOSES = frozenset({"assistants", "batch", "fine-tune", "vision", "user_data", "evals"})


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may be at a provider.

    endpoints         OpenAI's endpoints whose requests it runs
    min_lines         fewer are refused
    max_lines, max_bytes
    inline_files      a file that a line refers to travels inside of it, whatever chats do
    named             it keeps our name for a batch, so one whose creation was not answered is found by it
    repeatable        to create one of the same name again makes no second one
    """

    endpoints: frozenset[str] = frozenset({CHAT_ENDPOINT})
    min_lines: int = 1
    max_lines: int = 50_000
    max_bytes: int = 200 * 1024 * 1024
    inline_files: bool = False
    named: bool = True
    repeatable: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do, as data, so that nobody has to try in order to find out.

    purposes          purposes it stores files for; empty: it has no Files API
    max_file_bytes    the largest single file
    needs_length      it wants Content-Length before the first byte
    readable          purposes whose bytes it gives back
    lists_files       it can enumerate its files
    file_ttl_seconds  it deletes every file after this long; None: it keeps them
    chooses_id        we name the file there, so an upload whose answer was lost can be looked up
    batch_input       how a batch gets its lines
    chat_files        MIME type (`text/plain`, `video/*`, `*` for the rest) → how such a file travels in a chat
    reference_models  patterns of the models that take references; the others get those files inline
    inline_max_bytes  the same keys as chat_files → the largest file that travels inside the request itself
    speaks_openai     its chats are OpenAI's own, so that a request passes through as it was sent
    batch             what one batch may be, where batch_input is not none
    """

    purposes: frozenset[str]
    max_file_bytes: int
    needs_length: bool
    readable: frozenset[str]
    lists_files: bool
    file_ttl_seconds: int | None
    chooses_id: bool
    batch_input: Literal["file", "inline", "object", "none"]
    chat_files: Mapping[str, Carriage]
    reference_models: tuple[str, ...] = ("*",)
    inline_max_bytes: Mapping[str, int] = field(default_factory=lambda: {"*": 20 * 1024 * 1024})
    speaks_openai: bool = False
    batch: BatchLimits = BatchLimits()

    def carriage(self, provider_model: str, mime_type: str) -> Carriage:
        """How a file of this type travels to this model."""
        found = _by_type(self.chat_files, mime_type)
        if found == "reference" and not any(fnmatchcase(provider_model, one) for one in self.reference_models):
            return "inline"
        return found

    def max_inline_bytes(self, mime_type: str) -> int:
        """The largest file of this type that can travel inline or as text."""
        return _by_type(self.inline_max_bytes, mime_type)

    def without_files(self, **changes: Any) -> Capabilities:
        """The same provider where it keeps no files, and with whatever else is different there."""
        nothing: frozenset[str] = frozenset()
        return replace(self, purposes=nothing, readable=nothing, lists_files=False, batch_input="none", **changes)

    def batch_file_name(self, name: str) -> str:
        """What a file of lines is called where we choose: a service that reads them from a bucket goes by the ending of
        the object's name."""
        return f"{name}.jsonl" if self.batch_input == "object" else name

    @property
    def stores_files(self) -> bool:
        """Whether there is a Files API at all."""
        return bool(self.purposes)


def _by_type(table: Mapping[str, Value], mime_type: str) -> Value:
    """The entry of a type, else of its kind (`video/*`), else of all (`*`)."""
    bare = plain_type(mime_type)
    for key in (bare, f"{bare.partition('/')[0]}/*"):
        if key in table:
            return table[key]
    return table["*"]


class UploadInterrupted(Exception):
    """Raised by a FileUpload's own bytes; a provider lets it pass."""


@dataclass(frozen=True, slots=True)
class StoragePlace:
    """A folder in a bucket, where a provider's files are objects: `prefix` is empty or ends in a slash. Without a
    `region` it is the account's."""

    bucket: str
    prefix: str = ""
    region: str | None = None


@dataclass(frozen=True, slots=True)
class FileUpload:
    """A file on its way to a provider.

    `open` begins the bytes from the start each time it is called, so an upload can be repeated. If `size_bytes` was
    promised to the provider, they raise UploadInterrupted rather than break the promise. `sha256` tells, once they were
    all read, their hexadecimal digest, where whoever has them knows it. `storage` is the folder that it goes to instead
    of the account's own, where the provider keeps files in buckets; another provider takes no notice of it.
    """

    replica_id: str
    filename: str
    mime_type: str
    purpose: str
    size_bytes: int | None
    expires_after_seconds: int | None
    open: Callable[[], AsyncIterator[bytes]] = field(repr=False)
    sha256: Callable[[], str] | None = field(default=None, repr=False)
    storage: StoragePlace | None = None


@dataclass(frozen=True, slots=True)
class ProviderFile:
    """A file as the provider describes it. Times are Unix seconds; `ready` is False while it is still processing.

    `sha256` is the hexadecimal digest of the bytes that it holds, where it tells one.
    """

    id: str
    filename: str | None
    bytes: int | None
    purpose: str | None
    created_at: int | None
    expires_at: int | None = None
    ready: bool = True
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderFilePage:
    """One page of a provider's list; `after` begins the next one, None at the end."""

    files: tuple[ProviderFile, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file's bytes as they arrive; `size_bytes` when the provider says it first."""

    chunks: AsyncIterator[bytes]
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat completion, its `model` and file ids already the provider's own.

    `body` is OpenAI's JSON; `files` tells what the ids in it stand for. `timeout_seconds` bounds the silence between
    two reads, not the whole answer. `drop_params` has parameters that the provider does not know dropped, not refused.
    """

    provider_model: str
    body: bytes = field(repr=False)
    timeout_seconds: float | None = None
    files: Mapping[str, FileFacts] = field(default_factory=dict, repr=False)
    drop_params: bool = False


BatchStatus = Literal[
    "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"
]
ENDED: frozenset[BatchStatus] = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What a caller may say about one provider's batches: where Bedrock and Vertex AI put the results (an s3:// or
    gs:// prefix that the configuration allows), the role that runs a Bedrock job, and the name that it is shown by."""

    output_uri: str | None = None
    role_arn: str | None = None
    job_name: str | None = None


@dataclass(frozen=True, slots=True)
class BatchSubmission:
    """A batch on its way to a provider, its lines already in the provider's own format (`Provider.batch_line`).

    `name` is ours and used once: where a provider lets us name a batch, it is found again by that, and where it has an
    idempotency token, that is it. The lines are in the provider's file `input_file_id`, or, where they travel inline,
    begun by `open` each time it is called, one a line.
    """

    name: str
    provider_model: str
    endpoint: str
    completion_window: str = "24h"
    metadata: Mapping[str, str] = field(default_factory=dict)
    input_file_id: str | None = None
    open: Callable[[], AsyncIterator[bytes]] | None = field(default=None, repr=False)
    options: BatchOptions = BatchOptions()


@dataclass(frozen=True, slots=True)
class BatchError:
    """Why a batch failed as a whole, in OpenAI's words."""

    code: str | None
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderBatch:
    """A batch as the provider describes it, in OpenAI's words. Times are Unix seconds; what it does not tell is None.

    `name` is the one that it was submitted with. `output_file_id` and `error_file_id` are those of a provider whose
    results are files of OpenAI's own lines. `result_ids` are the files that hold the results, or a folder of the
    batch's own. `completed` and `failed` count lines.
    """

    id: str
    status: BatchStatus
    name: str | None = None
    created_at: int | None = None
    in_progress_at: int | None = None
    ended_at: int | None = None
    expires_at: int | None = None
    endpoint: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    result_ids: tuple[str, ...] = ()
    total: int | None = None
    completed: int | None = None
    failed: int | None = None
    errors: tuple[BatchError, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProviderBatchPage:
    """One page of a provider's batches, newest first; `after` begins the next one, None at the end."""

    batches: tuple[ProviderBatch, ...]
    after: str | None


class ChatStream(Protocol):
    """A streamed answer: OpenAI's server-sent events as bytes, exactly as a client may receive them."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None:
        """End the provider's call, finished or not."""


class Provider(Protocol):
    """One account at one provider."""

    capabilities: Capabilities

    async def check(self) -> None:
        """Make one cheap call that proves endpoint and credentials."""

    async def upload_file(self, upload: FileUpload) -> ProviderFile:
        """Store the file. Not idempotent: an error with `outcome_unknown` may have left a file there.

        What the provider reports another checksum for than the bytes have is deleted again, and Unavailable.
        """

    async def retrieve_file(self, provider_file_id: str) -> ProviderFile:
        """Describe a file. Raises Missing."""

    def read_file(self, provider_file_id: str) -> AbstractAsyncContextManager[FileContent]:
        """Open a file's bytes. Raises Missing, or Rejected where the provider gives no uploads back."""

    async def list_files(self, after: str | None, limit: int, storage: StoragePlace | None = None) -> ProviderFilePage:
        """One page, oldest or newest first as the provider does it; of `storage` as FileUpload has it."""

    async def delete_file(self, provider_file_id: str) -> None:
        """Delete a file. Raises Missing when it is not there: the caller counts that as done."""

    def chosen_file_id(self, replica_id: str) -> str:
        """Where `chooses_id`: what retrieve_file finds a replica's file by, whether its upload was answered or not."""

    async def chat(self, request: ChatRequest) -> bytes:
        """Answer a chat completion with OpenAI's JSON."""

    async def stream_chat(self, request: ChatRequest) -> ChatStream:
        """Begin a streamed answer; returns once the provider has accepted it."""

    def batch_line(self, key: str, endpoint: str, request: ChatRequest) -> bytes:
        """One request of a batch as this provider reads it, a JSON object in one line, without the newline; its result
        is told by `key`. Pure. Raises Rejected or Unsupported."""

    async def create_batch(self, batch: BatchSubmission) -> ProviderBatch:
        """Submit a batch. An error with `outcome_unknown` may have left one there."""

    async def retrieve_batch(self, provider_batch_id: str) -> ProviderBatch:
        """Describe a batch. Raises Missing."""

    async def list_batches(self, after: str | None, limit: int) -> ProviderBatchPage:
        """One page, newest first."""

    async def cancel_batch(self, provider_batch_id: str) -> None:
        """Ask for a batch to be cancelled; one that has ended already is left as it is. Raises Missing."""

    def read_batch_output(self, batch: ProviderBatch) -> AbstractAsyncContextManager[AsyncIterator[list[BatchResult]]]:
        """Open the results of a batch that has ended, translated to OpenAI's, as many at a time as arrive together and
        in any order; lines that have none are left out. Raises Missing when the provider keeps them no more."""

    async def forget_batch(self, batch: ProviderBatch) -> None:
        """Delete what a batch that has ended has left at the provider: its results, not its input. Repeatable."""
