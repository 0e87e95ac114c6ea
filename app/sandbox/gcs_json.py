"""Cloud Storage's JSON API but for uploads: the bucket, its objects, their bytes, pages of them (wire.md §5b)."""

from collections.abc import Sequence
from email.utils import formatdate
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from app.sandbox.faults import Faults
from app.sandbox.gcs_answers import answer, bucket_resource, error_response, object_resource, plain_failure, refused
from app.sandbox.gcs_headers import object_headers
from app.sandbox.objects import BUCKET, Bucket, ObjectError, StoredObject, content_response
from app.sandbox.objects_pages import MAX_PAGE_SIZE, key_of, token_of
from app.sandbox.provider import Endpoint, Operation, OperationName, Provider, bearer_token
from app.sandbox.store import Store

# They shape the answer, which here is always whole, or say who pays.
_FORM_PARAMETERS = frozenset({"alt", "fields", "prettyPrint", "projection", "userProject"})
_CONDITIONS = ("generation", "ifGenerationMatch")


class JsonApi(Provider):
    """What the halves of the JSON API have in common."""

    name: ClassVar[str] = "vertex_ai"
    prefix: ClassVar[str] = "/gcs"

    def __init__(self, store: Store, faults: Faults, bucket: Bucket) -> None:
        super().__init__(store, faults)
        self.bucket = bucket

    def operation(self, name: OperationName, endpoint: Endpoint) -> Operation:
        """Return `endpoint` as an ASGI app that runs for the bucket that exists."""

        async def checked(request: Request, account: str) -> Response:
            try:
                if request.path_params["bucket"] != BUCKET:
                    raise ObjectError("NoSuchBucket")
                return await endpoint(request, account)
            except ObjectError as error:
                return refused(error, request)

        return super().operation(name, checked)

    def credential(self, request: Request) -> str | None:
        """Return the token."""
        return bearer_token(request)

    def unauthorized(self, credential: str | None) -> Response:
        """Return Google's 401, which tells a missing token from a wrong one."""
        if credential is not None:
            return plain_failure(401)
        return error_response(401, "required", "Anonymous caller does not have storage access to the bucket.")

    def failure(self, status: int) -> Response:
        """Return the JSON API's error for a status."""
        return plain_failure(status)

    def address(self, request: Request) -> str:
        """Return the address that all paths of the API are below."""
        return str(request.url.replace(path=self.prefix, query=""))

    def shown(self, stored: StoredObject, request: Request) -> Response:
        """Return the answer that is an object."""
        return answer(object_resource(stored, self.address(request)))


class GcsObjects(JsonApi):
    """What there is."""

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes, relative to /storage/v1 and /download/storage/v1, which clients prefer for bytes."""
        item = "/b/{bucket}/o/{key:path}"
        return [
            Route("/b/{bucket}", self.operation("retrieve_bucket", self._bucket), methods=["GET"]),
            Route("/b/{bucket}/o", self.operation("list_files", self._list), methods=["GET"]),
            Route(item, self.operation(_name_of_get, self._get), methods=["GET"]),
            Route(item, self.operation("delete_file", self._delete), methods=["DELETE"]),
        ]

    async def _bucket(self, request: Request, _account: str) -> Response:
        check_query(request)
        return answer(bucket_resource())

    async def _list(self, request: Request, _account: str) -> Response:
        check_query(request, "prefix", "maxResults", "pageToken")
        query = request.query_params
        limit = number(request, "maxResults")
        after = key_of(query["pageToken"]) if "pageToken" in query else ""
        objects, is_truncated = self.bucket.page(
            query.get("prefix", ""), after, min(limit or MAX_PAGE_SIZE, MAX_PAGE_SIZE)
        )
        address = self.address(request)
        page: dict[str, object] = {"kind": "storage#objects"}
        if objects:
            page["items"] = [object_resource(stored, address) for stored in objects]
        if is_truncated:
            page["nextPageToken"] = token_of(objects[-1].key)
        return answer(page)

    async def _get(self, request: Request, _account: str) -> Response:
        stored = self._require(request)
        if not _wants_bytes(request):
            return self.shown(stored, request)
        headers = {
            **object_headers(stored),
            "content-type": stored.content_type,
            "etag": stored.etag,
            "last-modified": formatdate(stored.created_at, usegmt=True),
            **stored.headers,
        }
        return content_response(stored, request, headers)

    async def _delete(self, request: Request, _account: str) -> Response:
        self.bucket.remove(self._require(request).key)
        return Response(status_code=204)

    def _require(self, request: Request) -> StoredObject:
        check_query(request, *_CONDITIONS)
        key = request.path_params["key"]
        self.bucket.check(key, number(request, "ifGenerationMatch"))
        stored = self.bucket.require(key)
        if number(request, "generation") not in (None, stored.generation):
            raise ObjectError("NoSuchKey")
        return stored


def check_query(request: Request, *known: str) -> None:
    """Refuse parameters that the operation does not know here: they would have changed something."""
    if unknown := sorted(request.query_params.keys() - _FORM_PARAMETERS - set(known)):
        raise ObjectError("InvalidArgument", f"Unknown parameter: {unknown[0]}")


def number(request: Request, name: str) -> int | None:
    """Return a parameter that is a number, if it is there."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ObjectError("InvalidArgument", f"Invalid value for {name}: {text}")
    return int(text)


def _wants_bytes(request: Request) -> bool:
    return request.query_params.get("alt") == "media"


async def _name_of_get(request: Request) -> str:
    return "read_file" if _wants_bytes(request) else "retrieve_file"
