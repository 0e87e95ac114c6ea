"""What every simulated provider has in common: accounts, counted operations that faults can reach, refusals."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from app.sandbox.blobs import Discarded, corrupts
from app.sandbox.exchange import Exchange
from app.sandbox.faults import Faults
from app.sandbox.store import Store, account_digest

Endpoint = Callable[[Request, str], Awaitable[Response]]
OperationName = str | Callable[[Request], Awaitable[str]]

# The operations whose request body is the file, so that a fault slows or cuts the request and not the answer.
_UPLOADS = frozenset({"upload_file"})


class Refusal(Exception):
    """The provider's own answer to a request that it does not serve."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def bearer_token(request: Request) -> str | None:
    """Return the token of an `Authorization: Bearer` header."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


class Provider(ABC):
    """A simulated provider: its routes below `prefix`, and its way to say no.

    An endpoint gets the request and the account (a digest of the key), and answers or raises Refusal.
    """

    name: ClassVar[str]
    prefix: ClassVar[str]

    def __init__(self, store: Store, faults: Faults) -> None:
        self.store = store
        self.faults = faults

    @abstractmethod
    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes, relative to `prefix`."""

    @abstractmethod
    def credential(self, request: Request) -> str | None:
        """Return the API key that the request carries, if any."""

    @abstractmethod
    def unauthorized(self, credential: str | None) -> Response:
        """Return the answer to a missing (None) or wrong key."""

    @abstractmethod
    def failure(self, status: int) -> Response:
        """Return the answer that has this status and no further cause: a fault, an unknown route."""

    def failing(self, status: int, retry_after_seconds: int | None) -> Response:
        """Return the answer of a fault, with the time to come back after if the fault has one."""
        response = self.failure(status)
        if retry_after_seconds is not None:
            response.headers["retry-after"] = str(retry_after_seconds)
        return response

    def operation(self, name: OperationName, endpoint: Endpoint) -> "Operation":
        """Return `endpoint` as an ASGI app; a `name` that depends on the request is a function of it."""
        return Operation(self, name, endpoint)

    def app(self) -> Starlette:
        """Return the provider as an ASGI app whose 404 and 405 are the provider's own."""

        async def fail(_request: Request, error: Exception) -> Response:
            assert isinstance(error, HTTPException)
            response = self.failure(error.status_code)
            response.headers.update(error.headers or {})
            return response

        app = Starlette(routes=self.routes(), exception_handlers={HTTPException: fail})
        app.router.redirect_slashes = False
        return app


class Operation:
    """One operation of a provider, as an ASGI app: counted, exposed to faults, then authenticated and done."""

    def __init__(self, provider: Provider, name: OperationName, endpoint: Endpoint) -> None:
        self._provider = provider
        self._name = name
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        exchange = Exchange(scope, receive, send)
        request = Request(scope, exchange.receive)
        try:
            response = await self._respond(request, exchange)
            await response(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            pass  # nobody is left to be answered
        finally:
            await exchange.end()

    async def _respond(self, request: Request, exchange: Exchange) -> Response:
        provider = self._provider
        name = self._name if isinstance(self._name, str) else await self._name(request)
        provider.store.requests[f"{provider.name}.{name}"] += 1
        credential = provider.credential(request)
        account = account_digest(credential or "")
        fault = provider.faults.take(provider.name, name, account)
        corrupts.set(fault is not None and fault.corrupt)
        if fault is not None:
            await exchange.meet(fault, provider.faults.released, uploads=name in _UPLOADS)
            if fault.status is not None:
                return provider.failing(fault.status, fault.retry_after_seconds)
        if not credential or credential.startswith("bad"):
            return provider.unauthorized(credential)
        try:
            return await self._endpoint(request, account)
        except Refusal as refusal:
            return refusal.response
        except Discarded:
            return provider.failure(404)  # the sandbox was told to forget the upload while bytes of it came
