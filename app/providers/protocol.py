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

from app.formats.media import plain_type
from app.formats.openai import FileFacts

Value = TypeVar("Value")
Carriage = Literal["reference", "inline", "text", "unsupported"]

# For max_file_bytes: whoever it is that has a limit tells it.
NO_LIMIT = 2**63
PURPOSES = frozenset({"assistants", "batch", "fine-tune", "vision", "user_data", "evals"})


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
class FileUpload:
    """A file on its way to a provider.

    `open` begins the bytes from the start each time it is called, so an upload can be repeated. If `size_bytes` was
    promised to the provider, they raise UploadInterrupted rather than break the promise. `sha256` tells, once they were
    all read, their hexadecimal digest, where whoever has them knows it.
    """

    replica_id: str
    filename: str
    mime_type: str
    purpose: str
    size_bytes: int | None
    expires_after_seconds: int | None
    open: Callable[[], AsyncIterator[bytes]] = field(repr=False)
    sha256: Callable[[], str] | None = field(default=None, repr=False)


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

    async def list_files(self, after: str | None, limit: int) -> ProviderFilePage:
        """One page, oldest or newest first as the provider does it."""

    async def delete_file(self, provider_file_id: str) -> None:
        """Delete a file. Raises Missing when it is not there: the caller counts that as done."""

    def chosen_file_id(self, replica_id: str) -> str:
        """Where `chooses_id`: what retrieve_file finds a replica's file by, whether its upload was answered or not."""

    async def chat(self, request: ChatRequest) -> bytes:
        """Answer a chat completion with OpenAI's JSON."""

    async def stream_chat(self, request: ChatRequest) -> ChatStream:
        """Begin a streamed answer; returns once the provider has accepted it."""
