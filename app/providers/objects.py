"""The files of a provider that has no Files API but a bucket: Vertex AI on Google Cloud Storage, Bedrock on S3.

An object is named after its replica, and only ever created: an upload whose answer was lost is found again by its name.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import GCSStore, S3Store
from yarl import URL

from app.errors import (
    Missing,
    ProviderError,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
)
from app.providers.checksums import Checksum, counted, verified
from app.providers.http import READ_CHUNK_BYTES, Http, plain_error
from app.providers.protocol import (
    FileContent,
    FileUpload,
    ProviderFile,
    ProviderFilePage,
    UploadInterrupted,
)

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

# S3 takes no smaller parts but the last; two are on their way while the next is filled.
PART_BYTES = 5 * 1024 * 1024
PARTS_AT_ONCE = 2

NO_OBJECT = "the bucket holds no such object"
NOT_OURS = "the object store refused the gateway's credentials"
_STATUS = re.compile(r"status code: (\d{3})")
# The refusal of bytes that are not those of their digest any more.
_DAMAGED = re.compile(r"<Code>(BadDigest|XAmzContentSHA256Mismatch)</Code>")
# What no object is called here: some HTTP client would take it for another path, or refuse it.
NO_KEY = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f]")
# One page of a list, as long as both vendors make them.
_PAGE = 1000
_FILENAME = re.compile(r"filename\*=UTF-8''([^;]+)")
# Retrying is the wrappers' business.
NO_RETRIES: RetryConfig = {"max_retries": 0}
# obstore would end every request after 30 s, however well it goes, and a large object takes longer.
CLIENT_OPTIONS: ClientConfig = {"allow_http": True, "connect_timeout": "10s", "read_timeout": "60s", "timeout": "1day"}


@dataclass(frozen=True, slots=True)
class Proof:
    """How a store tells what it holds: in the headers of an object, which obstore does not show.

    `url` is the bucket's, `authorized` makes the headers of a HEAD below it, `checksum` begins one of bytes that pass.
    """

    http: Http
    url: str
    authorized: Callable[[URL], Awaitable[Mapping[str, str]]]
    checksum: Callable[[], Checksum]

    async def head(self, key: str) -> Mapping[str, str]:
        """An object's headers."""
        url = URL(f"{self.url}/{quote(key)}", encoded=True)
        answer = await self.http.accepted("HEAD", url, headers=await self.authorized(url), error_of=_error_of_head)
        return answer.headers


