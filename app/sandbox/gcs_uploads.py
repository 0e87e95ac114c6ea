"""Uploads by Cloud Storage's JSON API: whole with their JSON, or resumable in a session of its own (wire.md §5b)."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any
from uuid import uuid4

import orjson
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
from app.sandbox.openai import bearer_token
from app.sandbox.provider import Refusal
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
        self._sessions: dict[str, _Session] = {}

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes, relative to /upload/storage/v1."""
        path = "/b/{bucket}/o"
        return [
            Route(path, self.operation(_name_of_post, self._post), methods=["POST"]),
            Route(path, self.operation(_name_of_put, self._put), methods=["PUT"]),
            Route(path, self.operation("cancel_upload", self._cancel), methods=["DELETE"]),
        ]

    def credential(self, request: Request) -> str | None:
        """Return the token; a session's address stands for the token that it was made with."""
        session = self._sessions.get(request.query_params.get("upload_id", ""))
        return session.token if session else bearer_token(request)
