"""GET /openapi.json: the description in `openapi.json` beside this file, which the tests hold to the routes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response


async def endpoint(request: Request) -> Response:
    """GET /openapi.json."""
    return Response(description(), media_type="application/json")


@cache
def description() -> bytes:
    """The OpenAPI 3.1 document."""
    return (Path(__file__).with_name("openapi.json")).read_bytes()
