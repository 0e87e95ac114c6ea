"""OpenAI's answers and errors: {"error": {"message", "type", "param", "code"}}, always all four (wire.md §1b).

The exact strings are unverified (wire.md §8.6): statuses and codes are to be relied on, messages are not.
"""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import orjson
from pydantic import ValidationError
from starlette.responses import Response

from app.sandbox.provider import Refusal

# type, code and message of an answer that has no cause but its status.
_BY_STATUS: dict[int, tuple[str, str | None, str]] = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("permission_error", None, "You do not have access to this resource."),
    404: ("invalid_request_error", None, "Not found."),
    405: ("invalid_request_error", "method_not_supported", "Method not allowed."),
    413: ("invalid_request_error", None, "The request is too large."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    503: ("server_error", None, "The engine is currently overloaded, please try again later."),
}
_OTHER_4XX = ("invalid_request_error", None, "The request was refused.")
_OTHER_5XX = ("server_error", None, "The server had an error while processing your request.")


def answer_headers() -> dict[str, str]:
    """Return the headers that every answer has (wire.md §8.7)."""
    return {"x-request-id": f"req_{uuid4().hex}", "openai-version": "2020-10-01"}


def answer(body: dict[str, Any], status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(orjson.dumps(body), status, answer_headers(), "application/json")


def error_response(
    status: int, message: str, *, param: str | None = None, code: str | None = None, kind: str | None = None
) -> Response:
    """Return an error in OpenAI's shape."""
    error = {"message": message, "type": kind or "invalid_request_error", "param": param, "code": code}
    return answer({"error": error}, status)


def plain_failure(status: int) -> Response:
    """Return the error of which only the status is known."""
    kind, code, message = _BY_STATUS.get(status, _OTHER_5XX if status >= 500 else _OTHER_4XX)
    return error_response(status, message, code=code, kind=kind)


def bad_request(message: str, param: str | None = None, code: str | None = None) -> Refusal:
    """Return the refusal of a request that is wrong."""
    return Refusal(error_response(400, message, param=param, code=code))


def bad_body(error: ValidationError) -> Refusal:
    """Return the refusal of a JSON body that does not fit its schema, for the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    param, reason = _param(first["loc"]), str(first.get("ctx", {}).get("error", first["msg"]))
    match first["type"]:
        case "missing":
            return bad_request(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
        case "extra_forbidden" if len(first["loc"]) == 1:
            return bad_request(f"Unrecognized request argument supplied: {param}")
        case "extra_forbidden":
            return bad_request(f"Unknown parameter: '{param}'.", param, "unknown_parameter")
        case "value_error" if not param:
            return bad_request(reason)
        case "literal_error" | "union_tag_invalid" | "union_tag_not_found":
            return bad_request(f"Invalid value for '{param}': {reason}.", param, "invalid_value")
        case kind if kind.endswith("_type"):
            return bad_request(f"Invalid type for '{param}': {reason}.", param, "invalid_type")
    return bad_request(f"Invalid '{param}': {reason}.", param, "invalid_value")


def _param(location: Sequence[int | str]) -> str:
    """Return a pydantic location as OpenAI writes it: messages[0].content[1].file.

    Lists hold unions here, and pydantic names the member of the union after the index: that name is left out.
    """
    param, after_index = "", False
    for step in location:
        if isinstance(step, int):
            param += f"[{step}]"
        elif not after_index:
            param += f".{step}" if param else step
        after_index = isinstance(step, int)
    return param
