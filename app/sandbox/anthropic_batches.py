"""Anthropic's Message Batches API (wire.md §3e).

What is wrong with a message's params is told by its result, and not by the answer to the batch.
"""

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from typing import Annotated, Any
from uuid import uuid4

import orjson
from pydantic import Field, StringConstraints, ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.sandbox.anthropic_answer import Answer
from app.sandbox.anthropic_blocks import Strict
from app.sandbox.anthropic_errors import answer, answer_headers, bad_body, bad_request, error_response, refusal
from app.sandbox.anthropic_files import rfc3339
from app.sandbox.anthropic_pages import page_by_id, require_known
from app.sandbox.batches import RUN_SECONDS, Batch, failure_of, seconds_of
from app.sandbox.provider import Refusal
from app.sandbox.store import Store

_MAX_BODY_BYTES = 256 * 1024**2
_MAX_REQUESTS = 100_000
_RESULTS_SECONDS = 29 * 24 * 3600
# After so many answers others have their turn.
_SLICE = 50
_KINDS = ("processing", "succeeded", "errored", "canceled", "expired")
_ENDINGS = {"cancelled": "canceled", "expired": "expired"}


class _BatchRequest(Strict):
    custom_id: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    params: dict[str, Any]


class _BatchesRequest(Strict):
    requests: Annotated[list[_BatchRequest], Field(min_length=1, max_length=_MAX_REQUESTS)]


@dataclass(frozen=True, slots=True)
class _Line:
    custom_id: str
    kind: str
    # JSON of what it says when it has run.
    result: bytes


@dataclass(slots=True, kw_only=True)
class _MessageBatch(Batch):
    lines: list[_Line] = field(default_factory=list, repr=False)

    def kinds(self, now: int) -> Iterator[str]:
        """Yield how each line has ended: none has while the batch has not."""
        if self.state(now) != "ended":
            return repeat("processing", len(self.lines))
        ending = _ENDINGS.get(self.ending, "processing")
        return (line.kind if self.has_run(index, now) else ending for index, line in enumerate(self.lines))

    def results(self, now: int) -> Iterator[bytes]:
        """Yield the lines of the results, which come in any order: the last one first."""
        for line, kind in reversed([*zip(self.lines, self.kinds(now), strict=True)]):
            result = orjson.Fragment(line.result) if kind == line.kind else {"type": kind}
            yield orjson.dumps({"custom_id": line.custom_id, "result": result}) + b"\n"


