"""Anthropic's answers and errors: {"type": "error", "error": {"type", "message", "details"}, "request_id"}.

Types and codes are those of wire.md §3b; the messages are as the API words them, and not to be relied on.
"""

from typing import Any
from uuid import uuid4

import orjson
from pydantic import ValidationError
from starlette.responses import Response

from app.sandbox.provider import Refusal

# type and message of an answer that has no cause but its status.
_BY_STATUS: dict[int, tuple[str, str]] = {
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low to access the Anthropic API."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "Not found"),
    405: ("invalid_request_error", "Method Not Allowed"),
    409: ("conflict_error", "The request conflicts with another one."),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your rate limit."),
    504: ("timeout_error", "Request timed out"),
    529: ("overloaded_error", "Overloaded"),
}
_OTHER_4XX = ("invalid_request_error", "The request was refused.")
_OTHER_5XX = ("api_error", "Internal server error")


def answer_headers() -> dict[str, str]:
    """Return the headers that every answer has (wire.md §3a)."""
    return {"request-id": f"req_011{uuid4().hex[:21]}"}


def answer(body: dict[str, Any]) -> Response:
    """Return a JSON answer."""
    return Response(orjson.dumps(body), 200, answer_headers(), "application/json")


def error_response(status: int, message: str | None = None, *, code: str | None = None) -> Response:
    """Return the error of this status, with the documented code of its cause if there is one."""
    kind, default = _BY_STATUS.get(status, _OTHER_5XX if status >= 500 else _OTHER_4XX)
    details = None if code is None else {"error_code": code}
    headers = answer_headers()
    error = {"type": kind, "message": message or default, "details": details}
    body = {"type": "error", "error": error, "request_id": headers["request-id"]}
    return Response(orjson.dumps(body), status, headers, "application/json")


def refusal(status: int, message: str, *, code: str | None = None) -> Refusal:
    """Return the refusal of a request."""
    return Refusal(error_response(status, message, code=code))


def bad_request(message: str, *, code: str | None = None) -> Refusal:
    """Return the refusal of a request that is wrong."""
    return refusal(400, message, code=code)


def bad_body(error: ValidationError) -> Refusal:
    """Return the refusal of a JSON body that does not fit its schema, for the first thing that is wrong.

    Anthropic's own words are pydantic's, so that these are near: `messages.0.user.content: Field required`.
    """
    first = error.errors(include_url=False)[0]
    reason = str(first.get("ctx", {}).get("error", first["msg"]))
    where = ".".join(map(str, first["loc"]))
    return bad_request(f"{where}: {reason}" if where else reason)
