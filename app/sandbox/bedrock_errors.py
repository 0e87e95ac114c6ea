"""Bedrock's answers and errors: a type in the header x-amzn-errortype, and {"message"} (wire.md §6a).

The messages are as Bedrock's users report them, and not to be relied on.
"""

from typing import Any
from uuid import uuid4

import orjson
from pydantic import ValidationError
from starlette.responses import Response

from app.sandbox.provider import Refusal

# type and message of an answer that has no cause but its status; 401, 405, 409 and 413 are not in the service model.
_BY_STATUS: dict[int, tuple[str, str]] = {
    401: ("UnrecognizedClientException", "The security token included in the request is invalid."),
    403: ("AccessDeniedException", "You don't have access to the model with the specified model ID."),
    404: ("ResourceNotFoundException", "The resource was not found."),
    405: ("MethodNotAllowedException", "The method is not allowed."),
    408: ("ModelTimeoutException", "Model has timed out in processing the request. Try your request again."),
    409: ("ConflictException", "The request conflicts with another one."),
    413: ("RequestEntityTooLargeException", "The request is too large."),
    424: ("ModelErrorException", "The model failed while it processed the request."),
    429: ("ThrottlingException", "Too many requests, please wait before trying again."),
    503: ("ServiceUnavailableException", "Bedrock is unable to process your request."),
}
_OTHER_4XX = ("ValidationException", "The request was refused.")
_OTHER_5XX = ("InternalServerException", "The system encountered an unexpected error during processing. Try again.")
# What follows the type after a colon is to be cut off by whoever reads it.
_TYPE_SUFFIX = ":http://internal.amazon.com/coral/com.amazon.bedrock/"


def answer_headers() -> dict[str, str]:
    """Return the headers that every answer has."""
    return {"x-amzn-requestid": str(uuid4())}


def answer(body: dict[str, Any]) -> Response:
    """Return a JSON answer."""
    return Response(orjson.dumps(body), 200, answer_headers(), "application/json")


def error_response(status: int, kind: str, message: str, *, key: str = "message") -> Response:
    """Return an error; `key` is the name of the message's member."""
    headers = answer_headers() | {"x-amzn-errortype": kind + _TYPE_SUFFIX}
    return Response(orjson.dumps({key: message}), status, headers, "application/json")


def plain_failure(status: int) -> Response:
    """Return the error of which only the status is known."""
    return error_response(status, *_BY_STATUS.get(status, _OTHER_5XX if status >= 500 else _OTHER_4XX))


def bad_request(message: str) -> Refusal:
    """Return the refusal of a request that is wrong."""
    return Refusal(error_response(400, "ValidationException", message))


def parsed(content: bytes) -> Any:
    """Return the JSON of a body, or refuse it."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Refusal(error_response(400, "SerializationException", f"Invalid JSON: {error}")) from error


def bad_body(error: ValidationError) -> Refusal:
    """Return the refusal of a JSON body that does not fit its shape, for the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    # Members of lists are counted from one: messages.1.member.role.
    where = ".".join(f"{step + 1}.member" if isinstance(step, int) else step for step in first["loc"])
    reason = str(first.get("ctx", {}).get("error", first["msg"]))
    return bad_request(f"1 validation error detected: Value at '{where}' failed to satisfy constraint: {reason}")
