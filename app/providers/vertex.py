"""Vertex AI: Gemini's chats at other URLs, batches, and files as objects in a bucket of Google Cloud Storage
(wire.md §5).

Contract: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference and …/batch-prediction-api.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b32decode, b32encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote

import google.auth
import google.oauth2.credentials
import orjson
from google.auth import aws, identity_pool
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request
from google.oauth2 import service_account
from obstore.store import GCSStore
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from yarl import URL

from app.errors import Missing, ProviderError, RateLimited, Rejected, Unauthorized, Unavailable, Unsupported
from app.formats.batch_lines import CHAT_ENDPOINT, BatchResult, error_body
from app.formats.openai import Chat
from app.providers import gemini
from app.providers.buckets import RESULTS_ENDING, AllowedBuckets, Buckets, FilesInBucket, folder_of
from app.providers.checksums import Crc32c
from app.providers.http import Http, after_acceptance, base_url, json_object, unix_seconds
from app.providers.objects import CLIENT_OPTIONS, NO_RETRIES, Objects, Proof
from app.providers.protocol import (
    ENDED,
    PURPOSES,
    BatchError,
    BatchLimits,
    BatchStatus,
    BatchSubmission,
    Capabilities,
    ProviderBatch,
    ProviderBatchPage,
    StoragePlace,
)
from app.providers.translated import BatchRun, Call

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from obstore.store import GCSConfig, GCSCredential

# --- declaration ------------------------------------------------------------------------------------------------

AWS_SUBJECT = "urn:ietf:params:aws:token-type:aws4_request"
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
# A token is renewed this long before its end.
MARGIN = timedelta(minutes=5)

# What a request's key is called among its labels, and a job's name among its own.
KEY_LABEL = "custom_id"
NAME_LABEL = "filemux-batch"
# Whether labels have these limits is unverified (wire.md §5e). A key that does not fit is written in base32.
_LABEL = re.compile(r"(?!b32_)[a-z0-9_-]{1,63}")
_ENCODED = "b32_"
_MAX_LABEL = 63
_JOB_ID = re.compile(r"(?:projects/[^/]+/locations/[^/]+/batchPredictionJobs/)?(\d+)")
_MAX_PAGE = 100
_STATUSES: Mapping[str, BatchStatus] = {
    "QUEUED": "validating",
    "PENDING": "validating",
    "RUNNING": "in_progress",
    "UPDATING": "in_progress",
    "PAUSED": "in_progress",
    "SUCCEEDED": "completed",
    "PARTIALLY_SUCCEEDED": "completed",
    "FAILED": "failed",
    "CANCELLING": "cancelling",
    "CANCELLED": "cancelled",
    "EXPIRED": "expired",
}

CAPABILITIES = Capabilities(
    purposes=PURPOSES,
    # An object of Google Cloud Storage is at most 5 TiB (wire.md §5b).
    max_file_bytes=5 * 1024**4,
    needs_length=False,
    readable=PURPOSES,
    lists_files=True,
    file_ttl_seconds=None,
    chooses_id=True,
    batch_input="object",
    chat_files={
        # Of documents only these two (wire.md §0.3).
        "application/pdf": "reference",
        "text/plain": "reference",
        "image/*": "reference",
        "audio/*": "reference",
        "video/*": "reference",
        "text/*": "text",
        "*": "unsupported",
    },
    # Unverified: the console takes 7 MB of a file that is not in a bucket.
    inline_max_bytes={"text/*": 10 * 1024 * 1024, "*": 7_000_000},
    # https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini
    batch=BatchLimits(max_lines=200_000, max_bytes=1024**3),
)
# Without a bucket there is nowhere to keep a file: what would travel by reference travels inline.
WITHOUT_BUCKET = CAPABILITIES.without_files(reference_models=())


class VertexParams(BaseModel):
    """The parameters of a Vertex AI account, under LiteLLM's names.

    `vertex_credentials` is a credentials file of Google's, by its path or its JSON; `vertex_access_token` a token that
    is valid already; without either, credentials are found where Google's libraries look, the metadata server included.
    `api_key` is for the chats alone: a bucket is always reached with such credentials.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vertex_project: str | None = None
    vertex_location: str = Field(default="us-central1", pattern=r"^[a-z0-9-]+$")
    vertex_credentials: SecretStr | None = None
    vertex_access_token: SecretStr | None = None
    api_key: SecretStr | None = None
    api_base: str | None = None
    api_version: Literal["v1beta1", "v1"] = "v1beta1"
    gcs_bucket: str | None = None
    gcs_prefix: str = "filemux/"
    gcs_endpoint: str | None = None
    allowed_buckets: AllowedBuckets | None = None

    @field_validator("api_base", "gcs_endpoint")
    @classmethod
    def _is_url(cls, text: str | None) -> str | None:
        return None if text is None else base_url(text)

    @field_validator("gcs_prefix")
    @classmethod
    def _is_folder(cls, text: str) -> str:
        return folder_of(text)

    @field_validator("vertex_credentials")
    @classmethod
    def _are_credentials(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            try:
                _loaded(secret)
            except GoogleAuthError as failure:
                raise ValueError(str(failure)) from None
        return secret

    @model_validator(mode="after")
    def _has_one_credential(self) -> Self:
        if self.vertex_credentials and self.vertex_access_token:
            raise ValueError("give vertex_credentials or vertex_access_token, not both")
        return self

    @property
    def url(self) -> str:
        """Where the models are (wire.md §5a)."""
        if self.api_base:
            return self.api_base
        if self.api_key or self.vertex_location == "global":
            return "https://aiplatform.googleapis.com"
        if self.vertex_location in ("us", "eu"):
            return f"https://aiplatform.{self.vertex_location}.rep.googleapis.com"
        return f"https://{self.vertex_location}-aiplatform.googleapis.com"


class Vertex(FilesInBucket, gemini.GenerateContent):
    """One Vertex AI project in one location, with its bucket if it has one."""

    name = "vertex_ai"
    bucket_param = "gcs_bucket"

    def __init__(self, params: VertexParams, http: Http) -> None:
        self._params, self._http = params, http
        self._credentials = _AccountCredentials(params)
        self._buckets: Buckets | None = None
        self.capabilities = WITHOUT_BUCKET
        if params.gcs_bucket:
            own = StoragePlace(params.gcs_bucket, params.gcs_prefix)
            opened = partial(_opened, params, self._credentials, http)
            self._buckets = Buckets(own, params.allowed_buckets or (), opened)
            # Batches belong to a project, and a key names none (wire.md §5a).
            self.capabilities = replace(CAPABILITIES, batch_input="none") if params.api_key else CAPABILITIES

    async def check(self) -> None:
        """List one model, and one object of the bucket: free, and it needs endpoints and credentials."""
        # The list is one of v1beta1 alone.
        url = URL(f"{self._params.url}/v1beta1/publishers/google/models?pageSize=1", encoded=True)
        await self._http.accepted("GET", url, headers=await self._authorized(), error_of=self._error)
        if self._buckets is not None:
            await self._buckets.own.check()

    async def _authorized(self) -> dict[str, str]:
        """The headers of a call."""
        headers = {"content-type": "application/json"}
        if self._params.api_key:
            return headers | {"x-goog-api-key": self._params.api_key.get_secret_value()}
        # Also names the project that pays, where the credentials do.
        (await self._credentials.current()).apply(headers)  # type: ignore[no-untyped-call]
        return headers

    # --- files --------------------------------------------------------------------------------------------------

    async def _ready_buckets(self) -> Buckets:
        buckets = self._named_buckets()
        # What is wrong with them would not be told through obstore.
        await self._credentials.current()
        return buckets

    # --- chat ---------------------------------------------------------------------------------------------------

    async def _chat_call(self, chat: Chat, body: bytes) -> Call:
        headers = await self._authorized()
        model = f"publishers/google/models/{quote(chat.provider_model, safe='')}"
        if not self._params.api_key:
            # A key belongs to a project already (wire.md §5a).
            model = f"{self._project_path}/{model}"
        url = f"{self._params.url}/{self._params.api_version}/{model}{gemini.verb_of(chat)}"
        return Call(URL(url, encoded=True), headers, body)

    async def _blame_files(self, chat: Chat, failure: ProviderError) -> None:
        """Ask for each file: what a missing object is answered with is unverified (wire.md §5c)."""
        if self._buckets is not None and not failure.retryable:
            for file_id in chat.file_ids():
                if self._buckets.find(file_id) is not None:
                    await self.retrieve_file(file_id)

    @property
    def _project_path(self) -> str:
        """Known once there are credentials."""
        return f"projects/{self._credentials.project}/locations/{self._params.vertex_location}"

    # --- batches ------------------------------------------------------------------------------------------------

    def _batch_line(self, key: str, chat: Chat, body: bytes) -> bytes:
        """A request, its key among its labels: it comes back with its result, which knows no other (wire.md §5e)."""
        # The body is an object that orjson has written, and not an empty one.
        return b'{"request":%b,"labels":{"%b":"%b"}}}' % (body[:-1], KEY_LABEL.encode(), label_of(key).encode())

    async def create_batch(self, batch: BatchSubmission) -> ProviderBatch:
        """POST /batchPredictionJobs. Its input and its results are in buckets that the account may use."""
        buckets = await self._batch_buckets()
        input_uri = batch.input_file_id or ""
        buckets.holding(input_uri)
        job = {
            "displayName": batch.options.job_name or batch.name,
            "labels": {NAME_LABEL: batch.name},
            "model": f"publishers/google/models/{batch.provider_model}",
            "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [input_uri]}},
            "outputConfig": {
                "predictionsFormat": "jsonl",
                "gcsDestination": {"outputUriPrefix": buckets.for_results(batch).uri.rstrip("/")},
            },
        }
        headers, url, body = await self._authorized(), self._jobs_url(), orjson.dumps(job)
        content = await self._submitted(url, headers, body)
        with after_acceptance():
            return _provider_batch(json_object(content))

    async def retrieve_batch(self, provider_batch_id: str) -> ProviderBatch:
        """GET /batchPredictionJobs/{number}."""
        return _provider_batch(await self._job_call("GET", provider_batch_id))

    async def list_batches(self, after: str | None, limit: int) -> ProviderBatchPage:
        """GET /batchPredictionJobs, which is newest first."""
        await self._batch_buckets()
        headers = await self._authorized()
        query = {"pageSize": str(min(limit, _MAX_PAGE))} | ({"pageToken": after} if after else {})
        url = self._jobs_url().with_query(query)
        page = await self._http.json("GET", url, headers=headers, error_of=self._error)
        batches = tuple(_provider_batch(job) for job in page.get("batchPredictionJobs") or ())
        return ProviderBatchPage(batches, page.get("nextPageToken") or None)

    async def cancel_batch(self, provider_batch_id: str) -> None:
        """POST /batchPredictionJobs/{number}:cancel."""
        try:
            await self._job_call("POST", provider_batch_id, ":cancel")
        except (Rejected, RateLimited):
            # That is what one that has ended is answered with (unverified), and it is no error.
            if (await self.retrieve_batch(provider_batch_id)).status not in ENDED:
                raise

    @asynccontextmanager
    async def read_batch_output(self, batch: ProviderBatch) -> AsyncIterator[AsyncIterator[list[BatchResult]]]:
        """The lines of all files in the directory that the job names: what they are called is unverified."""
        job = await self._job_call("GET", batch.id)
        found = await self._results_below(_directory(job), ".jsonl")
        run = BatchRun(str(job.get("model")).rpartition("/")[2], batch.ended_at or 0)
        async with self._open_results(batch, found, partial(self._result, run)) as results:
            yield results

    async def forget_batch(self, batch: ProviderBatch) -> None:
        """Delete the results, then the job that tells where they are."""
        with suppress(Missing):
            await self._delete_results(_directory(await self._job_call("GET", batch.id)))
            await self._job_call("DELETE", batch.id)

    async def _batch_buckets(self) -> Buckets:
        if self.capabilities.batch_input == "none":
            raise Unsupported("this account runs no batches: that needs a gcs_bucket, and credentials instead of a key")
        return await self._ready_buckets()

    def _jobs_url(self, path: str = "") -> URL:
        jobs = f"{self._params.url}/{self._params.api_version}/{self._project_path}/batchPredictionJobs"
        return URL(jobs + path, encoded=True)

    async def _job_call(self, method: str, provider_batch_id: str, verb: str = "") -> dict[str, Any]:
        """A call about one job. Raises Missing also for what no job is called."""
        await self._batch_buckets()
        found = _JOB_ID.fullmatch(provider_batch_id)
        if found is None:
            raise Missing(f"there is no batch {provider_batch_id[:200]!r}")
        headers, url = await self._authorized(), self._jobs_url(f"/{found[1]}{verb}")
        return await self._http.json(method, url, headers=headers, error_of=self._error)

    def _result(self, run: BatchRun, line: dict[str, Any]) -> BatchResult:
        """A line of the results: its status is empty, or what went wrong."""
        key = key_of(line["request"]["labels"][KEY_LABEL])
        if status := line.get("status"):
            code, message = failure_of(status)
            return BatchResult(key, code, error_body(code, message))
        return self._batch_answer(key, run, line["response"])


def label_of(key: str) -> str:
    """A key as a label's value. Raises Rejected."""
    label = key if _LABEL.fullmatch(key) else _ENCODED + b32encode(key.encode()).decode().rstrip("=").lower()
    if len(label) > _MAX_LABEL:
        raise Rejected(
            f"Vertex AI takes a custom_id of {_MAX_LABEL} lower-case letters, digits, - and _, or of 36 bytes",
            param="custom_id",
        )
    return label


def key_of(label: str) -> str:
    """The key that a label stands for. Raises ValueError."""
    if not label.startswith(_ENCODED):
        return label
    encoded = label.removeprefix(_ENCODED).upper()
    return b32decode(encoded + "=" * (-len(encoded) % 8)).decode()


def failure_of(status: Any) -> tuple[int, str]:
    """HTTP status and message in the status of a line: an error of Google's as JSON, perhaps after some words, or
    words alone (wire.md §5e)."""
    text = status if isinstance(status, str) else orjson.dumps(status).decode()
    try:
        error = orjson.loads(text[text.index("{") :])
        error = error.get("error", error)
        code, message = int(error["code"]), str(error.get("message") or text)
    except (ValueError, KeyError, TypeError, AttributeError):
        code, message = 0, text
    return (code if 400 <= code < 600 else 500), message[:2000]


def _directory(job: Mapping[str, Any]) -> str | None:
    """Where a job's results are; one that never ran has none."""
    return (job.get("outputInfo") or {}).get("gcsOutputDirectory")


def _provider_batch(job: Mapping[str, Any]) -> ProviderBatch:
    status = _STATUSES.get(str(job.get("state")).removeprefix("JOB_STATE_"))
    if status is None or "name" not in job:
        raise Unavailable("the provider's answer is not a batch prediction job")
    stats, error = job.get("completionStats") or {}, job.get("error") or {}
    # Of an unknown number it says -1, or nothing.
    done, failed, left = (int(stats.get(name) or 0) for name in ("successfulCount", "failedCount", "incompleteCount"))
    uris = (job.get("inputConfig") or {}).get("gcsSource", {}).get("uris")
    name = (job.get("labels") or {}).get(NAME_LABEL) or job.get("displayName")
    output = (job.get("outputConfig") or {}).get("gcsDestination", {}).get("outputUriPrefix", "")
    # A folder of the batch's own is known before the job makes its directory there.
    folder = output if output.endswith(f"/{name}{RESULTS_ENDING}") else _directory(job)
    return ProviderBatch(
        id=job["name"].rpartition("/")[2],
        status=status,
        name=name,
        created_at=unix_seconds(job.get("createTime")),
        in_progress_at=unix_seconds(job.get("startTime")),
        ended_at=unix_seconds(job.get("endTime")),
        endpoint=CHAT_ENDPOINT,
        input_file_id=uris[0] if uris else None,
        result_ids=(folder,) if folder else (),
        total=done + failed + left if stats and left >= 0 else None,
        completed=done if stats else None,
        failed=failed if stats else None,
        errors=(BatchError(str(error.get("code")), str(error.get("message"))),) if error else (),
    )


def _opened(params: VertexParams, credentials: _AccountCredentials, http: Http, place: StoragePlace) -> Objects:
    bucket = place.bucket
    config: GCSConfig = {"base_url": params.gcs_endpoint} if params.gcs_endpoint else {}
    store = GCSStore(
        bucket,
        config=config,
        client_options=CLIENT_OPTIONS,
        retry_config=NO_RETRIES,
        credential_provider=credentials.for_objects,
    )

    async def authorized(_url: URL) -> dict[str, str]:
        return {"authorization": f"Bearer {(await credentials.current()).token}"}

    url = f"{params.gcs_endpoint or 'https://storage.googleapis.com'}/{bucket}"
    return Objects(store, "gs", bucket, place.prefix, proof=Proof(http, url, authorized, Crc32c))


# --- credentials ------------------------------------------------------------------------------------------------


class _AccountCredentials:
    """An account's OAuth credentials. Google's library is asked in a thread: it reads files and fetches tokens."""

    def __init__(self, params: VertexParams) -> None:
        self._params = params
        self._found: Credentials | None = None
        self._project = params.vertex_project
        self._renewing = asyncio.Lock()

    @property
    def project(self) -> str:
        """The account's project; known once there are credentials, which may name it."""
        if self._project is None:
            raise Unauthorized("vertex_project is not given, and the account's credentials name none")
        return self._project

    async def current(self) -> Credentials:
        """Credentials whose token is valid for some minutes at least. Raises Unauthorized or Unavailable."""
        if self._found is None or not _is_fresh(self._found):
            async with self._renewing:
                return await asyncio.to_thread(self._renewed)
        return self._found

    async def for_objects(self) -> GCSCredential:
        """The same, as obstore wants them."""
        found = await self.current()
        return {"token": str(found.token), "expires_at": found.expiry and found.expiry.replace(tzinfo=UTC)}

    def _renewed(self) -> Credentials:
        try:
            if self._found is None:
                self._found, project = self._find()
                self._project = self._project or project
            if not _is_fresh(self._found):
                self._found.refresh(Request())  # type: ignore[no-untyped-call]
        except (GoogleAuthError, ValueError) as failure:
            passes = isinstance(failure, TransportError) or getattr(failure, "retryable", False)
            kind = Unavailable if passes else Unauthorized
            raise kind(f"the account's Google credentials cannot be used ({type(failure).__name__})") from failure
        return self._found

    def _find(self) -> tuple[Credentials, str | None]:
        """The credentials, and the project that they name."""
        params = self._params
        if params.vertex_access_token:
            token = params.vertex_access_token.get_secret_value()
            return google.oauth2.credentials.Credentials(token), None  # type: ignore[no-untyped-call]
        if params.vertex_credentials:
            return _loaded(params.vertex_credentials)
        return google.auth.default(scopes=SCOPES)


def _is_fresh(credentials: Credentials) -> bool:
    # Google's library counts in UTC, without saying so.
    now = datetime.now(UTC).replace(tzinfo=None)
    return bool(credentials.token) and (credentials.expiry is None or credentials.expiry - now > MARGIN)


def _loaded(secret: SecretStr) -> tuple[Credentials, str | None]:
    """What is behind a path, or a text that begins like JSON. Raises ValueError or GoogleAuthError."""
    text = secret.get_secret_value().strip()
    try:
        info = orjson.loads(text if text.startswith("{") else Path(text).expanduser().read_bytes())
    except OSError as failure:
        raise ValueError(f"cannot be read: {failure.strerror}") from None
    load = _LOADERS.get(str(info.get("type"))) if isinstance(info, dict) else None
    if load is None:
        raise ValueError(f"must be credentials of the type {', '.join(_LOADERS)}")
    return load(info), info.get("project_id")


def _external_account(info: Mapping[str, Any]) -> Credentials:
    kind = aws if info.get("subject_token_type") == AWS_SUBJECT else identity_pool
    found: Credentials = kind.Credentials.from_info(info, scopes=SCOPES)
    return found


# Each type by the loader that is its own, so that a file cannot be what was not expected.
_LOADERS: Mapping[str, Callable[[Any], Credentials]] = {
    "service_account": partial(service_account.Credentials.from_service_account_info, scopes=SCOPES),
    "authorized_user": partial(google.oauth2.credentials.Credentials.from_authorized_user_info, scopes=SCOPES),
    "external_account": _external_account,
}