@dataclass(frozen=True, slots=True)
class Objects:
    """One bucket, below one prefix. `scheme` is gs or s3: with bucket and key it makes the provider file id.

    Without `conditional_puts` an object that is there is replaced, by servers too that do not know the condition.
    Without a `proof` the store's word is taken for what it holds.
    """

    store: GCSStore | S3Store
    scheme: str
    bucket: str
    prefix: str
    conditional_puts: bool = True
    proof: Proof | None = None

    @property
    def uri(self) -> str:
        """That of the folder."""
        return f"{self.scheme}://{self.bucket}/{self.prefix}"

    def file_id_of(self, replica_id: str) -> str:
        """The id that a replica's object has, or would have."""
        return self.uri + replica_id

    def below(self, folder: str) -> Objects:
        """The objects of a folder in this one."""
        return replace(self, prefix=f"{self.prefix}{folder}/")

    async def check(self) -> None:
        """List one object: it needs bucket and credentials."""
        try:
            await self.page(None, 1)
        except Missing as failure:
            raise self._no_bucket() from failure

    async def upload_file(self, upload: FileUpload) -> ProviderFile:
        """Put the object; in parts, from the second on, when it is larger than one."""
        file_id = self.file_id_of(upload.replica_id)
        key = self._key(file_id)
        attributes = {
            "Content-Type": upload.mime_type,
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(upload.filename, safe='')}",
        }
        checksum = self.proof.checksum() if self.proof else None
        chunks = counted(upload.open(), checksum) if checksum else upload.open()
        first, ended = await _first_part(chunks)
        try:
            if ended:
                mode: Literal["create", "overwrite"] = "create" if self.conditional_puts else "overwrite"
                with _errors(), suppress(AlreadyExistsError, PreconditionError):
                    await obstore.put_async(self.store, key, b"".join(first), mode=mode, attributes=attributes)
            elif not await self._exists(key):
                await self._put_parts(key, _Parts(first, chunks), attributes)
            else:
                # An earlier attempt has made it; what it must hold is still to be counted.
                async for _ in chunks:
                    pass
            file, reported = await self._stored(file_id)
        except Missing as failure:
            raise self._no_bucket() from failure
        except (Unavailable, RateLimited) as failure:
            # Its name tells later whether it was made: the refused call may be the one that asked for it.
            failure.outcome_unknown = True
            raise
        intact = checksum is None or reported in (None, checksum.value())
        return await verified(file, intact=intact, delete_file=self.delete_file)

    async def _stored(self, file_id: str) -> tuple[ProviderFile, str | None]:
        """The object as it is: also the proof, for one that an earlier attempt made, that it is this one."""
        try:
            return await self._described(file_id)
        except Missing as failure:
            # Something was in the way, and is gone.
            raise RateLimited("the object store is busy with this object", outcome_unknown=True) from failure

    async def _put_parts(self, key: str, parts: _Parts, attributes: dict[str, str]) -> None:
        """Put in parts; whatever ends it early ends at the store too, so that no part is left there."""
        put = asyncio.ensure_future(
            obstore.put_async(
                self.store,
                key,
                parts,
                attributes=attributes,
                use_multipart=True,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )
        )
        try:
            with _errors():
                await asyncio.shield(put)
        except asyncio.CancelledError:
            parts.end()
            with suppress(Exception):
                await put
            raise
        except Missing:
            # Also what is left of an upload whose last answer was lost: obstore cleans up, and finds none to clean.
            if not await self._exists(key):
                raise
        except Unavailable:
            if parts.interruption is not None:
                raise parts.interruption from None
            raise

    async def _exists(self, key: str) -> bool:
        try:
            with _errors():
                await obstore.head_async(self.store, key)
        except Missing:
            return False
        return True

    async def retrieve_file(self, provider_file_id: str) -> ProviderFile:
        """Describe an object; the filename is in its Content-Disposition."""
        file, _ = await self._described(provider_file_id)
        return file

    async def _described(self, provider_file_id: str) -> tuple[ProviderFile, str | None]:
        """An object, and its checksum if the store tells one."""
        key, reported = self._key(provider_file_id), None
        if self.proof is None:
            with _errors():
                found = await obstore.get_async(self.store, key, options={"head": True})
            size_bytes, modified_at = found.meta["size"], found.meta["last_modified"]
            disposition = str(found.attributes.get("Content-Disposition", ""))
        else:
            headers = await self.proof.head(key)
            try:
                size_bytes = int(headers["content-length"])
                modified_at = parsedate_to_datetime(headers["last-modified"])
            except (KeyError, ValueError) as failure:
                raise Unavailable("the object store's answer does not describe an object") from failure
            disposition = headers.get("content-disposition", "")
            reported = self.proof.checksum().reported(headers)
        filename = _FILENAME.search(disposition)
        file = ProviderFile(
            id=provider_file_id,
            filename=unquote(filename[1]) if filename else key.rpartition("/")[2],
            bytes=size_bytes,
            purpose=None,
            created_at=int(modified_at.timestamp()),
        )
        return file, reported

    @asynccontextmanager
    async def read_file(self, provider_file_id: str, part: tuple[int, int] | None = None) -> AsyncIterator[FileContent]:
        """Open an object's bytes, or those from the first to before the second number of `part`."""
        options: GetOptions = {"range": part} if part else {}
        with _errors():
            found = await obstore.get_async(self.store, self._key(provider_file_id), options=options)

        async def chunks() -> AsyncIterator[bytes]:
            with _errors():
                async for chunk in found.stream(min_chunk_size=READ_CHUNK_BYTES):
                    yield bytes(chunk)

        yield FileContent(chunks(), found.meta["size"])

    async def page(self, after: str | None, limit: int) -> ProviderFilePage:
        """One page below the prefix, by key. A list knows no filenames. Raises Rejected for what is no cursor."""
        if after is not None and NO_KEY.search(after):
            raise Rejected(f"{after[:200]!r} begins no page", param="after")
        with _errors():
            pages = obstore.list(self.store, self.prefix, offset=after, chunk_size=limit)
            page: Sequence[ObjectMeta] = await anext(aiter(pages), [])
        files = tuple(
            ProviderFile(
                id=f"{self.scheme}://{self.bucket}/{meta['path']}",
                filename=None,
                bytes=meta["size"],
                purpose=None,
                created_at=int(meta["last_modified"].timestamp()),
            )
            for meta in page
        )
        return ProviderFilePage(files, page[-1]["path"] if len(page) == limit else None)

    async def file_ids(self, ending: str) -> list[str]:
        """All objects below the prefix whose key ends so."""
        found: list[str] = []
        after: str | None = None
        while True:
            page = await self.page(after, _PAGE)
            found += (file.id for file in page.files if file.id.endswith(ending))
            after = page.after
            if after is None:
                return found

    async def delete_file(self, provider_file_id: str) -> None:
        """Delete an object. S3 does not say whether there was one."""
        with _errors():
            await obstore.delete_async(self.store, self._key(provider_file_id))

    def _no_bucket(self) -> Missing:
        return Missing(f"there is no bucket {self.bucket}")

    def _key(self, provider_file_id: str) -> str:
        """An object's key. Raises Missing for an id that is none of an object below the prefix."""
        key = provider_file_id.removeprefix(f"{self.scheme}://{self.bucket}/")
        if key == provider_file_id or not key.startswith(self.prefix) or NO_KEY.search(key):
            raise Missing(f"{provider_file_id[:200]!r} is not in {self.uri}")
        return key


