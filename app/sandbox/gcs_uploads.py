"""Uploads by Cloud Storage's JSON API: whole with their JSON, or resumable in a session of its own (wire.md §5b)."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from app.sandbox.faults import Faults
from app.sandbox.gcs_answers import HEADER_FIELDS, plain_failure
from app.sandbox.gcs_headers import check_digests, expected_digests
from app.sandbox.gcs_json import JsonApi, check_query, number
from app.sandbox.gcs_related import RelatedBody
from app.sandbox.objects import Bucket, Content, Draft, ObjectError, StoredObject
from app.sandbox.provider import Refusal, bearer_token
from app.sandbox.store import Store

_MAX_OBJECT_BYTES = 5 * 1024**4
# Every request but the last carries a multiple of it.
_GRANULE_BYTES = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes (?:(?P<first>\d+)-(?P<last>\d+)|\*)/(?:(?P<total>\d+)|\*)", re.ASCII)
_UPLOAD_PARAMETERS = ("uploadType", "name", "ifGenerationMatch")


class _Resource(BaseModel):
    """The JSON of an object that is to be made."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = None
    content_type: Annotated[str | None, Field(alias="contentType")] = None
    cacheControl: str | None = None
    contentDisposition: str | None = None
    contentEncoding: str | None = None
    contentLanguage: str | None = None
    metadata: dict[str, str] = {}
    crc32c: str | None = None
    md5: Annotated[str | None, Field(alias="md5Hash")] = None

    @property
    def digests(self) -> dict[str, str]:
        """The digests that the content must have, by algorithm."""
        return self.model_dump(include={"crc32c", "md5"}, exclude_none=True)

    @property
    def headers(self) -> dict[str, str]:
        """What comes back in headers, beside the bytes."""
        given = self.model_dump(include=set(HEADER_FIELDS), exclude_none=True)
        return {HEADER_FIELDS[name]: value for name, value in given.items()}


@dataclass
class _Session:
    """A resumable upload, from its start on."""

    token: str
    account: str
    draft: Draft
    digests: dict[str, str]
    declared_bytes: int | None
    content: Content
    # What came of it; its last request may be repeated.
    stored: StoredObject | None = None
    # Requests follow one another.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_open(self) -> bool:
        """Whether it may still become an object."""
        return self.stored is None

    async def discard(self) -> None:
        """Leave nothing behind."""
        await self.content.discard()


@dataclass(frozen=True)
class _Span:
    """Which bytes of the file a request carries; None where it does not say."""

    first: int
    size_bytes: int | None
    total_bytes: int | None

    @property
    def is_last(self) -> bool:
        """Whether the file ends with it."""
        return self.size_bytes is None or self.total_bytes == self.first + self.size_bytes


