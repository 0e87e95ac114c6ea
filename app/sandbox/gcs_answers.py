"""The JSON API's answers and errors: {"error": {"code", "message", "errors": [{"domain", "reason", "message"}]}}."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.objects import BUCKET, ObjectError, StoredObject, encoded
from app.sandbox.objects_documents import ERRORS

# Reason and message of an answer that has no cause but its status.
_BY_STATUS: dict[int, tuple[str, str]] = {
    400: ("invalid", "Invalid argument."),
    401: ("authError", "Invalid Credentials"),
    403: ("forbidden", "The caller does not have storage access to the bucket."),
    404: ("notFound", "Not Found"),
    408: ("requestTimeout", "The request timed out."),
    409: ("conflict", "Conflict"),
    412: ("conditionNotMet", "At least one of the pre-conditions you specified did not hold."),
    413: ("uploadTooLarge", "The object is too large."),
    416: ("requestedRangeNotSatisfiable", "The requested range cannot be satisfied."),
    429: ("rateLimitExceeded", "The rate of requests to the bucket exceeds the limit. Please reduce it."),
    501: ("notImplemented", "Not Implemented"),
    503: ("backendError", "We encountered an internal error. Please try again."),
}
_OTHER_4XX = ("badRequest", "Bad Request")
_OTHER_5XX = ("internalError", "Backend Error")
_STATUSES = {"EntityTooLarge": 413}
# The names that the JSON API has for the headers that come back with the bytes.
HEADER_FIELDS = {
    "cacheControl": "cache-control",
    "contentDisposition": "content-disposition",
    "contentEncoding": "content-encoding",
    "contentLanguage": "content-language",
}


def answer(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    all_headers = {"x-guploader-uploadid": uuid4().hex, **(headers or {})}
    return Response(orjson.dumps(body), status, all_headers, "application/json; charset=UTF-8")


def error_response(status: int, reason: str, message: str) -> Response:
    """Return an error in Google's older shape."""
    errors = [{"message": message, "domain": "global", "reason": reason}]
    return answer({"error": {"code": status, "message": message, "errors": errors}}, status)


def plain_failure(status: int) -> Response:
    """Return the error of which only the status is known."""
    return error_response(status, *_BY_STATUS.get(status, _OTHER_5XX if status >= 500 else _OTHER_4XX))


def refused(error: ObjectError, request: Request) -> Response:
    """Return what the bucket refuses, in the words of the JSON API."""
    usual_status, usual_message = ERRORS[error.code]
    status = _STATUSES.get(error.code, usual_status)
    message = error.message or usual_message
    if error.code == "NoSuchKey":
        message = f"No such object: {BUCKET}/{request.path_params['key']}"
    reason, _message = _BY_STATUS.get(status, _OTHER_4XX)
    return error_response(status, reason, message)


def bucket_resource() -> dict[str, Any]:
    """Return the bucket as the API shows it."""
    return {
        "kind": "storage#bucket",
        "id": BUCKET,
        "name": BUCKET,
        "location": "US",
        "locationType": "multi-region",
        "storageClass": "STANDARD",
        "metageneration": "1",
        "etag": "CAE=",
    }


def object_resource(stored: StoredObject, address: str) -> dict[str, Any]:
    """Return an object as the API at `address` shows it."""
    path = f"storage/v1/b/{BUCKET}/o/{quote(stored.key, safe='')}"
    made_at = datetime.fromtimestamp(stored.created_at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    resource = {
        "kind": "storage#object",
        "id": f"{BUCKET}/{stored.key}/{stored.generation}",
        "selfLink": f"{address}/{path}",
        "mediaLink": f"{address}/download/{path}?generation={stored.generation}&alt=media",
        "name": stored.key,
        "bucket": BUCKET,
        "generation": str(stored.generation),
        "metageneration": "1",
        "contentType": stored.content_type,
        "storageClass": "STANDARD",
        "size": str(stored.size_bytes),
        "crc32c": encoded(stored.crc32c),
        "etag": stored.etag,
        "timeCreated": made_at,
        "updated": made_at,
        **{field: stored.headers[name] for field, name in HEADER_FIELDS.items() if name in stored.headers},
    }
    if stored.md5 is not None:
        resource["md5Hash"] = encoded(stored.md5)
    return resource | ({"metadata": stored.metadata} if stored.metadata else {})
