"""Who asks Bedrock: a signature of version 4, of which all but the signature itself is checked, or an API key."""

import re
from datetime import UTC, datetime, timedelta

from starlette.requests import Request

from app.sandbox.bedrock_errors import error_response
from app.sandbox.provider import Refusal, bearer_token

_ALGORITHM = "AWS4-HMAC-SHA256"
_ACCESS_KEY = re.compile(_ALGORITHM + r" Credential=([^/,]+)")
_SIGNATURE = re.compile(
    _ALGORITHM + r" Credential=[^/,]+/(?P<date>\d{8})/[a-z0-9-]+/(?P<service>[a-z0-9-]+)/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), ?Signature=[0-9a-f]{64}"
)
_SERVICE = "bedrock"
_DATE_FORMAT = "%Y%m%dT%H%M%SZ"
_MAX_SKEW = timedelta(minutes=15)


class ApiKey(str):
    """A Bedrock API key: refused in other words than an access key."""


def credential(request: Request) -> str | None:
    """Return the access key id or the API key that the request carries, if any."""
    token = bearer_token(request)
    if token is not None:
        return ApiKey(token)
    found = _ACCESS_KEY.match(request.headers.get("authorization", ""))
    return found[1] if found else None


def check_signature(request: Request) -> None:
    """Refuse a signature that is not well-formed, for another service, too old, or that leaves headers unsigned."""
    authorization = request.headers["authorization"]
    if not authorization.startswith(_ALGORITHM):
        return
    signature = _SIGNATURE.fullmatch(authorization)
    date = request.headers.get("x-amz-date", "")
    if signature is None or not date:
        raise _refusal("IncompleteSignatureException", "Authorization header requires its parameters and X-Amz-Date.")
    if signature["service"] != _SERVICE:
        raise _refusal("InvalidSignatureException", f"Credential should be scoped to correct service: '{_SERVICE}'.")
    _check_date(date, signature["date"])
    sent = {"host", *(name for name in request.headers if name.startswith("x-amz-"))}
    if unsigned := sorted(sent.difference(signature["headers"].split(";"))):
        message = f"'{unsigned[0]}' must be a 'SignedHeader' in the AWS Authorization."
        raise _refusal("InvalidSignatureException", message)


def _check_date(date: str, day: str) -> None:
    try:
        signed_at = datetime.strptime(date, _DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError as error:
        raise _refusal("IncompleteSignatureException", "Date must be in ISO-8601 'basic format'.") from error
    if not date.startswith(day):
        raise _refusal("InvalidSignatureException", "Date in Credential scope does not match that of X-Amz-Date.")
    # The real time, and not that of the sandbox's clock: clients sign by theirs.
    now = datetime.now(UTC)
    if abs(now - signed_at) > _MAX_SKEW:
        message = f"Signature expired: {date} is more than 15 minutes away from {now.strftime(_DATE_FORMAT)}"
        raise _refusal("InvalidSignatureException", message)


def _refusal(kind: str, message: str) -> Refusal:
    return Refusal(error_response(403, kind, message))
