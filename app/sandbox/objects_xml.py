"""The XML API of a bucket: S3's, and Cloud Storage's, which is made after it."""

import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from email.utils import formatdate
from typing import ClassVar, Protocol
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Scope

from app.sandbox.faults import Faults
from app.sandbox.objects import (
    BUCKET,
    KEPT_HEADERS,
    Bucket,
    Content,
    Draft,
    ObjectError,
    StoredObject,
    content_response,
)
from app.sandbox.objects_documents import CODES, ERRORS, Element, document, named_parts
from app.sandbox.objects_pages import objects_page, uploads_page
from app.sandbox.objects_parts import MAX_PART_BYTES, MultipartUploads
from app.sandbox.provider import Endpoint, Operation, OperationName, Provider
from app.sandbox.store import Store

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_BUCKET, _OBJECT = "/{bucket}", "/{bucket}/{key:path}"
_LIST_PARAMETERS = "prefix max-keys continuation-token start-after encoding-type"


class Body(Protocol):
    """The bytes of a request, and what its headers say of them."""

    # That of the checksum that S3 wants to see again at the end of an upload in parts.
    algorithm: str | None

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes, as they come."""

    def check(self, content: Content) -> None:
        """Refuse unless the bytes are what the headers say."""


class _QueryRoute(Route):
    """A route that is told from others by the names of the query's parameters, too."""

    def __init__(self, path: str, app: ASGIApp, method: str, required: str, optional: str = "") -> None:
        super().__init__(path, app, methods=[method])
        self._required = frozenset(required.split())
        self._known = self._required | frozenset(optional.split())

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        names = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).keys()
        return super().matches(scope) if self._required <= names <= self._known else (Match.NONE, {})


