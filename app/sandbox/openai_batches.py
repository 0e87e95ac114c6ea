"""OpenAI's Batch API (wire.md §1e), with the rules in which Azure's differs as data (§2e)."""

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, MutableSequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol
from uuid import uuid4

import orjson
from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.batches import EXPIRY_SECONDS, VALIDATING_SECONDS, Batch
from app.sandbox.openai_answers import answer, bad_body, bad_request, error_response
from app.sandbox.openai_batch_lines import Inspection, answered_line, lines_of, unanswered_line
from app.sandbox.openai_chat import Metadata
from app.sandbox.openai_files import mint_file_id
from app.sandbox.openai_pages import after, limit_of, page_answer, require_known
from app.sandbox.openai_parts import Strict
from app.sandbox.provider import Refusal
from app.sandbox.store import Store, StoredFile

_DEFAULT_LIST_LIMIT, _MAX_LIST_LIMIT = 20, 100
_NEVER_SECONDS = 2**32
_UNRUN = {
    "cancelled": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
}
_MOMENTS = tuple(
    f"{moment}_at"
    for moment in ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
)
_GONE = {"code": "input_modified", "message": "The input file was deleted.", "param": "input_file_id", "line": None}


@dataclass(frozen=True, kw_only=True)
class BatchRules:
    """What one provider of this API accepts and does differently from another."""

    endpoints: frozenset[str] = frozenset({"/v1/chat/completions"})
    list_parameters: frozenset[str] = frozenset({"after", "limit"})
    # A batch that takes too long ends.
    expires: bool = True
    # A completed batch has an error file though no line has failed.
    always_error_file: bool = False
    # To cancel what has ended is refused with this; OpenAI's status is unverified.
    ended_status: int = 409


class Model(Protocol):
    """What answers the lines."""

    def is_model(self, name: str) -> bool:
        """Return whether a line may name this model."""

    def line_answer(self, body: dict[str, Any], account: str) -> Response:
        """Return the answer to the request in a line."""


class _OutputExpiry(Strict):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=30 * 24 * 3600)]


class _Creation(Strict):
    input_file_id: str
    endpoint: str
    completion_window: Literal["24h"]
    metadata: Annotated[Metadata | None, Field(max_length=16)] = None
    output_expires_after: _OutputExpiry | None = None


@dataclass(slots=True, kw_only=True)
class OpenAIBatch(Batch):
    """One batch; `failures` has a status for each line that fails, `errors` why none of them ever ran."""

    asked: _Creation
    input: StoredFile
    store: Store = field(repr=False)
    answered: Callable[[dict[str, Any]], Response] = field(repr=False)
    failures: MutableSequence[int] = field(repr=False)
    errors: list[dict[str, Any]]
    always_error_file: bool
    output_file_id: str | None = None
    error_file_id: str | None = None
    tokens: Counter[str] = field(default_factory=Counter)

    def finish(self) -> None:
        """Let the model answer the lines that have run, and write what became of each."""
        if not self.errors and not self.input.path.exists():
            self.errors = [_GONE]
        if self.errors:
            return
        outputs: list[bytes] = []
        failed: list[bytes] = []
        for index, (_, content) in enumerate(lines_of(self.input.path)):
            line = orjson.loads(content)
            if not self.has_run(index, self.ended_at):
                failed.append(unanswered_line(line["custom_id"], *_UNRUN[self.ending]))
                continue
            response = self.answered(line["body"])
            if response.status_code < 300:
                self.tokens.update(_tokens(orjson.loads(response.body)["usage"]))
                outputs.append(answered_line(line["custom_id"], response))
            else:
                self.failures[index] = response.status_code
                failed.append(answered_line(line["custom_id"], response))
        self.output_file_id = self._file("output", outputs) if outputs else None
        if failed or (self.always_error_file and self.ending == "done"):
            self.error_file_id = self._file("error", failed)

    def _file(self, kind: str, lines: Iterable[bytes]) -> str:
        expiry = self.asked.output_expires_after
        return self.store.make_file(
            lines,
            provider=self.provider,
            account=self.account,
            id=mint_file_id(),
            filename=f"{self.id}_{kind}.jsonl",
            purpose="batch_output",
            content_type="application/jsonl",
            created_at=self.ended_at,
            expires_at=self.ended_at + expiry.seconds if expiry else None,
        ).id

    def shown(self) -> dict[str, Any]:
        """Return the batch as it is now."""
        now = self.store.clock.now()
        status = self._status(now)
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.asked.endpoint,
            "errors": {"object": "list", "data": self.errors} if status == "failed" else None,
            "input_file_id": self.asked.input_file_id,
            "completion_window": self.asked.completion_window,
            "status": status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "expires_at": self.created_at + EXPIRY_SECONDS,
            "request_counts": self._counts(now),
            "metadata": self.asked.metadata,
            "usage": _usage(self.tokens) if self.tokens else None,
            **self._moments(now, status),
        }

    def _status(self, now: int) -> str:
        state = self.state(now)
        if state != "ended":
            return "in_progress" if state == "running" else state
        if self.ending == "done":
            return "failed" if self.errors else "completed"
        return self.ending

    def _moments(self, now: int, status: str) -> dict[str, int | None]:
        begun_at = self.created_at + VALIDATING_SECONDS
        moments: dict[str, int | None] = dict.fromkeys(_MOMENTS)
        moments["in_progress_at"] = begun_at if begun_at <= now and not self.errors else None
        moments["cancelling_at"] = self.cancelled_at
        if self.state(now) == "ended":
            moments[f"{status}_at"] = self.ended_at
        if status in ("completed", "expired"):
            moments["finalizing_at"] = self.ended_at
        return moments

    def _counts(self, now: int) -> dict[str, int]:
        done = [index for index in range(len(self.line_seconds)) if self.has_run(index, now)]
        failed = sum(self.failures[index] > 0 for index in done)
        return {"total": len(self.line_seconds), "completed": len(done) - failed, "failed": failed}


