"""Where bytes are kept: a directory, or a bucket that speaks S3.

A store's id stands in the rows of the files that it keeps. It holds no secret, so it survives their rotation.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from botocore.credentials import Credentials
from botocore.session import Session
from obstore.store import S3Store

from app.errors import Missing, ProviderError
from app.files.spool import Spool
from app.providers.aws import AwsCredentials
from app.providers.objects import CLIENT_OPTIONS, Objects
from app.providers.protocol import FileContent, FileUpload
from app.settings import SourceOptions

if TYPE_CHECKING:
    from obstore.store import RetryConfig, S3Config

READ_BYTES = 256 * 1024
# S3 answers 503 to ask for a little patience, and nothing above a store tries again.
RETRIES: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}


@dataclass(frozen=True, slots=True)
class Span:
    """A range of bytes, both ends included."""

    first: int
    last: int

    @property
    def size_bytes(self) -> int:
        """How many bytes it holds."""
        return self.last - self.first + 1


class Store(Protocol):
    """Each verb raises OSError; FileNotFoundError where nothing is kept."""

    id: str

    async def keep(self, file_id: str, spool: Spool) -> None:
        """Keep what is spooled while it comes, durably; cancelled or not, nothing of it goes on afterwards. Raises
        StorageFull or Abandoned too."""

    def open(self, file_id: str, span: Span) -> AbstractAsyncContextManager[FileContent]:
        """Some of a file's bytes; `size_bytes` is what is kept of all of them."""

    async def remove(self, file_id: str) -> None:
        """Remove a file's bytes, if there are any."""


class DiskStore:
    """A directory. Its id is its own, so that gateways with different ones leave each other's files alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.id = f"disk:{_directory_id(directory)}"

    async def keep(self, file_id: str, spool: Spool) -> None:
        """See Store."""
        await spool.persist(self._path_of(file_id))

    @asynccontextmanager
    async def open(self, file_id: str, span: Span) -> AsyncIterator[FileContent]:
        """See Store."""
        file = await asyncio.to_thread(self._path_of(file_id).open, "rb")
        try:
            yield FileContent(_read(file, span), os.fstat(file.fileno()).st_size)
        finally:
            await asyncio.to_thread(file.close)

    async def remove(self, file_id: str) -> None:
        """See Store."""
        await asyncio.to_thread(self._path_of(file_id).unlink, missing_ok=True)

    def _path_of(self, file_id: str) -> Path:
        """Where a file's bytes are; 256 folders by the id's random end."""
        return self._directory / file_id[-2:] / file_id


def _directory_id(directory: Path) -> str:
    """The directory's id, made once; several workers may be the first."""
    path = directory / "id"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        own = path.with_name(f"id.{secrets.token_hex(8)}")
        own.write_text(secrets.token_hex(8))
        with suppress(FileExistsError):
            os.link(own, path)
        own.unlink()
    return path.read_text()


async def _read(file: BinaryIO, span: Span) -> AsyncIterator[bytes]:
    position = span.first
    while position <= span.last:
        size = min(READ_BYTES, span.last + 1 - position)
        chunk = await asyncio.to_thread(os.pread, file.fileno(), size, position)
        if not chunk:
            raise OSError("a kept file is shorter than it was")
        position += len(chunk)
        yield chunk


class BucketStore:
    """A bucket of any server that speaks S3, below a prefix."""

    def __init__(self, options: SourceOptions) -> None:
        assert options.bucket is not None
        endpoint = f"{options.endpoint_url}/" if options.endpoint_url else ""
        self.id = f"s3:{endpoint}{options.bucket}/{options.prefix}"
        # Not every such server knows conditional puts, and a file's id is never used twice.
        self._objects = Objects(_bucket(options), "s3", options.bucket, options.prefix, conditional_puts=False)

    async def check(self) -> None:
        """Raise OSError unless the bucket can be listed."""
        with _as_os_errors():
            await self._objects.check()

    async def keep(self, file_id: str, spool: Spool) -> None:
        """See Store."""
        delivered = False

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal delivered
            async for chunk in spool.read(None):
                yield chunk
            delivered = True

        upload = FileUpload(file_id, file_id, "application/octet-stream", "", None, None, chunks)
        putting = asyncio.ensure_future(self._objects.upload_file(upload))
        try:
            with _as_os_errors():
                kept = await asyncio.shield(putting)
        except asyncio.CancelledError:
            # Once the bucket has all bytes, only its answer says that a removal does not come too early.
            if not delivered:
                putting.cancel()
            await asyncio.gather(putting, return_exceptions=True)
            raise
        if kept.bytes != spool.size_bytes:
            raise OSError(f"the bucket has kept {kept.bytes} bytes of {spool.size_bytes}")

    @asynccontextmanager
    async def open(self, file_id: str, span: Span) -> AsyncIterator[FileContent]:
        """See Store."""
        async with AsyncExitStack() as stack:
            with _as_os_errors():
                opened = self._objects.read_file(self._object_of(file_id), (span.first, span.last + 1))
                content = await stack.enter_async_context(opened)
            yield FileContent(_translated(content.chunks), content.size_bytes)

    async def remove(self, file_id: str) -> None:
        """See Store."""
        with suppress(FileNotFoundError), _as_os_errors():
            await self._objects.delete_file(self._object_of(file_id))

    def _object_of(self, file_id: str) -> str:
        return self._objects.file_id_of(file_id)


def _bucket(options: SourceOptions) -> S3Store:
    # One by one: the bulk API is not everywhere.
    config: S3Config = {"disable_bulk_delete": True}
    if options.region:
        config["region"] = options.region
    if options.endpoint_url:
        config["endpoint"] = options.endpoint_url
    if options.server_side_encryption:
        config["server_side_encryption"] = options.server_side_encryption
    if options.kms_key_id:
        config["sse_kms_key_id"] = options.kms_key_id
    return S3Store(
        options.bucket,
        config=config,
        client_options=CLIENT_OPTIONS,
        retry_config=RETRIES,
        credential_provider=AwsCredentials(partial(_credentials, options)).for_objects,
    )


def _credentials(options: SourceOptions) -> Credentials | None:
    session = Session()
    if options.access_key_id and options.secret_access_key:
        keys = options.access_key_id, options.secret_access_key
        session.set_credentials(*(key.get_secret_value() for key in keys))
    return session.get_credentials()


async def _translated(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    with _as_os_errors():
        async for chunk in chunks:
            yield chunk


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """A bucket's errors → a store's."""
    try:
        yield
    except Missing as failure:
        raise FileNotFoundError(failure.message) from failure
    except ProviderError as failure:
        raise OSError(failure.message) from failure
