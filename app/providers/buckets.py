"""Which buckets an account uses: its own, those that its configuration allows besides, and the folders within them.

A caller may name a folder, or an object by its URI: what is outside of these is refused, whatever the account's
credentials could reach.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator

from app.errors import Missing, Rejected, Unsupported
from app.formats.batch_lines import BatchResult
from app.providers.objects import NO_KEY, Objects
from app.providers.protocol import (
    BatchSubmission,
    FileContent,
    FileUpload,
    ProviderBatch,
    ProviderFile,
    ProviderFilePage,
    StoragePlace,
)
from app.providers.translated import batch_results

_PLACE = re.compile(r"((?P<region>[a-z0-9-]+):)?(?P<bucket>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(/(?P<prefix>.*))?")
# How the folder of a batch's results ends, where it is the batch's own.
RESULTS_ENDING = "-output"
_NOT_ALLOWED = "storage_not_allowed"


def _places(value: Any) -> Any:
    """The folders that a configuration allows, as `_place` reads them, in a list or between commas."""
    if isinstance(value, str):
        value = [one.strip() for one in value.split(",")]
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of buckets")
    return tuple(one if isinstance(one, StoragePlace) else _place(one) for one in value)


def _place(text: Any) -> StoragePlace:
    """A folder as the configuration writes it. Raises ValueError."""
    found = _PLACE.fullmatch(str(text))
    folder = folder_of((found and found["prefix"]) or "")
    if found is None or (folder and NO_KEY.search(folder[:-1])):
        raise ValueError(f"{text!r} is not BUCKET, BUCKET/PREFIX or REGION:BUCKET/PREFIX")
    return StoragePlace(found["bucket"], folder, found["region"])


AllowedBuckets = Annotated[tuple[StoragePlace, ...], BeforeValidator(_places)]


def folder_of(text: str) -> str:
    """A prefix with a slash at its end and none at its beginning; empty for the whole bucket."""
    return f"{text.strip('/')}/".lstrip("/")


class Buckets:
    """The folders where an account's files may be: its own, and those that the configuration allows besides.

    `results` is where batches put theirs. A folder is opened when it is first asked for, and kept.
    """

    def __init__(
        self,
        own: StoragePlace,
        allowed: Iterable[StoragePlace],
        opened: Callable[[StoragePlace], Objects],
        results: StoragePlace | None = None,
    ) -> None:
        self._results = results or own
        self._open = opened
        self._opened: dict[StoragePlace, Objects] = {}
        self.own = self._of(own)
        self._allowed = tuple(dict.fromkeys((own, self._results, *allowed)))

    def _of(self, place: StoragePlace) -> Objects:
        if place not in self._opened:
            self._opened[place] = self._open(place)
        return self._opened[place]

    def find(self, file_id: str) -> Objects | None:
        """The folder that an object is below, whether there is one of that name or not."""
        scheme, _, path = file_id.partition("://")
        bucket, _, key = path.partition("/")
        if scheme != self.own.scheme or NO_KEY.search(key):
            return None
        return next(
            (self._of(one) for one in self._allowed if one.bucket == bucket and key.startswith(one.prefix)), None
        )

    def holding(self, file_id: str) -> Objects:
        """The folder that an object is below. Raises Missing."""
        found = self.find(file_id)
        if found is None:
            raise Missing(f"{file_id[:200]!r} is in no bucket that this account uses")
        return found

    def at(self, storage: StoragePlace | None) -> Objects:
        """The folder that a caller names, or the account's own. Raises Rejected."""
        if storage is None:
            return self.own
        bucket, prefix = storage.bucket, folder_of(storage.prefix)
        inside = (one for one in self._allowed if one.bucket == bucket and prefix.startswith(prefix and one.prefix))
        place = next(inside, None)
        if place is None or (prefix and NO_KEY.search(prefix[:-1])):
            folder = f"{bucket}/{prefix}"[:200]
            raise Rejected(f"the account's allowed_buckets do not have the folder {folder!r}", code=_NOT_ALLOWED)
        if storage.region and place.region and storage.region != place.region:
            raise Rejected(f"the bucket {bucket} is configured in the region {place.region}", code=_NOT_ALLOWED)
        return replace(self._of(place), prefix=prefix or place.prefix)

    def folder(self, uri: str) -> Objects:
        """The folder of a URI. Raises Rejected."""
        scheme, _, path = uri.partition("://")
        bucket, _, prefix = path.partition("/")
        if scheme != self.own.scheme:
            raise Rejected(f"{uri[:200]!r} must begin with {self.own.scheme}://", code=_NOT_ALLOWED)
        return self.at(StoragePlace(bucket, prefix))

    def for_results(self, batch: BatchSubmission) -> Objects:
        """The folder for a batch's results: the one that the caller names, else one of the batch's own."""
        if batch.options.output_uri is not None:
            return self.folder(batch.options.output_uri)
        return self._of(self._results).below(f"{batch.name}{RESULTS_ENDING}")