class GcsUploads(JsonApi):
    """What is on its way."""

    def __init__(self, store: Store, faults: Faults, bucket: Bucket) -> None:
        super().__init__(store, faults, bucket)
        self._sessions: dict[str, _Session] = store.uploads()

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes, relative to /upload/storage/v1."""
        path = "/b/{bucket}/o"
        return [
            Route(path, self.operation(_name_of_post, self._post), methods=["POST"]),
            Route(path, self.operation(_name_of_put, self._put), methods=["PUT"]),
            Route(path, self.operation("cancel_upload", self._cancel), methods=["DELETE"]),
        ]

    def credential(self, request: Request) -> str | None:
        """Return the token; a session's address stands for the token that it was made with, or for nobody's."""
        upload_id = request.query_params.get("upload_id")
        if upload_id is None:
            return bearer_token(request)
        session = self._sessions.get(upload_id)
        return session.token if session else "unknown session"

    async def _post(self, request: Request, account: str) -> Response:
        check_query(request, *_UPLOAD_PARAMETERS)
        match request.query_params.get("uploadType"):
            case "multipart":
                return await self._store_whole(request, account)
            case "resumable":
                return await self._start(request, account)
        raise ObjectError("InvalidArgument", "Invalid uploadType.")

    async def _store_whole(self, request: Request, account: str) -> Response:
        body = await RelatedBody.of(request)
        resource = _resource(body.resource)
        draft = _draft(request, resource, body.content_type)
        async with self.bucket.receive(body.chunks(), _MAX_OBJECT_BYTES) as content:
            check_digests(content, resource.digests)
            stored = self.bucket.put(draft, content, account)
        return self.shown(stored, request)

    async def _start(self, request: Request, account: str) -> Response:
        resource = _resource(await request.body() or b"{}")
        draft = _draft(request, resource, request.headers.get("x-upload-content-type"))
        self.bucket.check(draft.key, draft.generation)
        declared = request.headers.get("x-upload-content-length", "")
        upload_id = uuid4().hex
        self._sessions[upload_id] = _Session(
            token=bearer_token(request) or "",
            account=account,
            draft=draft,
            digests=resource.digests,
            declared_bytes=int(declared) if declared.isdecimal() else None,
            content=Content(self.store),
        )
        # Absolute, and good without the token (wire.md §9).
        location = str(request.url.replace(query=f"uploadType=resumable&upload_id={upload_id}"))
        return Response(headers={"location": location, "x-guploader-uploadid": upload_id})

    async def _put(self, request: Request, _account: str) -> Response:
        session = self._require(request)
        async with session.turn:
            if session.stored is not None:
                return self.shown(session.stored, request)
            span = _span(request, session)
            if span is not None:
                await _take(request, session, span, self.store.max_file_bytes or _MAX_OBJECT_BYTES)
            total_bytes = session.content.size_bytes
            is_complete = span.is_last if span else _total(request) == total_bytes
            if not is_complete:
                received = {"range": f"bytes=0-{total_bytes - 1}"} if total_bytes else {}
                return Response(status_code=308, headers=received)
            return self.shown(await self._finish(request, session), request)

    async def _finish(self, request: Request, session: _Session) -> StoredObject:
        await session.content.finish()
        try:
            check_digests(session.content, session.digests | expected_digests(request.headers))
            session.stored = self.bucket.put(session.draft, session.content, session.account)
        except ObjectError:
            await self._end(request)
            raise
        return session.stored

    async def _cancel(self, request: Request, _account: str) -> Response:
        session = self._require(request)
        async with session.turn:
            if session.stored is None:
                await self._end(request)
        return Response(status_code=499)  # Google's "client closed request" is how it says that it is done

    async def _end(self, request: Request) -> None:
        session = self._sessions.pop(request.query_params["upload_id"], None)
        if session is not None:  # else another request, or the switchboard, has ended it
            await session.discard()

    def _require(self, request: Request) -> _Session:
        session = self._sessions.get(request.query_params.get("upload_id", ""))
        if session is None:
            raise Refusal(plain_failure(404))
        return session


def _resource(data: bytes) -> _Resource:
    try:
        return _Resource.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ObjectError("InvalidArgument", f"Invalid value for {where or 'the object'}: {first['msg']}") from error


def _draft(request: Request, resource: _Resource, content_type: str | None) -> Draft:
    key = resource.name or request.query_params.get("name")
    if not key:
        raise ObjectError("InvalidArgument", "Required object name.")
    return Draft(
        key=key,
        content_type=resource.content_type or content_type or "application/octet-stream",
        headers=resource.headers,
        metadata=resource.metadata,
        generation=number(request, "ifGenerationMatch"),
    )


def _total(request: Request) -> int | None:
    found = _CONTENT_RANGE.fullmatch(request.headers.get("content-range", ""))
    return int(found["total"]) if found and found["total"] else None


def _span(request: Request, session: _Session) -> _Span | None:
    """Return the bytes that the request carries; None when it only asks how far the upload is."""
    header = request.headers.get("content-range")
    if header is None:
        return _Span(0, None, None)
    found = _CONTENT_RANGE.fullmatch(header)
    if found is None:
        raise ObjectError("InvalidArgument", f"Failed to parse Content-Range header: {header}")
    total_bytes = _total(request)
    if None not in (total_bytes, session.declared_bytes) and total_bytes != session.declared_bytes:
        message = f"The total size {total_bytes} is not the X-Upload-Content-Length {session.declared_bytes}."
        raise ObjectError("InvalidArgument", message)
    if found["first"] is None:
        return None
    first, size_bytes, received = (
        int(found["first"]),
        int(found["last"]) + 1 - int(found["first"]),
        session.content.size_bytes,
    )
    span = _Span(first, size_bytes, total_bytes)
    if first > received:
        raise ObjectError(
            "InvalidArgument",
            f"Invalid request. According to the Content-Range header, the upload offset is {first} byte(s), which "
            f"exceeds already uploaded size of {received} byte(s).",
        )
    if size_bytes != int(request.headers.get("content-length", -1)):
        raise ObjectError("InvalidArgument", "Invalid request. The Content-Range does not match the Content-Length.")
    if size_bytes < _GRANULE_BYTES and not span.is_last:
        raise ObjectError(
            "InvalidArgument",
            f"Invalid request. The number of bytes uploaded is required to be equal or greater than {_GRANULE_BYTES}, "
            "except for the final request (it's recommended to be the exact multiple of it). The received request "
            f"contained {size_bytes} bytes, which does not meet this requirement.",
        )
    return span


async def _take(request: Request, session: _Session, span: _Span, max_bytes: int) -> None:
    """Store the bytes; what came before a cut connection stays, as a query tells, and what came twice is left out."""
    content, position, end = session.content, span.first, max_bytes + 1
    if span.size_bytes is not None and not span.is_last:
        # What is beyond the last whole granule has to come again.
        end = span.first + span.size_bytes - span.size_bytes % _GRANULE_BYTES
    async for chunk in request.stream():
        await content.write(chunk[max(content.size_bytes - position, 0) : max(end - position, 0)])
        position += len(chunk)
        if content.size_bytes > max_bytes:
            raise ObjectError("EntityTooLarge")


async def _name_of_post(request: Request) -> str:
    return "start_upload" if request.query_params.get("uploadType") == "resumable" else "upload_file"


async def _name_of_put(request: Request) -> str:
    return "query_upload" if request.headers.get("content-range", "").startswith("bytes */") else "upload_file"
