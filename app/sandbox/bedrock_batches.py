"""Bedrock's model invocation jobs: records from S3, and results written there (wire.md §6e)."""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal
from uuid import uuid4

import orjson
from pydantic import Field, StringConstraints, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.batches import RUN_SECONDS, failure_of, seconds_of
from app.sandbox.bedrock_answer import Answer
from app.sandbox.bedrock_blocks import Strict
from app.sandbox.bedrock_catalog import Model, require_model
from app.sandbox.bedrock_errors import answer, bad_body, bad_request, error_response, parsed, plain_failure
from app.sandbox.objects import Bucket
from app.sandbox.objects_batches import BadInput, ObjectBatch, Outcome, Outcomes
from app.sandbox.provider import Refusal
from app.sandbox.store import Store

# A quota (wire.md §6e) [U].
_MAX_RECORDS = 50_000
_DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE = 100, 1000  # the first [U]
_ARN = "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/"
_STATES = {"validating": "Validating", "running": "InProgress", "cancelling": "Stopping"}
_STATUSES = (
    *("Submitted", "Validating", "Scheduled", "InProgress", "Completed", "PartiallyCompleted"),
    *("Failed", "Stopping", "Stopped", "Expired"),
)
# The parameters of the list but for those of time.
_PARAMETERS = frozenset({"statusEquals", "nameContains", "maxResults", "nextToken", "sortBy", "sortOrder"})

# Returns what the model says to a body, or refuses it.
Reply = Callable[[Any, Model], Answer]
_Uri = Annotated[
    str,
    StringConstraints(
        pattern=r"^s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](?:/[-!_*'().a-z0-9A-Z]+)*/?$", min_length=1, max_length=1024
    ),
]
_Token = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9]{1,256}(-*[a-zA-Z0-9]){0,256}$", max_length=256)]


class _Input(Strict):
    s3_uri: _Uri
    s3_input_format: Literal["JSONL"] = "JSONL"
    s3_bucket_owner: str | None = None


class _InputConfig(Strict):
    # The only member of a union.
    s3_input_data_config: _Input

    @property
    def uri(self) -> str:
        return self.s3_input_data_config.s3_uri


class _Output(Strict):
    s3_uri: _Uri
    s3_encryption_key_id: str | None = None
    s3_bucket_owner: str | None = None


class _OutputConfig(Strict):
    s3_output_data_config: _Output

    @property
    def uri(self) -> str:
        return self.s3_output_data_config.s3_uri


class _Tag(Strict):
    key: str
    value: str


class _WantedJob(Strict):
    job_name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9]{1,63}(-*[a-zA-Z0-9+\-.]){0,63}$", max_length=63)]
    role_arn: Annotated[str, StringConstraints(pattern=r"^arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+$")]
    client_request_token: _Token | None = None
    model_id: Annotated[str, Field(min_length=1, max_length=2048)]
    input_data_config: _InputConfig
    output_data_config: _OutputConfig
    timeout_duration_in_hours: Annotated[int, Field(ge=24, le=168)] = 24
    model_invocation_type: Literal["InvokeModel", "Converse"] = "InvokeModel"
    tags: list[_Tag] | None = None


class _Record(Strict):
    record_id: str | None = None
    model_input: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class _Job(ObjectBatch):
    wanted: _WantedJob

    @property
    def arn(self) -> str:
        return _ARN + self.id

    def finish(self) -> None:
        """Write the results and the manifest."""
        folder = self.bucket.key_of(f"{self.wanted.output_data_config.uri.rstrip('/')}/{self.id}")
        if folder is None:
            self.failure = self.failure or "The output bucket does not exist."
        elif self.failure is None:
            name, counts = self.wanted.input_data_config.uri.rpartition("/")[2], self._record_counts(self.ended_at)
            self.bucket.make(f"{folder}/{name}.out", self.written(), self.account)
            self.bucket.make(f"{folder}/manifest.json.out", [orjson.dumps(counts)], self.account)

    def shown(self, now: int) -> dict[str, Any]:
        """Return the job as the API shows it."""
        ended, status = self.state(now) == "ended", self.status(now)
        shown = {
            "jobArn": self.arn,
            **self.wanted.model_dump(by_alias=True, exclude_none=True, exclude={"tags"}),
            "status": status,
            "submitTime": _timestamp(self.created_at),
            "lastModifiedTime": _timestamp(self.ended_at if ended else now),
            "jobExpirationTime": _timestamp(self.expires_at),
        }
        if status == "Failed":
            shown["message"] = self.failure
        elif status != "Validating":
            shown |= self._record_counts(now)
        return shown | ({"endTime": _timestamp(self.ended_at)} if ended else {})

    def status(self, now: int) -> str:
        """Return the job's status."""
        state = self.state(now)
        if state != "ended":
            return _STATES[state]
        match self.ending:
            case "cancelled":
                return "Stopped"
            case "expired":
                return "PartiallyCompleted" if self.has_results else "Expired"
        return "Completed" if self.failure is None else "Failed"

    def _record_counts(self, now: int) -> dict[str, int]:
        good, bad, left = self.counts(now)
        return {
            "totalRecordCount": good + bad + left,
            "processedRecordCount": good + bad,
            "successRecordCount": good,
            "errorRecordCount": bad,
        }