class FilesInBucket:
    """The file verbs of a provider whose files are objects. Without a bucket an account keeps none.

    `bucket_param` is the parameter that names the bucket.
    """

    bucket_param: ClassVar[str]
    _buckets: Buckets | None

    async def _ready_buckets(self) -> Buckets:
        """The account's buckets, before they are used."""
        return self._named_buckets()

    def _named_buckets(self) -> Buckets:
        if self._buckets is None:
            raise Unsupported(f"this account keeps no files: it has no {self.bucket_param}")
        return self._buckets

    async def upload_file(self, upload: FileUpload) -> ProviderFile:
        """Put an object. A bucket has no purposes, and no expiry but its own."""
        return await (await self._ready_buckets()).at(upload.storage).upload_file(upload)

    async def retrieve_file(self, provider_file_id: str) -> ProviderFile:
        """See Provider."""
        return await (await self._ready_buckets()).holding(provider_file_id).retrieve_file(provider_file_id)

    @asynccontextmanager
    async def read_file(self, provider_file_id: str) -> AsyncIterator[FileContent]:
        """See Provider."""
        objects = (await self._ready_buckets()).holding(provider_file_id)
        async with objects.read_file(provider_file_id) as content:
            yield content

    async def list_files(self, after: str | None, limit: int, storage: StoragePlace | None = None) -> ProviderFilePage:
        """See Provider."""
        return await (await self._ready_buckets()).at(storage).page(after, limit)

    async def delete_file(self, provider_file_id: str) -> None:
        """See Provider. Raises Rejected for what is in no bucket of the account, whether it exists or not: the
        configuration may have moved on from it, and Missing would say that it is gone."""
        objects = (await self._ready_buckets()).find(provider_file_id)
        if objects is None:
            reason = f"{provider_file_id[:200]!r} is in no bucket that this account uses any more"
            raise Rejected(reason, code=_NOT_ALLOWED)
        await objects.delete_file(provider_file_id)

    async def _results_below(self, folder: str | None, ending: str = "") -> list[str]:
        """The files that a batch has left below its folder of results, if it has one."""
        return await (await self._ready_buckets()).folder(folder).file_ids(ending) if folder else []

    @asynccontextmanager
    async def _open_results(
        self, batch: ProviderBatch, file_ids: Collection[str], result_of: Callable[[Any], BatchResult]
    ) -> AsyncIterator[AsyncIterator[list[BatchResult]]]:
        """The results in a batch's files of JSON lines."""
        if not file_ids and batch.status == "completed":
            raise Missing("the batch's results are not in its bucket any more")
        async with aclosing(batch_results(self._joined(file_ids), result_of)) as results:
            yield results

    async def _joined(self, file_ids: Iterable[str]) -> AsyncGenerator[bytes, None]:
        """The lines of files, one file after the other."""
        for file_id in file_ids:
            last = b"\n"
            async with self.read_file(file_id) as content:
                async for chunk in content.chunks:
                    yield chunk
                    last = chunk[-1:]
            if last != b"\n":
                yield b"\n"

    async def _delete_results(self, folder: str | None) -> None:
        for file_id in await self._results_below(folder):
            with suppress(Missing):
                await self.delete_file(file_id)

    def chosen_file_id(self, replica_id: str) -> str:
        """See Provider."""
        return self._named_buckets().own.file_id_of(replica_id)