class OpenAIBatches:
    """The endpoints of the Batch API."""

    def __init__(self, provider: str, store: Store, rules: BatchRules, model: Model) -> None:
        self._provider, self._store, self._rules, self._model = provider, store, rules, model

    async def create(self, request: Request, account: str) -> Response:
        """Create a batch; what is wrong with its lines is told when it has been validated."""
        asked = await self._asked(request)
        file = self._input(asked, account)
        found = await asyncio.to_thread(Inspection, file.path, asked.endpoint, self._model.is_model)
        batch = OpenAIBatch(
            provider=self._provider,
            account=account,
            id=f"batch_{uuid4().hex}",
            # OpenAI has no place for a name; this is the gateway's.
            name=(asked.metadata or {}).get("filemux"),
            created_at=self._store.clock.now(),
            line_seconds=array("I") if found.errors else found.seconds,
            expiry_seconds=EXPIRY_SECONDS if self._rules.expires else _NEVER_SECONDS,
            asked=asked,
            input=file,
            store=self._store,
            answered=lambda body: self._model.line_answer(body, account),
            failures=found.failures,
            errors=found.errors,
            always_error_file=self._rules.always_error_file,
        )
        self._store.add_batch(batch)
        return answer(batch.shown())

    async def _asked(self, request: Request) -> _Creation:
        try:
            asked = _Creation.model_validate(orjson.loads(await request.body()))
        except orjson.JSONDecodeError as error:
            raise bad_request("We could not parse the JSON body of your request.") from error
        except ValidationError as error:
            raise bad_body(error) from error
        if asked.endpoint not in self._rules.endpoints:
            supported = ", ".join(sorted(self._rules.endpoints))
            message = f"Invalid value for 'endpoint': '{asked.endpoint}'. Supported values are: {supported}."
            raise bad_request(message, "endpoint", "invalid_value")
        return asked

    def _input(self, asked: _Creation, account: str) -> StoredFile:
        file = self._store.find(self._provider, account, asked.input_file_id)
        if file is None:
            raise bad_request(f"No such File object: {asked.input_file_id}", "input_file_id")
        if file.purpose != "batch":
            message = f"Invalid file purpose '{file.purpose}': a batch's input has the purpose 'batch'."
            raise bad_request(message, "input_file_id", "invalid_file_purpose")
        return file

    async def list_page(self, request: Request, account: str) -> Response:
        """Answer one page of the account's batches, newest first."""
        query = request.query_params
        require_known(query, self._rules.list_parameters)
        limit = limit_of(query, _DEFAULT_LIST_LIMIT, _MAX_LIST_LIMIT)
        batches = self._store.batches_of(self._provider, account)[::-1]
        ours = [batch for batch in batches if isinstance(batch, OpenAIBatch)]
        return page_answer(after(ours, query), limit, OpenAIBatch.shown)

    async def retrieve(self, request: Request, account: str) -> Response:
        """Answer one batch."""
        return answer(self._find(request, account).shown())

    async def cancel(self, request: Request, account: str) -> Response:
        """Ask for a batch to end."""
        batch, now = self._find(request, account), self._store.clock.now()
        if batch.state(now) == "ended":
            message = f"Cannot cancel a batch with status '{batch.shown()['status']}'."
            raise Refusal(error_response(self._rules.ended_status, message))
        batch.cancel(now)
        return answer(batch.shown())

    def _find(self, request: Request, account: str) -> OpenAIBatch:
        batch_id = request.path_params["batch_id"]
        batch = self._store.find_batch(self._provider, account, batch_id)
        if not isinstance(batch, OpenAIBatch):
            raise Refusal(error_response(404, f"No batch found with id '{batch_id}'.", param="id"))
        return batch


def _tokens(usage: dict[str, int]) -> dict[str, int]:
    return {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}


def _usage(tokens: Counter[str]) -> dict[str, Any]:
    return {
        "input_tokens": tokens["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens["total_tokens"],
    }
