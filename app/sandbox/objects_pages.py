"""The pages of a bucket's lists, and the tokens that stand for the next ones."""

import base64
import re
from datetime import UTC, datetime
from urllib.parse import quote

from starlette.datastructures import QueryParams

from app.sandbox.objects import BUCKET, Bucket, ObjectError, StoredObject
from app.sandbox.objects_documents import Element
from app.sandbox.objects_parts import MultipartUploads

MAX_PAGE_SIZE = 1000


def token_of(key: str) -> str:
    """Return the token of the page that begins after `key`."""
    return base64.urlsafe_b64encode(key.encode()).decode()


def key_of(token: str) -> str:
    """Return the key that a page begins after."""
    try:
        return base64.urlsafe_b64decode(token).decode()
    except ValueError as error:  # of which the errors of base64 and of UTF-8 are kinds
        raise ObjectError("InvalidArgument", "The page's token is incorrect") from error


def objects_page(bucket: Bucket, query: QueryParams) -> Element:
    """Return a page of objects as ListObjectsV2 gives it."""
    max_keys = query.get("max-keys", str(MAX_PAGE_SIZE))
    if query["list-type"] != "2" or not re.fullmatch(r"\d{1,9}", max_keys, re.ASCII):
        raise ObjectError("InvalidArgument")
    limit, prefix, start_after = (
        min(int(max_keys), MAX_PAGE_SIZE),
        query.get("prefix", ""),
        query.get("start-after", ""),
    )
    after = key_of(query["continuation-token"]) if "continuation-token" in query else start_after
    objects, is_truncated = bucket.page(prefix, after, limit)
    encode = quote if query.get("encoding-type") == "url" else str
    elements: list[Element] = [
        ("Name", BUCKET),
        ("Prefix", encode(prefix)),
        ("StartAfter", encode(start_after)),
        ("EncodingType", query.get("encoding-type", "")),
        ("KeyCount", str(len(objects))),
        ("MaxKeys", str(limit)),
        ("IsTruncated", _boolean(is_truncated)),
        ("ContinuationToken", query.get("continuation-token", "")),
        ("NextContinuationToken", token_of(objects[-1].key) if is_truncated and objects else ""),
        *(("Contents", _listed(stored, encode(stored.key))) for stored in objects),
    ]
    return "ListBucketResult", [element for element in elements if element[1] or element[0] == "Prefix"]


def uploads_page(uploads: MultipartUploads, query: QueryParams) -> Element:
    """Return the uploads that are under way, all on one page."""
    elements: list[Element] = [("Bucket", BUCKET), ("IsTruncated", _boolean(False))]
    for upload in uploads:
        if upload.draft.key.startswith(query.get("prefix", "")):
            started = _timestamp(upload.started_at)
            elements.append(("Upload", [("Key", upload.draft.key), ("UploadId", upload.id), ("Initiated", started)]))
    return "ListMultipartUploadsResult", elements


def _listed(stored: StoredObject, key: str) -> list[Element]:
    return [
        ("Key", key),
        ("LastModified", _timestamp(stored.created_at)),
        ("ETag", f'"{stored.etag}"'),
        ("Size", str(stored.size_bytes)),
        ("StorageClass", "STANDARD"),
    ]


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _timestamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