async def _first_part(chunks: AsyncIterator[bytes]) -> tuple[deque[bytes], bool]:
    """The first bytes, and whether they are all."""
    first: deque[bytes] = deque()
    size_bytes = 0
    async for chunk in chunks:
        first.append(chunk)
        size_bytes += len(chunk)
        if size_bytes > PART_BYTES:
            return first, False
    return first, True


class _Parts:
    """An upload's bytes as obstore pulls them. obstore hides what they raise, so it is kept in `interruption`."""

    def __init__(self, first: deque[bytes], chunks: AsyncIterator[bytes]) -> None:
        self._first = first
        self._chunks = chunks
        self._reading: asyncio.Future[bytes] | None = None
        self._ended = False
        self.interruption: UploadInterrupted | None = None

    def __aiter__(self) -> _Parts:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise UploadInterrupted
        if self._first:
            return self._first.popleft()
        self._reading = asyncio.ensure_future(anext(self._chunks))
        try:
            return await self._reading
        except asyncio.CancelledError:
            raise UploadInterrupted from None
        except UploadInterrupted as interruption:
            self.interruption = interruption
            raise

    def end(self) -> None:
        """Have the next read, or the one under way, fail."""
        self._ended = True
        if self._reading is not None:
            self._reading.cancel()


@contextmanager
def _errors() -> Iterator[None]:
    """obstore's exceptions → our tree."""
    try:
        yield
    except (AlreadyExistsError, PreconditionError) as failure:
        raise RateLimited("the object store is busy with this object") from failure
    except FileNotFoundError as failure:
        raise Missing(NO_OBJECT) from failure
    except (PermissionDeniedError, UnauthenticatedError) as failure:
        raise Unauthorized(NOT_OURS) from failure
    except BaseError as failure:
        raise _refusal(str(failure)) from failure


def _error_of_head(status: int, _headers: Mapping[str, str], _content: bytes) -> ProviderError:
    """The error for a refusal of HEAD, which has nothing but its status."""
    return plain_error(status, NO_OBJECT if status == 404 else f"the object store answered {status}")


def _refusal(text: str) -> ProviderError:
    """The error for a refusal that obstore has no class for: it keeps the status in its own words only."""
    found = _STATUS.search(text)
    reason = f"the object store did not answer as it should ({text.partition(chr(10))[0][:200]})"
    if found is None or _DAMAGED.search(text):
        return Unavailable(reason)
    status = int(found[1])
    return plain_error(status, NO_OBJECT if status == 404 else reason)
