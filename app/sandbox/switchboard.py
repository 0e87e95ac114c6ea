"""The switchboard, /_sandbox: what the providers hold, what goes wrong next, and what time it is.

`account` is the first 8 hex digits of the SHA-256 of the API key, because keys are never shown.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.batches import Batch
from app.sandbox.faults import ANY, Fault, Faults
from app.sandbox.store import Store, StoredFile


class _ClockAdvance(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    advance_seconds: Annotated[int, Field(ge=0)]


class Switchboard:
    """The routes by which tests and demos look into the sandbox and break it."""

    def __init__(self, store: Store, faults: Faults, providers: Sequence[str]) -> None:
        self._store = store
        self._faults = faults
        self._providers = providers

    def routes(self) -> list[Route]:
        """Return the routes, relative to /_sandbox."""
        return [
            Route("/state", self._state, methods=["GET"]),
            Route("/state", self._forget, methods=["DELETE"]),
            Route("/faults", self._list_faults, methods=["GET"]),
            Route("/faults", self._add_fault, methods=["POST"]),
            Route("/faults", self._heal, methods=["DELETE"]),
            Route("/delays", self._release, methods=["DELETE"]),
            Route("/clock", self._advance_clock, methods=["POST"]),
        ]

    async def _state(self, _request: Request) -> Response:
        files = [_shown(file) for file in self._store.everything()]
        uploads = self._store.open_uploads()
        batches = [_shown_batch(batch, self._store.clock.now()) for batch in self._store.all_batches()]
        requests = dict(self._store.requests)
        return JSONResponse({"files": files, "uploads": uploads, "batches": batches, "requests": requests})

    async def _forget(self, _request: Request) -> Response:
        await self._store.clear()
        return Response(status_code=204)

    async def _list_faults(self, _request: Request) -> Response:
        return JSONResponse({"faults": [_dumped(fault) for fault in self._faults]})

    async def _add_fault(self, request: Request) -> Response:
        try:
            fault = Fault.model_validate_json(await request.body())
        except ValidationError as error:
            return _bad_request(error)
        if fault.provider not in (ANY, *self._providers):
            there_are = ", ".join(self._providers)
            message = f"provider: no such provider; there are {there_are} and {ANY}"
            return JSONResponse({"error": {"message": message}}, 400)
        self._faults.add(fault)
        return JSONResponse(_dumped(fault), 201)

    async def _heal(self, _request: Request) -> Response:
        self._faults.clear()
        return Response(status_code=204)

    async def _release(self, _request: Request) -> Response:
        self._faults.release()
        return Response(status_code=204)

    async def _advance_clock(self, request: Request) -> Response:
        try:
            advance = _ClockAdvance.model_validate_json(await request.body())
        except ValidationError as error:
            return _bad_request(error)
        self._store.clock.advance(advance.advance_seconds)
        return JSONResponse({"now": self._store.clock.now()})


def _shown(file: StoredFile) -> dict[str, Any]:
    return {
        "provider": file.provider,
        "account": file.account,
        "id": file.id,
        "filename": file.filename,
        "bytes": file.size_bytes,
        "sha256": file.sha256,
        "purpose": file.purpose,
        "created_at": file.created_at,
    }


def _shown_batch(batch: Batch, now: int) -> dict[str, Any]:
    state = batch.state(now)
    return {
        "provider": batch.provider,
        "account": batch.account,
        "id": batch.id,
        "name": batch.name,
        "state": batch.ending if state == "ended" else state,
        "lines": len(batch.line_seconds),
        "created_at": batch.created_at,
    }


def _dumped(fault: Fault) -> dict[str, Any]:
    return fault.model_dump(exclude_defaults=True) | {"times": fault.times}


def _bad_request(error: ValidationError) -> Response:
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    reason = str(first.get("ctx", {}).get("error", first["msg"]))
    message = f"{where}: {reason}" if where else reason
    return JSONResponse({"error": {"message": message}}, 400)
