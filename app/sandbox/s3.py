"""S3: /s3, the bucket that Bedrock reads files from, by path (wire.md §6b)."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.sandbox.objects import Content, Draft, ObjectError, StoredObject, encoded
from app.sandbox.objects_documents import Element, document, keys_to_delete
from app.sandbox.objects_xml import XmlApi
from app.sandbox.s3_body import ALGORITHMS, S3Body, check_payload
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
            check_payload(request, await request.body())

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
        """Return the draft, with the algorithm of its checksums and without the encoding of its framing."""
        draft = super().draft(request)
        if request.method == "POST":
            name = request.headers.get("x-amz-checksum-algorithm")
            algorithm = name.lower() if name else None
            if algorithm not in (None, *ALGORITHMS):
                raise ObjectError("NotImplemented")
        else:
            algorithm = self.body(request).algorithm
        encodings = [one.strip() for one in draft.headers.get("content-encoding", "").split(",")]
        encoding = ", ".join(one for one in encodings if one not in ("", "aws-chunked"))
        headers = {name: value for name, value in draft.headers.items() if name != "content-encoding"}
        if encoding:
            headers["content-encoding"] = encoding
        return replace(draft, headers=headers, algorithm=algorithm)

    async def _start(self, request: Request, account: str) -> Response:
        response = await super()._start(request, account)
        algorithm = self.draft(request).algorithm
        if algorithm:
            response.headers["x-amz-checksum-algorithm"] = algorithm.upper()
        return response