class BedrockBatches:
    """The endpoints of the jobs."""

    def __init__(self, provider: str, store: Store, reply: Reply) -> None:
        self._provider = provider
        self._store = store
        self._bucket = Bucket(store, provider, "s3")
        self._reply = reply

    async def create(self, request: Request, account: str) -> Response:
        """Create a job; one of the same token is that job. What is wrong with its input is told by its end."""
        try:
            wanted = _WantedJob.model_validate(parsed(await request.body()))
        except ValidationError as error:
            raise bad_body(error) from error
        model = require_model(wanted.model_id)
        if wanted.model_invocation_type != "Converse":
            raise bad_request("The sandbox has no InvokeModel: modelInvocationType must be Converse.")
        uri = wanted.input_data_config.uri
        outcomes = await Outcomes.of(self._bucket, uri, partial(_outcome, lambda body: self._reply(body, model)))
        if not uri.endswith(".jsonl"):
            outcomes = Outcomes("The input must be a file whose name ends in .jsonl.")
        elif len(outcomes.results) > _MAX_RECORDS:
            outcomes = Outcomes(f"The input has more than {_MAX_RECORDS} records.")
        token = wanted.client_request_token
        made = [job for job in self._jobs(account) if token and job.wanted.client_request_token == token]
        job = made[0] if made else self._added(wanted, outcomes, account)
        return answer({"jobArn": job.arn})

    def _added(self, wanted: _WantedJob, outcomes: Outcomes, account: str) -> _Job:
        job = _Job(
            provider=self._provider,
            account=account,
            id=uuid4().hex[:12],
            name=wanted.job_name,
            created_at=self._store.clock.now(),
            expiry_seconds=wanted.timeout_duration_in_hours * 3600,
            line_seconds=outcomes.seconds,
            successes=outcomes.successes,
            results=outcomes.results,
            failure=outcomes.failure,
            bucket=self._bucket,
            wanted=wanted,
        )
        self._store.add_batch(job)
        return job

    async def list_page(self, request: Request, account: str) -> Response:
        """Answer one page of the account's jobs, the newest first unless otherwise asked [U]."""
        query = request.query_params
        limit, position = _page_of(query)
        now = self._store.clock.now()
        jobs = [
            job
            for job in self._jobs(account)
            if query.get("nameContains", "") in job.wanted.job_name
            and query.get("statusEquals") in (None, job.status(now))
        ]
        jobs = jobs if query.get("sortOrder") == "Ascending" else jobs[::-1]
        arns = [job.arn for job in jobs]
        start = arns.index(position) + 1 if position in arns else 0
        shown = [job.shown(now) for job in jobs[start : start + limit]]
        more = len(jobs) > start + limit
        token = {"nextToken": base64.b64encode(shown[-1]["jobArn"].encode()).decode()} if more else {}
        return answer({"invocationJobSummaries": shown} | token)

    async def retrieve(self, request: Request, account: str) -> Response:
        """Answer one job."""
        return answer(self._find(request, account).shown(self._store.clock.now()))

    async def stop(self, request: Request, account: str) -> Response:
        """Ask for a job to be stopped; one that has ended, or is being stopped, is refused [U]."""
        job, now = self._find(request, account), self._store.clock.now()
        if job.state(now) in ("ended", "cancelling"):
            raise Refusal(error_response(400, "ConflictException", f"The job is {job.status(now)}."))
        job.cancel(now)
        return answer({})

    def _jobs(self, account: str) -> list[_Job]:
        return [one for one in self._store.batches_of(self._provider, account) if isinstance(one, _Job)]

    def _find(self, request: Request, account: str) -> _Job:
        identifier = request.path_params["job"]
        if not re.fullmatch(f"({re.escape(_ARN)})?[a-z0-9]{{12}}", identifier):
            raise bad_request("The provided job identifier is invalid.")
        job = self._store.find_batch(self._provider, account, identifier.removeprefix(_ARN))
        if not isinstance(job, _Job):
            raise Refusal(plain_failure(404))
        return job


def _page_of(query: Mapping[str, str]) -> tuple[int, str]:
    """Return how long a page of the list is, and the ARN that it begins after."""
    if unknown := sorted(query.keys() - _PARAMETERS):
        raise bad_request(f"Unknown parameter: {unknown[0]}")
    if query.get("statusEquals", "Failed") not in _STATUSES:
        raise bad_request(f"Value at 'statusEquals' must be one of {_STATUSES}")
    if query.get("sortBy", "CreationTime") != "CreationTime":
        raise bad_request("Value at 'sortBy' must be CreationTime")
    if query.get("sortOrder", "Ascending") not in ("Ascending", "Descending"):
        raise bad_request("Value at 'sortOrder' must be Ascending or Descending")
    limit = query.get("maxResults", str(_DEFAULT_PAGE_SIZE))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= _MAX_PAGE_SIZE):
        raise bad_request(f"Value at 'maxResults' must be from 1 to {_MAX_PAGE_SIZE}")
    try:
        return int(limit), base64.b64decode(query.get("nextToken", ""), validate=True).decode()
    except ValueError as error:
        raise bad_request("The nextToken is invalid.") from error


def _timestamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _outcome(reply: Callable[[Any], Answer], content: bytes) -> Outcome:
    """Return what becomes of one record."""
    try:
        record = _Record.model_validate(orjson.loads(content))
    except ValueError as error:
        raise BadInput(f"A record of the input is malformed: {str(error).splitlines()[0]}") from error
    result = {"recordId": record.record_id or uuid4().hex[:11].upper(), "modelInput": record.model_input}
    seconds = RUN_SECONDS
    try:
        if "toolConfig" in record.model_input:
            raise bad_request("toolConfig is not supported in batch inference.")
        said = reply(record.model_input)
        seconds = seconds_of(said.asked)
        if status := failure_of(said.asked):
            raise Refusal(plain_failure(status))
    except Refusal as refused:
        told = orjson.loads(refused.response.body)
        failure = {"errorCode": refused.response.status_code, "errorMessage": told["message"]}
        return Outcome(result | {"error": failure}, seconds, False)
    return Outcome(result | {"modelOutput": said.body()}, seconds, True)
