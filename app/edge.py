"""The outermost layer of each request: its id, its errors in OpenAI's envelope, one line of log, one count."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog
from prometheus_client import Counter
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route, Router

from app import ids
from app.errors import GatewayError, Internal, MethodNotAllowed, Overloaded
from app.hangup import HungUp

log = structlog.get_logger("filemux.request")

REQUESTS = Counter("filemux_requests", "Requests, by route and status", ["route", "status"])

# nginx's status for a client that left before its answer.
CLIENT_CLOSED_REQUEST = 499
# Every OpenAI path answers under each of these, and bare; the longest first.
PREFIXES = ("/openai/v1", "/v1", "/openai")
# These name a provider whose own files are meant; OpenAI's would be mistaken for a prefix.
_PROVIDER = re.compile(r"/(azure|anthropic|gemini|vertex_ai|bedrock)(?:/v1)?(?=/(?:files|batches)(?:/|$))")

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Edge:
    """Wraps the routes."""

    def __init__(self, app: Router) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        """One request, or the lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(send)
        _route(scope)
        scope["app"] = self
        try:
            await self._app(scope, receive, exchange.send)
        except GatewayError as failure:
            await exchange.fail(failure)
        except asyncio.CancelledError:
            # By the end of the grace period alone.
            await exchange.fail(Overloaded("the gateway is being stopped", retry_after_seconds=1))
        except HungUp:
            exchange.status = CLIENT_CLOSED_REQUEST
        except HTTPException:
            # The router raises it for a known path with another verb.
            await exchange.fail(MethodNotAllowed(scope["method"], self._allowed(scope)))
        except Exception:
            log.exception("a bug", request_id=exchange.request_id)
            await exchange.fail(Internal(f"an internal error; the request id is {exchange.request_id}"))
        finally:
            exchange.log(scope)

    def _allowed(self, scope: Message) -> set[str]:
        """The verbs of a path; the router knows only the first route's."""
        found = (route for route in self._app.routes if isinstance(route, Route))
        return {verb for route in found if route.matches(scope)[0] is not Match.NONE for verb in route.methods or ()}


class _Exchange:
    """What is remembered of one request until its log line."""

    __slots__ = ("_send", "_started", "error", "request_id", "status")

    def __init__(self, send: Send) -> None:
        self.request_id = ids.new_request_id()
        self.status: int = 0
        self.error: str | None = None
        self._send = send
        self._started = time.perf_counter()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
        await self._send(message)

    async def fail(self, failure: GatewayError) -> None:
        self.error = failure.code or type(failure).__name__
        if self.status:
            # The answer has begun; cutting it off is all that is left to say.
            return
        body = failure.body()
        headers = [(name.encode(), value.encode()) for name, value in failure.headers().items()]
        headers.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": failure.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def log(self, scope: Message) -> None:
        route = _route_name(scope.get("endpoint"))
        REQUESTS.labels(route, self.status).inc()
        caller = scope["state"].get("caller")
        log.info(
            "request",
            request_id=self.request_id,
            method=scope["method"],
            route=route,
            status=self.status,
            seconds=round(time.perf_counter() - self._started, 6),
            team=caller.team_id if caller else None,
            key=caller.key_id if caller else None,
            error=self.error,
        )


def _route(scope: Message) -> None:
    """Take what stands before the routes off the path, and note the provider that it names."""
    # A file's id may hold slashes, encoded: it is decoded where it is read (app.files.direct.address).
    raw_path = scope["raw_path"].decode()
    path = raw_path if "/files/" in raw_path or "/batches/" in raw_path else scope["path"]
    if found := _PROVIDER.match(path):
        scope["state"]["provider"] = found[1]
        scope["path"] = path[found.end() :]
    else:
        scope["path"] = _without_prefix(path)


def _without_prefix(path: str) -> str:
    for prefix in PREFIXES:
        if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] == "/":
            return path[len(prefix) :]
    return path


def _route_name(endpoint: Any) -> str:
    """`files.upload`, from the module that answers; a path would hold ids and names."""
    if endpoint is None:
        return "none"
    module = endpoint.__module__.removeprefix("app.")
    verb = endpoint.__name__.removesuffix("endpoint").removesuffix("_")
    return f"{module}.{verb}" if verb else module
