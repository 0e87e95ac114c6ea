"""JSON in and JSON out for the admin routes."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.errors import BadRequest, TooLarge
from app.settings import explain

MAX_BODY_BYTES = 1024 * 1024

Body = TypeVar("Body", bound=BaseModel)


async def parsed(request: Request, shape: type[Body]) -> Body:
    """The request's JSON in the given shape. Raises BadRequest that names the field."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise TooLarge(f"the body is over {MAX_BODY_BYTES} bytes", code="request_too_large")
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


def answer(content: dict[str, Any]) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(content), media_type="application/json")
