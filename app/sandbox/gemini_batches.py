"""Gemini's batches: operations over the requests in a file, or over those that came along (wire.md §4e).

What is wrong with a request is told by its result; a file that cannot be read fails the batch.
"""

import asyncio
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Annotated, Any, Self
from uuid import uuid4

import orjson
from pydantic import Field, StringConstraints, ValidationError, model_validator
from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.batches import RUN_SECONDS, Batch, failure_of, seconds_of
from app.sandbox.gemini_answers import answer, bad_body, bad_request, plain_failure
from app.sandbox.gemini_completion import Completion
from app.sandbox.gemini_contents import Message
from app.sandbox.gemini_files import GeminiFiles, timestamp
from app.sandbox.gemini_generate import json_body
from app.sandbox.gemini_pages import page
from app.sandbox.gemini_rules import Model
from app.sandbox.provider import Refusal
from app.sandbox.store import Store

# It ends within that long, done or not.
_EXPIRY_SECONDS = 48 * 3600
# After so many answers others have their turn.
_SLICE = 50
_DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE = 10, 100  # [U]
_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch"
_STATES = {"validating": "PENDING", "running": "RUNNING", "cancelling": "RUNNING"}
_ENDINGS = {"done": "SUCCEEDED", "cancelled": "CANCELLED", "expired": "EXPIRED"}
# HTTP status → google.rpc.Code.
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 10, 429: 8, 501: 12, 503: 14, 504: 4}
_INVALID_ARGUMENT, _INTERNAL = 3, 13

# Returns what the model says to a body, or refuses it.
Reply = Callable[[Any, Model, str], Completion]


class _Inlined(Message):
    request: dict[str, Any]
    metadata: dict[str, Any] = Field(default_factory=dict)


class _InlinedRequests(Message):
    requests: Annotated[list[_Inlined], Field(min_length=1)]


class _InputConfig(Message):
    file_name: Annotated[str, StringConstraints(pattern="^files/.")] | None = None
    requests: _InlinedRequests | None = None

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.file_name is None) == (self.requests is None):
            raise ValueError("one of file_name and requests must be set")
        return self


class _WantedBatch(Message):
    display_name: str | None = None
    input_config: _InputConfig
    priority: str | int | None = None


class _WantedOperation(Message):
    batch: _WantedBatch


class _FileLine(Message):
    key: Annotated[str, Field(min_length=1)]
    request: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class _GenerateContentBatch(Batch):
    model: Model
    # The file that the requests are in, if they are in one.
    file_name: str | None
    # Whether each request is answered well, and its result as JSON.
    successes: Sequence[bool] = field(repr=False)
    results: Sequence[bytes] = field(repr=False)
    # Why the batch as a whole fails.
    failure: str | None = None
    # What the address of a file begins with, and how one is made.
    top: str
    generate: Callable[[str, Iterable[bytes], int], None] = field(repr=False)

    def finish(self) -> None:
        """Make the file of the responses; there are none of a batch that was cancelled or has expired."""
        if self.file_name is not None and self.ending == "done" and self.failure is None:
            lines = (result + b"\n" for result in self.results)
            self.generate(f"{self.top}/files/{self._responses_name}", lines, self.ended_at)

    def shown(self, now: int) -> dict[str, Any]:
        """Return the batch as the API shows it, an operation."""
        ended, state = self.state(now) == "ended", self._state(now)
        metadata = {
            "@type": _TYPE,
            "name": f"batches/{self.id}",
            "model": f"models/{self.model.name}",
            "displayName": self.name,
            "inputConfig": {"fileName": self.file_name} if self.file_name else {},
            "createTime": timestamp(self.created_at),
            "updateTime": timestamp(self.ended_at if ended else self.created_at),
            "batchStats": self._stats(now),
            "state": f"BATCH_STATE_{state}",
        }
        shown: dict[str, Any] = {"name": f"batches/{self.id}", "metadata": metadata}
        if ended:
            metadata["endTime"] = timestamp(self.ended_at)
            shown["done"] = True
        if state == "SUCCEEDED":
            metadata["output"] = self._output()
            shown["response"] = {"@type": _TYPE, **self._output()}
        if state == "FAILED":
            shown["error"] = {"code": _INVALID_ARGUMENT, "message": self.failure}
        return shown

    def _state(self, now: int) -> str:
        state = self.state(now)
        if state != "ended":
            return _STATES[state]
        return "FAILED" if self.failure is not None and self.ending == "done" else _ENDINGS[self.ending]

    def _output(self) -> dict[str, Any]:
        if self.file_name is not None:
            return {"responsesFile": f"files/{self._responses_name}"}
        return {"inlinedResponses": {"inlinedResponses": [orjson.Fragment(result) for result in self.results]}}

    @property
    def _responses_name(self) -> str:
        return f"batch-{self.id}"

    def _stats(self, now: int) -> dict[str, str]:
        """Return the counts, which are int64; proto3 leaves those out that are 0."""
        done = [self.has_run(index, now) for index in range(len(self.results))]
        successful = sum(compress(self.successes, done))
        counts = {
            "requestCount": len(done),
            "successfulRequestCount": successful,
            "failedRequestCount": sum(done) - successful,
            "pendingRequestCount": len(done) - sum(done),
        }
        return {name: str(count) for name, count in counts.items() if count}


