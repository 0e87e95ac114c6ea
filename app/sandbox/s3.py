"""S3: /s3, the bucket that Bedrock reads files from, by path (wire.md §6b)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.sandbox.objects import Content, Draft, ObjectError, StoredObject, digest_of, encoded
from app.sandbox.objects_documents import Element, document, keys_to_delete
from app.sandbox.objects_xml import XmlApi
from app.sandbox.s3_body import ALGORITHMS, S3Body, algorithm_of, check_digests
from app.sandbox.s3_signature import access_key, check_signature


class S3(XmlApi):
    """Amazon S3."""

    name: ClassVar[str] = "bedrock"
    prefix: ClassVar[str] = "/s3"
    scheme: ClassVar[str] = "s3"
    header_prefix: ClassVar[str] = "x-amz-"
    known_headers: ClassVar[frozenset[str]] = frozenset(
        {
            *("x-amz-date", "x-amz-security-token", "x-amz-user-agent"),
            *("x-amz-content-sha256", "x-amz-decoded-content-length", "x-amz-trailer"),
            *("x-amz-sdk-checksum-algorithm", "x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type"),
            *(f"x-amz-checksum-{algorithm}" for algorithm in ALGORITHMS),
        }
    )
    default_content_type: ClassVar[str] = "binary/octet-stream"
    max_put_bytes: ClassVar[int] = 5 * 1024**3
    tells_missing: ClassVar[bool] = False

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes: beyond those of every bucket, the one that deletes many objects."""
        return [self.route("POST", "/{bucket}", "delete", "delete_file", self._delete_many), *super().routes()]

    def credential(self, request: Request) -> str | None:
        """Return the access key id."""
        return access_key(request)

    def unauthorized(self, credential: str | None) -> Response:
        """Return S3's 403, which tells a missing signature from an unknown key."""
        return self.error("AccessDenied" if credential is None else "InvalidAccessKeyId")

    async def check(self, request: Request) -> None:
        """Refuse a signature that is not in order, and a payload that is not the signed one."""
        check_signature(request)
        if request.method != "PUT":  # else the body checks it as it comes
            payload = await request.body()
            check_digests(request.headers, lambda algorithm: digest_of(algorithm, payload))

    def body(self, request: Request) -> S3Body:
        """Return the bytes, without the framing that they may come in."""
        return S3Body(request)

    def generation(self, request: Request) -> int | None:
        """Return 0 for an object that must not exist; other conditions are not implemented."""
        condition = request.headers.get("if-none-match")
        if condition not in (None, "*") or "if-match" in request.headers:
            raise ObjectError("NotImplemented")
        return None if condition is None else 0

    def draft(self, request: Request) -> Draft:
        """Return the draft, with the algorithm of its checksums and without the encoding that is only framing."""
        draft = super().draft(request)
        encodings = draft.headers.get("content-encoding", "").split(",")
        encoding = ",".join(one for one in encodings if one.strip() != "aws-chunked")
        headers = {**draft.headers, "content-encoding": encoding}
        kept = {name: value for name, value in headers.items() if value}
        return replace(draft, headers=kept, algorithm=algorithm_of(request))

    def answer_headers(self) -> dict[str, str]:
        """Return the ids by which AWS finds a request again."""
        return {"x-amz-request-id": uuid4().hex[:16].upper(), "x-amz-id-2": uuid4().hex, "server": "AmazonS3"}

    def error_response(self, code: str, message: str, status: int) -> Response:
        """Return an error in S3's envelope."""
        headers = self.answer_headers()
        elements = [("Code", code), ("Message", message)]
        ids = [("RequestId", headers["x-amz-request-id"]), ("HostId", headers["x-amz-id-2"])]
        return Response(document(("Error", elements + ids)), status, headers, "application/xml")

    def object_headers(self, stored: StoredObject, request: Request) -> dict[str, str]:
        """Return the checksum: for a read only when it is asked for, and of all bytes."""
        is_read = request.method in ("GET", "HEAD")
        if stored.checksum is None or "range" in request.headers:
            return {}
        if is_read and request.headers.get("x-amz-checksum-mode") != "ENABLED":
            return {}
        algorithm, value = stored.checksum
        kind = "COMPOSITE" if "-" in value else "FULL_OBJECT"
        return {f"x-amz-checksum-{algorithm}": value, "x-amz-checksum-type": kind}

    def part_headers(self, part: Content, algorithm: str | None) -> dict[str, str]:
        """Return the checksum that came with the part."""
        return {f"x-amz-checksum-{algorithm}": encoded(part.digest(algorithm))} if algorithm else {}

    async def _delete_many(self, request: Request, _account: str) -> Response:
        if "content-md5" not in request.headers and algorithm_of(request) is None:
            raise ObjectError(
                "InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*"
            )
        keys, is_quiet = keys_to_delete(await request.body())
        for key in keys:
            self.bucket.remove(key)
        deleted: list[Element] = [("Deleted", [("Key", key)]) for key in keys if not is_quiet]
        return self.answer(("DeleteResult", deleted))
