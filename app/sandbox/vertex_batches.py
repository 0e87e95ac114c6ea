"""Vertex AI's batch prediction jobs: lines from Cloud Storage, and results written there (wire.md §5e)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, StringConstraints, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.batches import RUN_SECONDS, failure_of, seconds_of
from app.sandbox.gemini_answers import answer, bad_body, bad_request, error_response, plain_failure
from app.sandbox.gemini_completion import Completion
from app.sandbox.gemini_contents import Message
from app.sandbox.gemini_files import timestamp
from app.sandbox.gemini_generate import json_body
from app.sandbox.gemini_pages import page
from app.sandbox.gemini_rules import MODELS, Model
from app.sandbox.objects import Bucket
from app.sandbox.objects_batches import BadInput, ObjectBatch, Outcome, Outcomes
from app.sandbox.provider import Refusal
from app.sandbox.store import Store

_MODEL_PREFIX = "publishers/google/models/"
_DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE = 50, 100  # [U]
_STATES = {"validating": "PENDING", "running": "RUNNING", "cancelling": "CANCELLING"}
_ENDINGS = {"cancelled": "CANCELLED", "expired": "EXPIRED"}
_INVALID_ARGUMENT = 3  # of google.rpc.Code

# Returns what the model says to a body, or refuses it.
Reply = Callable[[Any, Model, str], Completion]
_Uri = Annotated[str, StringConstraints(pattern="^gs://[^/]+/.")]
_Label = Annotated[str, StringConstraints(pattern="^[a-z0-9_-]{0,63}$")]


class _GcsSource(Message):
    uris: Annotated[list[_Uri], Field(min_length=1, max_length=1)]


class _InputConfig(Message):
    instances_format: Literal["jsonl"]
    gcs_source: _GcsSource


class _GcsDestination(Message):
    output_uri_prefix: Annotated[str, StringConstraints(pattern="^gs://.")]


class _OutputConfig(Message):
    predictions_format: Literal["jsonl"]
    gcs_destination: _GcsDestination


class _WantedJob(Message):
    display_name: Annotated[str, Field(min_length=1, max_length=128)]
    model: str
    labels: dict[_Label, _Label] = Field(default_factory=dict)
    input_config: _InputConfig
    output_config: _OutputConfig


class _Line(Message):
    request: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class _Job(ObjectBatch):
    parent: str
    wanted: _WantedJob

    def finish(self) -> None:
        """Write the results."""
        key = self.bucket.key_of(f"{self._directory}/predictions.jsonl")
        if key is None:
            self.failure = self.failure or "The output bucket does not exist."
        elif self.has_results:
            self.bucket.make(key, self.written(), self.account)

    def shown(self, now: int) -> dict[str, Any]:
        """Return the job as the API shows it."""
        ended, state = self.state(now) == "ended", self._state(now)
        shown = {
            "name": f"{self.parent}/batchPredictionJobs/{self.id}",
            **self.wanted.model_dump(by_alias=True, exclude_defaults=True),
            "state": f"JOB_STATE_{state}",
            "createTime": timestamp(self.created_at),
            "updateTime": timestamp(self.ended_at if ended else now),
        }
        if state != "PENDING":
            shown["startTime"] = timestamp(self.created_at)
        if ended:
            shown["endTime"] = timestamp(self.ended_at)
            names = ("successfulCount", "failedCount", "incompleteCount")
            # They are int64, and proto3 leaves out those that are 0.
            counts = zip(names, self.counts(self.ended_at), strict=True)
            shown["completionStats"] = {name: str(count) for name, count in counts if count}
            if state == "FAILED":
                shown["error"] = {"code": _INVALID_ARGUMENT, "message": self.failure}
            elif self.has_results:
                shown["outputInfo"] = {"gcsOutputDirectory": self._directory}
        return shown

    @property
    def _directory(self) -> str:
        root = self.wanted.output_config.gcs_destination.output_uri_prefix.rstrip("/")
        return f"{root}/prediction-model-{timestamp(self.created_at)}"

    def _state(self, now: int) -> str:
        state = self.state(now)
        if state != "ended":
            return _STATES[state]
        if self.ending != "done":
            return _ENDINGS[self.ending]
        if self.failure is not None:
            return "FAILED"
        return "SUCCEEDED" if all(self.successes) else "PARTIALLY_SUCCEEDED"


class VertexBatches:
    """The endpoints of the jobs."""

    def __init__(self, provider: str, store: Store, reply: Reply) -> None:
        self._provider = provider
        self._store = store
        self._bucket = Bucket(store, provider, "gs")
        self._reply = reply

    async def create(self, request: Request, account: str) -> Response:
        """Create a job. What is wrong with its input is told by its end."""
        try:
            wanted = _WantedJob.model_validate(await json_body(request))
        except ValidationError as error:
            raise bad_body(error) from error
        model = MODELS.get(wanted.model.removeprefix(_MODEL_PREFIX))
        if model is None or not wanted.model.startswith(_MODEL_PREFIX):
            message = f"The PublisherModel {wanted.model} does not exist."
            raise Refusal(error_response(404, "NOT_FOUND", message))
        uri, reply = wanted.input_config.gcs_source.uris[0], self._reply
        outcomes = await Outcomes.of(self._bucket, uri, partial(_outcome, lambda body: reply(body, model, account)))
        job = _Job(
            provider=self._provider,
            account=account,
            id=str(time.time_ns()),
            name=wanted.display_name,
            created_at=self._store.clock.now(),
            line_seconds=outcomes.seconds,
            successes=outcomes.successes,
            results=outcomes.results,
            failure=outcomes.failure,
            bucket=self._bucket,
            parent=_parent(request),
            wanted=wanted,
        )
        self._store.add_batch(job)
        return answer(job.shown(job.created_at))

    async def list_page(self, request: Request, account: str) -> Response:
        """Answer one page of the project's jobs, the newest first [U]. There are no filters here."""
        batches = self._store.batches_of(self._provider, account)
        jobs = [batch for batch in reversed(batches) if isinstance(batch, _Job) and batch.parent == _parent(request)]
        # Positions ascend, and ids fall.
        positions = [f"{2**64 - int(job.id)}" for job in jobs]
        wanted, more = page(request, positions, default_size=_DEFAULT_PAGE_SIZE, max_size=_MAX_PAGE_SIZE)
        now = self._store.clock.now()
        shown = [job.shown(now) for job in jobs[wanted]]
        return answer({"batchPredictionJobs": shown} | more if shown else {})  # proto3 leaves an empty list out

    async def retrieve(self, request: Request, account: str) -> Response:
        """Answer one job."""
        return answer(self._find(request, account).shown(self._store.clock.now()))

    async def cancel(self, request: Request, account: str) -> Response:
        """Ask for a job to be cancelled; one that has ended is refused [U]."""
        job, now = self._find(request, account), self._store.clock.now()
        if job.state(now) == "ended":
            raise bad_request(f"The job {job.id} has ended.", "FAILED_PRECONDITION")
        job.cancel(now)
        return answer({})

    async def delete(self, request: Request, account: str) -> Response:
        """Delete a job that has ended, but not what it has written."""
        job = self._find(request, account)
        if job.state(self._store.clock.now()) != "ended":
            raise bad_request(f"The job {job.id} has not ended.", "FAILED_PRECONDITION")
        self._store.remove_batch(job)
        return answer({"name": f"{job.parent}/operations/{job.id}", "done": True, "response": {}})

    def _find(self, request: Request, account: str) -> _Job:
        job = self._store.find_batch(self._provider, account, request.path_params["job"])
        if not isinstance(job, _Job) or job.parent != _parent(request):
            raise Refusal(plain_failure(404))
        return job


def _parent(request: Request) -> str:
    return "projects/{project}/locations/{location}".format(**request.path_params)


def _outcome(reply: Callable[[Any], Completion], content: bytes) -> Outcome:
    """Return what becomes of one line. What is wrong with it is told in words and JSON, as users report it [U]."""
    try:
        body = _Line.model_validate(orjson.loads(content)).request
    except ValueError as error:
        raise BadInput(f"A line of the input is not a request: {str(error).splitlines()[0]}") from error
    result: dict[str, Any] = {"status": "", "processed_time": timestamp(int(time.time())), "request": body}
    seconds, refusal = RUN_SECONDS, None
    try:
        completion = reply(body)
        seconds = seconds_of(completion.asked)
        if status := failure_of(completion.asked):
            refusal = plain_failure(status)
    except Refusal as refused:
        refusal = refused.response
    if refusal is None:
        return Outcome(result | {"response": completion.body()}, seconds, True)
    phrase = HTTPStatus(refusal.status_code).phrase
    return Outcome(result | {"status": f"{phrase}: {bytes(refusal.body).decode()}"}, seconds, False)
