"""JSON in and JSON out, for all routes but the chats."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.errors import BadRequest, TooLarge
from app.settings import explain

MAX_BODY_BYTES = 1024 * 1024

Body = TypeVar("Body", bound=BaseModel)


async def parsed(
    request: Request, shape: type[Body], max_bytes: int = MAX_BODY_BYTES, *, optional: bool = False
) -> Body:
    """The request's JSON in the given shape; an `optional` body may be empty. Raises BadRequest that names the field,
    or TooLarge."""
    content = bytearray()
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > max_bytes:
                raise TooLarge(f"the body is over {max_bytes} bytes", code="request_too_large")
    except ClientDisconnect:
        raise BadRequest("the client left before the request was complete", code="client_disconnected") from None
    if optional and not content:
        return shape()
    try:
        return shape.model_validate(orjson.loads(bytes(content)))
    except orjson.JSONDecodeError as failure:
        raise BadRequest(f"the body is not valid JSON: {failure}", code="invalid_json") from None
    except ValidationError as invalid:
        raise bad_field(invalid) from None


def bad_field(invalid: ValidationError) -> BadRequest:
    """pydantic's first complaint as our error."""
    first = invalid.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return BadRequest(f"{field or 'the body'}: {explain(first)}", param=field or None)


def page(data: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """One page of a list, as OpenAI writes it."""
    first_id, last_id = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first_id, "last_id": last_id, "has_more": has_more}


def answer(content: dict[str, Any]) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(content), media_type="application/json")