class AnthropicBatches:
    """The endpoints of the Message Batches API; `reply` lets the model answer params of a version for an account."""

    def __init__(self, provider: str, store: Store, reply: Callable[[Any, str, str], Answer]) -> None:
        self._provider = provider
        self._store = store
        self._reply = reply

    async def create(self, request: Request, account: str) -> Response:
        """Create a batch."""
        requests, version = await _requests(request), request.headers["anthropic-version"]
        lines, line_seconds = [], array("I")
        for number, one in enumerate(requests):
            line, seconds = self._answered(one, version, account)
            lines.append(line)
            line_seconds.append(seconds)
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        batch = _MessageBatch(
            provider=self._provider,
            account=account,
            id=f"msgbatch_01{time.time_ns():016x}{uuid4().hex[:6]}",
            name=None,
            created_at=self._store.clock.now(),
            line_seconds=line_seconds,
            lines=lines,
        )
        self._store.add_batch(batch)
        return answer(self._shown(request, batch))

    def _answered(self, one: _BatchRequest, version: str, account: str) -> tuple[_Line, int]:
        """Return a line with its result, and how long it takes."""
        try:
            if one.params.get("stream"):
                raise bad_request("stream: a batch does not stream")
            if one.params.get("max_tokens") == 0:
                raise bad_request("max_tokens: a batch takes no 0")
            reply = self._reply(one.params, version, account)
        except Refusal as refused:
            return _errored(one.custom_id, refused.response), RUN_SECONDS
        if status := failure_of(reply.asked):
            return _errored(one.custom_id, error_response(status)), seconds_of(reply.asked)
        result = {"type": "succeeded", "message": reply.body()}
        return _Line(one.custom_id, "succeeded", orjson.dumps(result)), seconds_of(reply.asked)

    async def list_page(self, request: Request, account: str) -> Response:
        """Answer one page of the account's batches, newest first."""
        require_known(request.query_params, ("limit", "before_id", "after_id"))
        batches = self._store.batches_of(self._provider, account)[::-1]
        return answer(page_by_id([self._shown(request, batch) for batch in batches], request.query_params))

    async def retrieve(self, request: Request, account: str) -> Response:
        """Answer one batch."""
        return answer(self._shown(request, self._find(request, account)))

    async def cancel(self, request: Request, account: str) -> Response:
        """Ask for a batch to be cancelled; one that has ended is refused [U]."""
        batch, now = self._find(request, account), self._store.clock.now()
        if batch.state(now) == "ended":
            raise bad_request(f"Message batch {batch.id} has ended and cannot be canceled.")
        batch.cancel(now)
        return answer(self._shown(request, batch))

    async def delete(self, request: Request, account: str) -> Response:
        """Delete a batch that has ended, and its results."""
        batch = self._find(request, account)
        self._require_ended(batch)
        self._store.remove_batch(batch)
        return answer({"id": batch.id, "type": "message_batch_deleted"})

    async def read(self, request: Request, account: str) -> Response:
        """Answer the results of a batch that has ended."""
        batch, now = self._find(request, account), self._store.clock.now()
        self._require_ended(batch)
        if self._is_archived(batch):
            raise refusal(404, f"The results of message batch {batch.id} are no longer available.")
        return StreamingResponse(
            _chunks(batch.results(now)), headers=answer_headers(), media_type="application/x-jsonl"
        )

    def _find(self, request: Request, account: str) -> _MessageBatch:
        batch_id = request.path_params["batch_id"]
        batch = self._store.find_batch(self._provider, account, batch_id)
        if not isinstance(batch, _MessageBatch):
            raise refusal(404, f"Message batch not found: {batch_id}")
        return batch

    def _require_ended(self, batch: Batch) -> None:
        if batch.state(self._store.clock.now()) != "ended":
            raise bad_request(f"Message batch {batch.id} is still in progress.")

    def _is_archived(self, batch: Batch) -> bool:
        return self._store.clock.now() >= batch.created_at + _RESULTS_SECONDS

    def _shown(self, request: Request, batch: Batch) -> dict[str, Any]:
        assert isinstance(batch, _MessageBatch)
        now = self._store.clock.now()
        state, archived = batch.state(now), self._is_archived(batch)
        # Absolute, and of the host that was asked (wire.md §3f).
        path = f"{request.url.path.partition('/v1/')[0]}/v1/messages/batches/{batch.id}/results"
        counts = Counter(batch.kinds(now))
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": {"ended": "ended", "cancelling": "canceling"}.get(state, "in_progress"),
            "request_counts": {kind: counts[kind] for kind in _KINDS},
            "created_at": rfc3339(batch.created_at),
            "expires_at": rfc3339(batch.expires_at),
            "ended_at": rfc3339(batch.ended_at) if state == "ended" else None,
            "cancel_initiated_at": None if batch.cancelled_at is None else rfc3339(batch.cancelled_at),
            "archived_at": rfc3339(batch.created_at + _RESULTS_SECONDS) if archived else None,
            "results_url": str(request.url.replace(path=path, query="")) if state == "ended" and not archived else None,
        }


async def _requests(request: Request) -> list[_BatchRequest]:
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise bad_request("The body of a message batch is application/json.")
    body = await request.body()
    if len(body) > _MAX_BODY_BYTES:
        raise refusal(413, f"Request exceeds the maximum size of {_MAX_BODY_BYTES} bytes.")
    try:
        requests = _BatchesRequest.model_validate(orjson.loads(body)).requests
    except orjson.JSONDecodeError as error:
        raise bad_request("The request body is not valid JSON.", code="request_body_encoding_invalid") from error
    except ValidationError as error:
        raise bad_body(error) from error
    custom_ids = Counter(one.custom_id for one in requests)
    if twice := next((custom_id for custom_id, count in custom_ids.items() if count > 1), None):
        raise bad_request(f"requests: custom_id must be unique within a batch: {twice}")
    return requests


def _errored(custom_id: str, response: Response) -> _Line:
    """Return the line of a message that is answered with an error."""
    return _Line(custom_id, "errored", b'{"type":"errored","error":%s}' % bytes(response.body))


async def _chunks(results: Iterator[bytes]) -> AsyncIterator[bytes]:
    for result in results:
        yield result