class XmlApi(Provider):
    """The operations on a bucket and its objects; a vendor adds its headers, checks and errors."""

    scheme: ClassVar[str]
    # The vendor's own headers begin so; those that are not listed are refused, for they would have changed something.
    header_prefix: ClassVar[str]
    known_headers: ClassVar[frozenset[str]]
    default_content_type: ClassVar[str]
    max_put_bytes: ClassVar[int]
    # What a status alone is called.
    codes: ClassVar[Mapping[int, str]] = CODES
    # Whether a delete tells that there was nothing to delete.
    tells_missing: ClassVar[bool]

    def __init__(self, store: Store, faults: Faults) -> None:
        super().__init__(store, faults)
        self.bucket = Bucket(store, self.name, self.scheme)
        self._uploads = MultipartUploads(self.bucket)

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes; whatever is not among them is not implemented."""
        part = "uploadId partNumber"
        return [
            self.route("HEAD", _BUCKET, "", "retrieve_bucket", self._head_bucket),
            self.route("GET", _BUCKET, "list-type", "list_files", self._list, _LIST_PARAMETERS),
            self.route("GET", _BUCKET, "uploads", "list_uploads", self._list_uploads, "prefix"),
            self.route("PUT", _OBJECT, "", "upload_file", self._put),
            self.route("POST", _OBJECT, "uploads", "start_upload", self._start),
            self.route("PUT", _OBJECT, part, "upload_file", self._put_part),
            self.route("POST", _OBJECT, "uploadId", "finish_upload", self._finish),
            self.route("DELETE", _OBJECT, "uploadId", "cancel_upload", self._abort),
            self.route("HEAD", _OBJECT, "", "retrieve_file", self._head),
            self.route("GET", _OBJECT, "", "read_file", self._get),
            self.route("DELETE", _OBJECT, "", "delete_file", self._delete),
            Mount("", app=self.error("NotImplemented")),
        ]

    def route(
        self, method: str, path: str, required: str, name: str, endpoint: Endpoint, optional: str = ""
    ) -> BaseRoute:
        """Return the route of an operation, whose query has these parameters and may have the optional ones."""
        return _QueryRoute(path, self.operation(name, endpoint), method, required, optional)

    def operation(self, name: OperationName, endpoint: Endpoint) -> Operation:
        """Return `endpoint` as an ASGI app that does not run for what is wrong with every operation."""

        async def checked(request: Request, account: str) -> Response:
            try:
                if request.path_params.get("key") == "":
                    raise ObjectError("NotImplemented")
                self._check_headers(request)
                await self.check(request)
                if request.path_params["bucket"] != BUCKET:
                    raise ObjectError("NoSuchBucket")
                return await endpoint(request, account)
            except ObjectError as error:
                return self.error(error.code, error.message)

        return super().operation(name, checked)

    def _check_headers(self, request: Request) -> None:
        meta = self.header_prefix + "meta-"
        for name in request.headers:
            if name.startswith(self.header_prefix) and not name.startswith(meta) and name not in self.known_headers:
                raise ObjectError("NotImplemented", f"A header you provided is not implemented: {name}")

    # What the vendors differ in

    async def check(self, request: Request) -> None:
        """Refuse what the vendor refuses in every request."""

    @abstractmethod
    def body(self, request: Request) -> Body:
        """Return the bytes that the request uploads."""

    @abstractmethod
    def generation(self, request: Request) -> int | None:
        """Return the generation that the request replaces, as Draft has it."""

    @abstractmethod
    def answer_headers(self) -> dict[str, str]:
        """Return the headers that every answer has."""

    @abstractmethod
    def object_headers(self, stored: StoredObject, request: Request) -> dict[str, str]:
        """Return the headers that describe an object, beyond those of HTTP."""

    @abstractmethod
    def part_headers(self, part: Content, algorithm: str | None) -> dict[str, str]:
        """Return the headers that describe a part."""

    # Answers

    def answer(self, element: Element, headers: Mapping[str, str] | None = None) -> Response:
        """Return an XML answer."""
        return Response(
            document(element, _NAMESPACE), 200, {**self.answer_headers(), **(headers or {})}, "application/xml"
        )

    def error(self, code: str, message: str | None = None, status: int | None = None) -> Response:
        """Return an error; message and status are the usual ones of the code unless they are given."""
        usual_status, usual_message = ERRORS[code]
        return self.error_response(code, message or usual_message, status or usual_status)

    @abstractmethod
    def error_response(self, code: str, message: str, status: int) -> Response:
        """Return an error in the vendor's envelope."""

    def failure(self, status: int) -> Response:
        """Return the vendor's error for a status."""
        return self.error(self.codes.get(status, "InternalError" if status >= 500 else "InvalidRequest"), status=status)

    # The bucket

    async def _head_bucket(self, _request: Request, _account: str) -> Response:
        return Response(headers=self.answer_headers())

    async def _list(self, request: Request, _account: str) -> Response:
        return self.answer(objects_page(self.bucket, request.query_params))

    async def _list_uploads(self, request: Request, _account: str) -> Response:
        return self.answer(uploads_page(self._uploads, request.query_params))

    # Objects

    async def _put(self, request: Request, account: str) -> Response:
        draft, body = self.draft(request), self.body(request)
        async with self.bucket.receive(body.chunks(), self.max_put_bytes) as content:
            body.check(content)
            stored = self.bucket.put(draft, content, account)
        return Response(headers=self._headers(stored, request))

    async def _head(self, request: Request, _account: str) -> Response:
        stored = self.bucket.require(request.path_params["key"])
        length = {"content-length": str(stored.size_bytes)}
        return Response(headers=self._all_headers(stored, request) | length)

    async def _get(self, request: Request, _account: str) -> Response:
        stored = self.bucket.require(request.path_params["key"])
        return content_response(stored, request, self._all_headers(stored, request))

    async def _delete(self, request: Request, _account: str) -> Response:
        key = request.path_params["key"]
        if self.tells_missing:
            self.bucket.require(key)
        self.bucket.remove(key)
        return Response(status_code=204, headers=self.answer_headers())

    # Uploads in parts

    async def _start(self, request: Request, account: str) -> Response:
        upload = self._uploads.start(self.draft(request), account)
        elements: list[Element] = [("Bucket", BUCKET), ("Key", upload.draft.key), ("UploadId", upload.id)]
        return self.answer(("InitiateMultipartUploadResult", elements))

    async def _put_part(self, request: Request, _account: str) -> Response:
        number, key = request.query_params["partNumber"], request.path_params["key"]
        if not re.fullmatch(r"[1-9]\d{0,3}|10000", number, re.ASCII):
            raise ObjectError("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive")
        upload_id, body = request.query_params["uploadId"], self.body(request)
        expected = self._uploads.require(upload_id, key).draft.algorithm
        if expected not in (None, body.algorithm):
            message = f"Checksum Type mismatch occurred, expected checksum Type: {expected}"
            raise ObjectError("InvalidRequest", f"{message}, actual checksum Type: {body.algorithm or 'null'}")
        async with self.bucket.receive(body.chunks(), MAX_PART_BYTES) as part:
            body.check(part)
            # Again: it may have ended while the bytes came.
            self._uploads.require(upload_id, key).keep(int(number), part)
        etag = {"etag": f'"{part.digest("md5").hex()}"'}
        return Response(headers=self.answer_headers() | etag | self.part_headers(part, body.algorithm))

    async def _finish(self, request: Request, _account: str) -> Response:
        key, parts = request.path_params["key"], named_parts(await request.body())
        stored = await self._uploads.finish(request.query_params["uploadId"], key, parts, self.generation(request))
        elements: list[Element] = [
            ("Location", str(request.url.replace(query=""))),
            ("Bucket", BUCKET),
            ("Key", key),
            ("ETag", f'"{stored.etag}"'),
        ]
        if stored.checksum is not None:
            algorithm, value = stored.checksum
            elements += [(f"Checksum{algorithm.upper()}", value), ("ChecksumType", "COMPOSITE")]
        return self.answer(("CompleteMultipartUploadResult", elements), self.object_headers(stored, request))

    async def _abort(self, request: Request, _account: str) -> Response:
        await self._uploads.abort(request.query_params["uploadId"], request.path_params["key"])
        return Response(status_code=204, headers=self.answer_headers())

    def draft(self, request: Request) -> Draft:
        """Return what the request says of the object that it makes."""
        headers, meta = request.headers, self.header_prefix + "meta-"
        return Draft(
            key=request.path_params["key"],
            content_type=headers.get("content-type", self.default_content_type),
            headers={name: headers[name] for name in KEPT_HEADERS if name in headers},
            metadata={name.removeprefix(meta): value for name, value in headers.items() if name.startswith(meta)},
            generation=self.generation(request),
        )

    def _headers(self, stored: StoredObject, request: Request) -> dict[str, str]:
        return self.answer_headers() | {"etag": f'"{stored.etag}"'} | self.object_headers(stored, request)

    def _all_headers(self, stored: StoredObject, request: Request) -> dict[str, str]:
        return {
            **self._headers(stored, request),
            "content-type": stored.content_type,
            "last-modified": formatdate(stored.created_at, usegmt=True),
            "accept-ranges": "bytes",
            **stored.headers,
            **{f"{self.header_prefix}meta-{name}": value for name, value in stored.metadata.items()},
        }
