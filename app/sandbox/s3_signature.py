"""Who asks S3: a signature of version 4, of which all but the signature itself is checked (wire.md §6a).

The sandbox takes every secret, so there is nothing that the signature itself could be compared with.
"""

import re
from datetime import UTC, datetime, timedelta

from starlette.requests import Request

from app.sandbox.objects import ObjectError

_ALGORITHM = "AWS4-HMAC-SHA256"
_ACCESS_KEY = re.compile(_ALGORITHM + r" Credential=([^/,]+)")
_SIGNATURE = re.compile(
    _ALGORITHM + r" Credential=[^/,]+/(?P<date>\d{8})/[a-z0-9-]+/(?P<service>[a-z0-9-]+)/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), ?Signature=[0-9a-f]{64}"
)
_DATE_FORMAT = "%Y%m%dT%H%M%SZ"
_MAX_SKEW = timedelta(minutes=15)
_PAYLOAD = re.compile(r"[0-9a-f]{64}|UNSIGNED-PAYLOAD|STREAMING-UNSIGNED-PAYLOAD-TRAILER")


def access_key(request: Request) -> str | None:
    """Return the access key id that the request carries, if any."""
    found = _ACCESS_KEY.match(request.headers.get("authorization", ""))
    return found[1] if found else None


def check_signature(request: Request) -> None:
    """Refuse a signature that is not well-formed, for another service, too old, or that leaves headers unsigned."""
    headers = request.headers
    signature = _SIGNATURE.fullmatch(headers["authorization"])
    if signature is None:
        raise ObjectError("AuthorizationHeaderMalformed")
    if signature["service"] != "s3":
        message = f'incorrect service "{signature["service"]}". This endpoint belongs to "s3".'
        raise ObjectError("AuthorizationHeaderMalformed", f"The authorization header is malformed; {message}")
    _check_date(headers.get("x-amz-date", ""), signature["date"])
    must_sign = {"host", *(name for name in headers if name.startswith(("x-amz-", "content-md5")))}
    if unsigned := sorted(must_sign.difference(signature["headers"].split(";"))):
        message = f"There were headers present in the request which were not signed: {', '.join(unsigned)}"
        raise ObjectError("AccessDenied", message)
    payload = headers.get("x-amz-content-sha256")
    if payload is None:
        message = "Missing required header for this request: x-amz-content-sha256"
        raise ObjectError("InvalidRequest", message)
    if not _PAYLOAD.fullmatch(payload):
        raise ObjectError("InvalidArgument", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, or a valid sha256 value.")


def _check_date(date: str, day: str) -> None:
    try:
        signed_at = datetime.strptime(date, _DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError as error:
        raise ObjectError("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from error
    if not date.startswith(day):
        raise ObjectError(
            "AuthorizationHeaderMalformed", "The authorization header is malformed; Invalid credential date"
        )
    # The real time, and not that of the sandbox's clock: clients sign by theirs.
    if abs(datetime.now(UTC) - signed_at) > _MAX_SKEW:
        raise ObjectError("RequestTimeTooSkewed")
