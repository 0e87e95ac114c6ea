"""Google's answers and errors: {"error": {"code", "message", "status", "details"}} (wire.md §4b).

Statuses and reasons are to be relied on, the messages are those that users quote in public issues.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import ValidationError
from pydantic.alias_generators import to_snake
from starlette.responses import Response

from app.sandbox.provider import Refusal

_JSON = "application/json; charset=UTF-8"
_TYPE_URL = "type.googleapis.com/google.rpc"
# The status and message of an answer that has no cause but its HTTP status.
_BY_STATUS: dict[int, tuple[str, str]] = {
    401: (
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential.",
    ),
    403: ("PERMISSION_DENIED", "The caller does not have permission"),
    404: ("NOT_FOUND", "Requested entity was not found."),
    409: ("ALREADY_EXISTS", "Requested entity already exists"),
    429: ("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    500: ("INTERNAL", "An internal error has occurred."),
    501: ("UNIMPLEMENTED", "Operation is not implemented, or supported, or enabled."),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
    504: ("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
}
_OTHER_4XX = ("INVALID_ARGUMENT", "Request contains an invalid argument.")
_OTHER_5XX = ("UNKNOWN", "Unknown error.")


def answer(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    return Response(orjson.dumps(body), status, headers, _JSON)


def error_response(code: int, status: str, message: str, details: Sequence[dict[str, Any]] = ()) -> Response:
    """Return an error in Google's shape."""
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        error["details"] = details
    return answer({"error": error}, code)


def plain_failure(code: int, retry_after_seconds: int | None = None) -> Response:
    """Return the error of which only the HTTP status is known, and perhaps when to come back."""
    status, message = _BY_STATUS.get(code, _OTHER_5XX if code >= 500 else _OTHER_4XX)
    if retry_after_seconds is None:
        return error_response(code, status, message)
    retry = {"@type": f"{_TYPE_URL}.RetryInfo", "retryDelay": f"{retry_after_seconds}s"}
    response = error_response(code, status, message, [retry])
    response.headers["retry-after"] = str(retry_after_seconds)
    return response


def error_info(reason: str, service: str) -> dict[str, Any]:
    """Return the detail that names an error's reason."""
    return {
        "@type": f"{_TYPE_URL}.ErrorInfo",
        "reason": reason,
        "domain": "googleapis.com",
        "metadata": {"service": service},
    }


def invalid_key(service: str) -> Response:
    """Return the answer to a wrong API key: a 400, not a 401; the reason tells it from a wrong request."""
    message = "API key not valid. Please pass a valid API key."
    return error_response(400, "INVALID_ARGUMENT", message, [error_info("API_KEY_INVALID", service)])


def bad_request(message: str, status: str = "INVALID_ARGUMENT") -> Refusal:
    """Return the refusal of a request that is wrong."""
    return Refusal(error_response(400, status, message))


def forbidden(message: str) -> Refusal:
    """Return the refusal of what is missing, or another's: Google does not tell which (wire.md §4b)."""
    return Refusal(error_response(403, "PERMISSION_DENIED", message))


def bad_body(error: ValidationError) -> Refusal:
    """Return the refusal of a JSON body that does not fit its schema, for the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    *parents, name = first["loc"] or ("",)
    reason = str(first.get("ctx", {}).get("error", first["msg"]))
    if first["type"] == "extra_forbidden":
        where = f" at '{_path(parents)}'" if parents else ""
        return _bad_field(
            first["loc"], f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
        )
    if first["type"] == "value_error" and not first["loc"]:
        return bad_request(reason)
    return _bad_field(first["loc"], f"Invalid value at '{_path(first['loc'])}': {reason}")


def _bad_field(location: Sequence[int | str], message: str) -> Refusal:
    violation = {"field": _path(location), "description": message}
    details = [{"@type": f"{_TYPE_URL}.BadRequest", "fieldViolations": [violation]}]
    return Refusal(error_response(400, "INVALID_ARGUMENT", message, details))


def _path(location: Sequence[int | str]) -> str:
    """Return a pydantic location as Google writes it: contents[0].parts[1].file_data."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{to_snake(step)}" for step in location)
    return "".join(steps).removeprefix(".")
