"""Cloud Storage: /gcs, the bucket that Vertex AI reads files from, by the XML API and by the JSON API (wire.md §5b)."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import ClassVar
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount

from app.sandbox.faults import Faults
from app.sandbox.gcs_headers import check_digests, expected_digests, goog_hash, object_headers
from app.sandbox.gcs_json import GcsObjects
from app.sandbox.gcs_uploads import GcsUploads
from app.sandbox.objects import Content, ObjectError, StoredObject
from app.sandbox.objects_documents import CODES, document
from app.sandbox.objects_xml import XmlApi
from app.sandbox.provider import bearer_token
from app.sandbox.store import Store


class GCS(XmlApi):
    """Google Cloud Storage."""

    name: ClassVar[str] = "vertex_ai"
    prefix: ClassVar[str] = "/gcs"
    scheme: ClassVar[str] = "gs"
    header_prefix: ClassVar[str] = "x-goog-"
    known_headers: ClassVar[frozenset[str]] = frozenset(
        {
            *("x-goog-if-generation-match", "x-goog-hash"),
            *("x-goog-api-client", "x-goog-user-project", "x-goog-gcs-idempotency-token"),
        }
    )
    default_content_type: ClassVar[str] = "application/octet-stream"
    max_put_bytes: ClassVar[int] = 5 * 1024**4
    codes: ClassVar[Mapping[int, str]] = {**CODES, 401: "AuthenticationRequired", 503: "ServiceUnavailable"}
    tells_missing: ClassVar[bool] = True

    def __init__(self, store: Store, faults: Faults) -> None:
        super().__init__(store, faults)
        self._objects = GcsObjects(store, faults, self.bucket)
        self._sessions = GcsUploads(store, faults, self.bucket)

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of the JSON API; every other path is a bucket and a key."""
        objects = self._objects.app()
        return [
            Mount("/storage/v1", app=objects),
            Mount("/download/storage/v1", app=objects),
            Mount("/upload/storage/v1", app=self._sessions.app()),
            *super().routes(),
        ]

    def credential(self, request: Request) -> str | None:
        """Return the token."""
        return bearer_token(request)

    def unauthorized(self, credential: str | None) -> Response:
        """Return the 401 of the XML API."""
        del credential
        return self.error("AuthenticationRequired")

    def body(self, request: Request) -> "_Body":
        """Return the bytes of the request."""
        return _Body(request)

    def generation(self, request: Request) -> int | None:
        """Return the generation that must be there; 0 is none."""
        text = request.headers.get("x-goog-if-generation-match")
        if text is None:
            return None
        if not text.isdecimal():
            raise ObjectError("InvalidArgument")
        return int(text)

    def answer_headers(self) -> dict[str, str]:
        """Return the id by which Google finds a request again."""
        return {"x-guploader-uploadid": uuid4().hex, "server": "UploadServer"}

    def error_response(self, code: str, message: str, status: int) -> Response:
        """Return an error in the XML API's envelope."""
        elements = [("Code", code), ("Message", message), ("Details", message)]
        return Response(document(("Error", elements)), status, self.answer_headers(), "application/xml")

    def object_headers(self, stored: StoredObject, request: Request) -> dict[str, str]:
        """Return generation, size and digests."""
        del request
        return object_headers(stored)

    def part_headers(self, part: Content, algorithm: str | None) -> dict[str, str]:
        """Return the part's digests."""
        del algorithm
        return {"x-goog-hash": goog_hash(part.digest("crc32c"), part.digest("md5"))}


class _Body:
    """The bytes of a request."""

    algorithm: str | None = None

    def __init__(self, request: Request) -> None:
        if not {"content-length", "transfer-encoding"}.intersection(request.headers):
            raise ObjectError("MissingContentLength")
        self._request = request
        self._expected = expected_digests(request.headers)

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes, as they come."""
        return self._request.stream()

    def check(self, content: Content) -> None:
        """Refuse unless the digests are what the headers say."""
        check_digests(content, self._expected)