class _Results:
    """What becomes of each request: how long it takes, whether it is answered well, and its result as JSON."""

    def __init__(self, reply: Callable[[Any], Completion]) -> None:
        self._reply = reply
        self.seconds = array("I")
        self.successes: list[bool] = []
        self.results: list[bytes] = []

    async def add(self, requests: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """Answer further requests, each with what its result begins with."""
        for head, body in requests:
            result, seconds = outcome(self._reply, body)
            self.seconds.append(seconds)
            self.successes.append("response" in result)
            self.results.append(orjson.dumps(head | result))
            if len(self.results) % _SLICE == 0:
                await asyncio.sleep(0)


def _inlined(requests: Iterable[_Inlined]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    return (({"metadata": one.metadata} if one.metadata else {}, one.request) for one in requests)


class _BadFile(Exception):
    """What is wrong with the file that the requests are in."""


def _in_file(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    keys: set[str] = set()
    with path.open("rb") as lines:
        for number, text in enumerate(lines, 1):
            try:
                line = _FileLine.model_validate(orjson.loads(text))
            except ValueError as error:
                raise _BadFile(f"Failed to parse line {number} of the file: {str(error).splitlines()[0]}") from error
            if line.key in keys:
                raise _BadFile(f"The key of line {number} of the file is that of another line: {line.key}")
            keys.add(line.key)
            yield {"key": line.key}, line.request


def outcome(reply: Callable[[Any], Completion], body: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return what becomes of one request, `response` or `error`, and how long it takes."""
    try:
        completion = reply({name: value for name, value in body.items() if name != "model"})
    except Refusal as refused:
        return {"error": _status(refused.response)}, RUN_SECONDS
    if status := failure_of(completion.asked):
        return {"error": _status(plain_failure(status))}, seconds_of(completion.asked)
    return {"response": completion.body()}, seconds_of(completion.asked)


def _status(response: Response) -> dict[str, Any]:
    """Return the google.rpc.Status of an answer's error."""
    default = _INTERNAL if response.status_code >= 500 else _INVALID_ARGUMENT
    message = orjson.loads(response.body)["error"]["message"]
    return {"code": _CODES.get(response.status_code, default), "message": message}


class GeminiBatches:
    """The endpoints of the batches."""

    def __init__(self, provider: str, store: Store, files: GeminiFiles, reply: Reply) -> None:
        self._provider = provider
        self._store = store
        self._files = files
        self._reply = reply

    async def create(self, request: Request, model: Model, account: str) -> Response:
        """Create a batch."""
        try:
            wanted = _WantedOperation.model_validate(await json_body(request)).batch
        except ValidationError as error:
            raise bad_body(error) from error
        config, failure = wanted.input_config, None

        def reply(body: Any) -> Completion:
            return self._reply(body, model, account)

        results = _Results(reply)
        try:
            await results.add(self._requests(config, account))
        except _BadFile as error:
            results, failure = _Results(reply), str(error)
        batch = _GenerateContentBatch(
            provider=self._provider,
            account=account,
            # Ids fall with time: a list has the newest first.
            id=f"{2**63 - time.time_ns():016x}{uuid4().hex[:6]}",
            name=wanted.display_name,
            created_at=self._store.clock.now(),
            line_seconds=results.seconds,
            expiry_seconds=_EXPIRY_SECONDS,
            model=model,
            file_name=config.file_name,
            successes=results.successes,
            results=results.results,
            failure=failure,
            top=str(request.url.replace(path=request.url.path.partition("/models/")[0], query="")),
            generate=partial(self._files.generate, account),
        )
        self._store.add_batch(batch)
        return answer(batch.shown(self._store.clock.now()))

    def _requests(self, config: _InputConfig, account: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        if config.requests is not None:
            return _inlined(config.requests.requests)
        return _in_file(self._files.require((config.file_name or "").removeprefix("files/"), account).path)

    async def list_page(self, request: Request, account: str) -> Response:
        """Answer one page of the account's batches, the newest first [U]."""
        batches = sorted(self._store.batches_of(self._provider, account), key=lambda batch: batch.id)
        ids = [batch.id for batch in batches]
        wanted, more = page(request, ids, default_size=_DEFAULT_PAGE_SIZE, max_size=_MAX_PAGE_SIZE)
        now = self._store.clock.now()
        shown = [batch.shown(now) for batch in batches[wanted] if isinstance(batch, _GenerateContentBatch)]
        return answer({"operations": shown} | more if shown else {})  # proto3 leaves an empty list out

    async def retrieve(self, request: Request, account: str) -> Response:
        """Answer one batch."""
        return answer(self._find(request, account).shown(self._store.clock.now()))

    async def cancel(self, request: Request, account: str) -> Response:
        """Ask for a batch to be cancelled; one that has ended is refused [U]."""
        batch, now = self._find(request, account), self._store.clock.now()
        if batch.state(now) == "ended":
            raise bad_request(f"Batch {batch.id} has ended.", "FAILED_PRECONDITION")
        batch.cancel(now)
        return answer({})

    async def delete(self, request: Request, account: str) -> Response:
        """Delete a batch, but not the file that it has made."""
        self._store.remove_batch(self._find(request, account))
        return answer({})

    def _find(self, request: Request, account: str) -> _GenerateContentBatch:
        batch = self._store.find_batch(self._provider, account, request.path_params["batch_id"])
        if not isinstance(batch, _GenerateContentBatch):
            raise Refusal(plain_failure(404))  # or a 403, as for files [U]
        return batch
