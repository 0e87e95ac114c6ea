"""AWS Bedrock: chats by Converse, batches as model invocation jobs, files as S3 objects (wire.md §6).

Contract: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and
…/API_CreateModelInvocationJob.html. botocore finds credentials, signs, and takes the event stream's frames apart; its
clients are synchronous, so calls go through the shared Http.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

import botocore.session
import orjson
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    Credentials,
    DeferredRefreshableCredentials,
)
from botocore.eventstream import EventStreamBuffer, EventStreamMessage, ParserError
from obstore.store import S3Store
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from yarl import URL

from app.errors import (
    Missing,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from app.formats import converse
from app.formats.answers import Reader
from app.formats.batch_lines import CHAT_ENDPOINT, BatchResult, error_body
from app.formats.openai import Chat
from app.providers.aws import AwsCredentials
from app.providers.buckets import AllowedBuckets, Buckets, FilesInBucket, folder_of
from app.providers.checksums import PartsSha256
from app.providers.http import (
    Http,
    after_acceptance,
    base_url,
    json_object,
    kind_of_status,
    retry_after_seconds,
    unix_seconds,
)
from app.providers.objects import CLIENT_OPTIONS, NO_RETRIES, PART_BYTES, Objects, Proof
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
from app.providers.translated import LARGE_BODY_BYTES, BatchRun, Call, Translating

if TYPE_CHECKING:
    from obstore.store import S3Config

# --- declaration ------------------------------------------------------------------------------------------------

SERVICE = "bedrock"
# LiteLLM writes bedrock/converse/<model> to say which of two APIs it is to use.
LITELLM_PREFIX = "converse/"
# A video's limit counts its base64 (service model, VideoSource), as that of a request's body does.
_ENCODED_LIMIT_BYTES = 25_000_000 * 3 // 4

# A quota for most models; others have other ones.
MIN_LINES = 100
_JOB_ID = re.compile(r"(arn:aws(-[^:/]+)?:bedrock:[a-z0-9-]{1,20}:[0-9]{12}:model-invocation-job/)?[a-z0-9]{12}")
_WINDOW_HOURS = re.compile(r"(\d+)h")
_MAX_PAGE = 1000
_STATUSES: Mapping[str, BatchStatus] = {
    "Submitted": "validating",
    "Validating": "validating",
    "Scheduled": "in_progress",
    "InProgress": "in_progress",
    "Completed": "completed",
    # Not all of its records could be processed in time, says the service model; Expired is one that never began.
    "PartiallyCompleted": "expired",
    "Expired": "expired",
    "Failed": "failed",
    "Stopping": "cancelling",
    "Stopped": "cancelled",
}

CAPABILITIES = Capabilities(
    purposes=PURPOSES,
    # An S3 upload has at most 10,000 parts.
    max_file_bytes=10_000 * PART_BYTES,
    needs_length=False,
    readable=PURPOSES,
    lists_files=True,
    file_ttl_seconds=None,
    chooses_id=True,
    batch_input="object",
    chat_files={
        **dict.fromkeys(converse.DOCUMENTS, "reference"),
        **dict.fromkeys(converse.IMAGES, "reference"),
        **dict.fromkeys(converse.VIDEOS, "reference"),
        # Which models hear at all is theirs to say (wire.md §0.3).
        **dict.fromkeys(converse.AUDIO, "reference"),
        "text/*": "text",
        "application/json": "text",
        "*": "unsupported",
    },
    # Which others read from S3 is not known (wire.md §6c, §10).
    reference_models=("*amazon.nova*",),
    inline_max_bytes={
        **dict.fromkeys(converse.DOCUMENTS, 4_500_000),
        "image/*": 3_750_000,
        "*": _ENCODED_LIMIT_BYTES,
    },
    # Quotas (wire.md §6e). What a record refers to would have to be in the folder of the input.
    batch=BatchLimits(min_lines=MIN_LINES, max_lines=50_000, max_bytes=1024**3, inline_files=True, repeatable=True),
)
# Without a bucket there is nowhere to keep a file: what is read by reference elsewhere travels inline.
WITHOUT_BUCKET = CAPABILITIES.without_files(reference_models=())


class BedrockParams(BaseModel):
    """The parameters of a Bedrock account, under LiteLLM's names.

    `api_key` is a Bedrock API key, which S3 does not take: the bucket is always reached with the AWS credentials, given
    as keys, as a profile, or found where botocore looks; `aws_role_name` is the ARN of a role to assume with them.
    `aws_batch_role_arn` is that of the role with which Bedrock itself reads a batch's input and writes its results.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    aws_region_name: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]+$")
    aws_access_key_id: SecretStr | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None
    aws_profile_name: str | None = None
    aws_role_name: str | None = None
    aws_session_name: str = "filemux"
    api_key: SecretStr | None = None
    aws_bedrock_runtime_endpoint: str | None = None
    api_base: str | None = None
    aws_bedrock_control_endpoint: str | None = None
    s3_bucket_name: str | None = None
    s3_region_name: str | None = None
    s3_endpoint_url: str | None = None
    s3_prefix: str = "filemux/"
    s3_output_bucket_name: str | None = None
    s3_encryption_key_id: str | None = None
    allowed_buckets: AllowedBuckets | None = None
    aws_batch_role_arn: str | None = None
    batch_min_lines: int = Field(default=MIN_LINES, ge=1)

    @field_validator("aws_bedrock_runtime_endpoint", "api_base", "aws_bedrock_control_endpoint", "s3_endpoint_url")
    @classmethod
    def _is_url(cls, text: str | None) -> str | None:
        return None if text is None else base_url(text)

    @field_validator("s3_prefix")
    @classmethod
    def _is_folder(cls, text: str) -> str:
        return folder_of(text)

    @model_validator(mode="after")
    def _is_one_account(self) -> Self:
        if (self.aws_access_key_id is None) != (self.aws_secret_access_key is None):
            raise ValueError("aws_access_key_id and aws_secret_access_key belong together")
        if self.aws_session_token and not self.aws_access_key_id:
            raise ValueError("aws_session_token belongs to aws_access_key_id")
        if self.aws_profile_name and self.aws_access_key_id:
            raise ValueError("give aws_profile_name or aws_access_key_id, not both")
        if self.api_base and self.aws_bedrock_runtime_endpoint:
            raise ValueError("api_base and aws_bedrock_runtime_endpoint are the same: give one")
        return self

    @property
    def runtime_url(self) -> str:
        """Where chats go."""
        endpoint = self.aws_bedrock_runtime_endpoint or self.api_base
        return endpoint or f"https://bedrock-runtime.{self.aws_region_name}.amazonaws.com"

    @property
    def s3_region(self) -> str:
        """The bucket's, and that of every other for which none is given."""
        return self.s3_region_name or self.aws_region_name

    @property
    def control_url(self) -> str:
        """Where models are listed and batches run. Who puts something before one plane has put it before both."""
        endpoint = self.aws_bedrock_control_endpoint or self.aws_bedrock_runtime_endpoint or self.api_base
        return endpoint or f"https://bedrock.{self.aws_region_name}.amazonaws.com"


class Bedrock(FilesInBucket, Translating):
    """One Bedrock account in one region, with its bucket if it has one."""

    name = "bedrock"
    bucket_param = "s3_bucket_name"

    def __init__(self, params: BedrockParams, http: Http) -> None:
        self._params, self._http = params, http
        self._credentials = AwsCredentials(partial(_find, params))
        self._buckets: Buckets | None = None
        self.capabilities = WITHOUT_BUCKET
        if params.s3_bucket_name:
            own = StoragePlace(params.s3_bucket_name, params.s3_prefix, params.s3_region)
            results = params.s3_output_bucket_name
            self._buckets = Buckets(
                own,
                params.allowed_buckets or (),
                partial(_opened, params, self._credentials, http),
                replace(own, bucket=results) if results else None,
            )
            batch = replace(CAPABILITIES.batch, min_lines=params.batch_min_lines)
            self.capabilities = replace(CAPABILITIES, batch=batch)

    async def check(self) -> None:
        """List the models, and the bucket: free, and it needs endpoints and credentials."""
        url = self._control_url("/foundation-models")
        headers = await self._authorized("GET", url, b"")
        await self._http.accepted("GET", url, headers=headers, error_of=self._error)
        if self._buckets is not None:
            await self._buckets.own.check()

    async def _authorized(self, method: str, url: URL, body: bytes) -> dict[str, str]:
        """The headers of a call."""
        headers = {"content-type": "application/json"}
        if self._params.api_key:
            return headers | {"authorization": f"Bearer {self._params.api_key.get_secret_value()}"}
        request = AWSRequest(method, str(url), headers, body)
        signer = SigV4Auth(await self._credentials.current(), SERVICE, self._params.aws_region_name)
        if len(body) > LARGE_BODY_BYTES:
            await asyncio.to_thread(signer.add_auth, request)
        else:
            signer.add_auth(request)
        return dict(request.headers.items())

    # --- chat ---------------------------------------------------------------------------------------------------

    def _translate(self, chat: Chat) -> dict[str, Any]:
        return converse.translate(chat)

    async def _chat_call(self, chat: Chat, body: bytes) -> Call:
        verb = "converse-stream" if chat.request.stream else "converse"
        # A model's colon and an ARN's slashes are encoded (wire.md §6a).
        model = _model_id(chat.provider_model)
        path = f"/model/{quote(model, safe='')}/{verb}"
        url = URL(self._params.runtime_url + path, encoded=True)
        return Call(url, await self._authorized("POST", url, body), body)

    def _reader(self, provider_model: str) -> Reader:
        # An answer of Converse has no id.
        return converse.Reader(f"chatcmpl-{secrets.token_hex(12)}", provider_model)

    def _events(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
        return frame_events(chunks)

    # --- batches ------------------------------------------------------------------------------------------------

    def _batch_line(self, key: str, chat: Chat, body: bytes) -> bytes:
        """A record of a Converse job, which takes no tools (wire.md §6e)."""
        if chat.function_names() or (chat.request.tools and chat.request.tool_choice != "none"):
            raise Unsupported("Bedrock takes no tools in a batch", param="body.tools", code="unsupported_parameter")
        return orjson.dumps({"recordId": key, "modelInput": orjson.Fragment(body)})

    async def create_batch(self, batch: BatchSubmission) -> ProviderBatch:
        """CreateModelInvocationJob; its token, by which it is found again and not made twice, is our name for it."""
        url = self._control_url("/model-invocation-job")
        body = orjson.dumps(self._job(batch))
        headers = await self._authorized("POST", url, body)
        content = await self._submitted(url, headers, body)
        with after_acceptance():
            arn = json_object(content).get("jobArn")
            if not isinstance(arn, str):
                raise Unavailable("the provider's answer names no job")
        try:
            return await self.retrieve_batch(arn)
        except ProviderError:
            # It is there, whatever became of the look at it.
            return ProviderBatch(
                arn, "validating", batch.name, endpoint=batch.endpoint, input_file_id=batch.input_file_id
            )

    def _job(self, batch: BatchSubmission) -> dict[str, Any]:
        """The request. Raises Rejected, and Missing for an input outside of the account's buckets."""
        buckets, options = self._named_buckets(), batch.options
        role = options.role_arn or self._params.aws_batch_role_arn
        if role is None:
            raise Rejected("a batch at Bedrock needs a role: aws_batch_role_arn of the account, or role_arn")
        buckets.holding(batch.input_file_id or "")
        hours = _WINDOW_HOURS.fullmatch(batch.completion_window)
        output = {"s3Uri": buckets.for_results(batch).uri}
        if self._params.s3_encryption_key_id:
            output["s3EncryptionKeyId"] = self._params.s3_encryption_key_id
        return {
            "jobName": options.job_name or batch.name,
            "clientRequestToken": batch.name,
            "roleArn": role,
            "modelId": _model_id(batch.provider_model),
            "modelInvocationType": "Converse",
            "inputDataConfig": {"s3InputDataConfig": {"s3Uri": batch.input_file_id, "s3InputFormat": "JSONL"}},
            "outputDataConfig": {"s3OutputDataConfig": output},
            **({"timeoutDurationInHours": int(hours[1])} if hours else {}),
        }

    async def retrieve_batch(self, provider_batch_id: str) -> ProviderBatch:
        """GetModelInvocationJob."""
        return _provider_batch(await self._job_call("GET", provider_batch_id))

    async def list_batches(self, after: str | None, limit: int) -> ProviderBatchPage:
        """ListModelInvocationJobs."""
        query = {"maxResults": str(min(limit, _MAX_PAGE)), "sortBy": "CreationTime", "sortOrder": "Descending"}
        answer = await self._control("GET", "/model-invocation-jobs", query | ({"nextToken": after} if after else {}))
        page = json_object(answer)
        batches = tuple(_provider_batch(job) for job in page.get("invocationJobSummaries") or ())
        return ProviderBatchPage(batches, page.get("nextToken") or None)

    async def cancel_batch(self, provider_batch_id: str) -> None:
        """StopModelInvocationJob; one that has ended, or is being stopped, is refused."""
        try:
            await self._job_call("POST", provider_batch_id, "/stop")
        except (Rejected, RateLimited):
            if (await self.retrieve_batch(provider_batch_id)).status not in ENDED | {"cancelling"}:
                raise

    @asynccontextmanager
    async def read_batch_output(self, batch: ProviderBatch) -> AsyncIterator[AsyncIterator[list[BatchResult]]]:
        """The lines of all files *.jsonl.out in the job's folder: its exact layout is not documented."""
        job = await self._job_call("GET", batch.id)
        found = await self._results_below(_folder(job), ".jsonl.out")
        run = BatchRun(str(job.get("modelId")), batch.ended_at or 0)
        async with self._open_results(batch, found, partial(self._result, run)) as results:
            yield results

    async def forget_batch(self, batch: ProviderBatch) -> None:
        """Delete the results; a job itself cannot be deleted."""
        with suppress(Missing):
            await self._delete_results(_folder(await self._job_call("GET", batch.id)))

    def _batch_reader(self, key: str, provider_model: str) -> Reader:
        answer_id = hashlib.sha256(key.encode()).hexdigest()[:24]
        return converse.Reader(f"chatcmpl-{answer_id}", provider_model)

    def _result(self, run: BatchRun, line: dict[str, Any]) -> BatchResult:
        """A record with its answer, or with its error in the answer's place."""
        key = line["recordId"]
        if error := line.get("error"):
            code = int(error["errorCode"])
            return BatchResult(key, code, error_body(code, str(error.get("errorMessage"))))
        return self._batch_answer(key, run, line["modelOutput"])

    async def _job_call(self, method: str, provider_batch_id: str, verb: str = "") -> dict[str, Any]:
        """A call about one job. Raises Missing also for what no job is called."""
        if not _JOB_ID.fullmatch(provider_batch_id):
            raise Missing(f"there is no batch {provider_batch_id[:200]!r}")
        path = f"/model-invocation-job/{quote(provider_batch_id, safe='')}{verb}"
        return json_object(await self._control(method, path) or b"{}")

    def _control_url(self, path: str, query: Mapping[str, str] | None = None) -> URL:
        # A signature is over values that are encoded through and through, which yarl's are not.
        encoded = urlencode(query or {}, quote_via=quote, safe="")
        return URL(f"{self._params.control_url}{path}?{encoded}".rstrip("?"), encoded=True)

    async def _control(self, method: str, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """A call about batches. What it does not find is no model, as in a chat, but a batch."""
        url = self._control_url(path, query)
        headers = await self._authorized(method, url, b"")
        # Not an ordinary call: httpx would write the path of an ARN in another way than it is signed.
        async with self._http.open(method, url, headers=headers) as answer:
            content = await answer.read()
        if answer.status >= 300:
            failure = self._error(answer.status, answer.headers, content)
            raise Missing(failure.message) if answer.status == 404 else failure
        return content

    # --- errors -------------------------------------------------------------------------------------------------

    def _error(self, status: int, headers: Mapping[str, str], content: bytes) -> ProviderError:
        """Documented code, else status → our tree (wire.md §6a); never by the message's text."""
        code = headers.get("x-amzn-errortype", "").partition(":")[0]
        found = _BY_CODE.get(code) or kind_of_status(status)
        message = _message_of(content) or f"the provider answered {status}"
        if found is Unauthorized:
            # The vendor's text quotes ARNs and key ids.
            message = f"the provider refused the gateway's credentials ({code or status})"
        elif found is Unavailable:
            message = f"the provider answered {status} {code}".rstrip()
        wait = retry_after_seconds(headers) if found.retryable else None
        return found(message, code=_OUR_CODES.get(code), retry_after_seconds=wait)


_BY_CODE: Mapping[str, type[ProviderError]] = {
    "ValidationException": Rejected,
    # The only resources that a chat names are models: what it cannot read from S3 is a ValidationException.
    "ResourceNotFoundException": Rejected,
    "ThrottlingException": RateLimited,
    "ModelNotReadyException": RateLimited,
    "ServiceQuotaExceededException": QuotaExceeded,
    "ModelTimeoutException": Unavailable,
    "ModelErrorException": Unavailable,
    "ModelStreamErrorException": Unavailable,
    "InternalServerException": Unavailable,
    "ServiceUnavailableException": Unavailable,
    "AccessDeniedException": Unauthorized,
    "UnrecognizedClientException": Unauthorized,
    "ExpiredTokenException": Unauthorized,
    "InvalidSignatureException": Unauthorized,
    "IncompleteSignatureException": Unauthorized,
    "MissingAuthenticationTokenException": Unauthorized,
}
_OUR_CODES = {"ResourceNotFoundException": "model_not_found"}


def _message_of(content: bytes) -> str | None:
    """The text of an error; the services before Bedrock's own write it with a capital."""
    try:
        body = orjson.loads(content)
        return str(body.get("message") or body.get("Message") or "")[:2000] or None
    except (orjson.JSONDecodeError, AttributeError):
        return None


# --- batches ----------------------------------------------------------------------------------------------------


def _model_id(provider_model: str) -> str:
    return provider_model.removeprefix(LITELLM_PREFIX)


def _folder(job: Mapping[str, Any]) -> str:
    """Where a job's results are (https://github.com/BerriAI/litellm/issues/16186)."""
    output = (job.get("outputDataConfig") or {}).get("s3OutputDataConfig", {}).get("s3Uri")
    if output is None or "jobArn" not in job:
        raise Unavailable("the provider's answer does not say where the results are")
    return f"{output.rstrip('/')}/{job['jobArn'].rpartition('/')[2]}"


def _provider_batch(job: Mapping[str, Any]) -> ProviderBatch:
    status = _STATUSES.get(str(job.get("status")))
    if status is None or "jobArn" not in job:
        raise Unavailable("the provider's answer is not a model invocation job")
    message = job.get("message")
    return ProviderBatch(
        id=job["jobArn"],
        status=status,
        # A job that another client made has a token of its own.
        name=job.get("clientRequestToken") or job.get("jobName"),
        created_at=unix_seconds(job.get("submitTime")),
        ended_at=unix_seconds(job.get("endTime")),
        expires_at=unix_seconds(job.get("jobExpirationTime")),
        endpoint=CHAT_ENDPOINT,
        input_file_id=(job.get("inputDataConfig") or {}).get("s3InputDataConfig", {}).get("s3Uri"),
        result_ids=(_folder(job),) if job.get("outputDataConfig") else (),
        total=job.get("totalRecordCount"),
        completed=job.get("successRecordCount"),
        failed=job.get("errorRecordCount"),
        errors=(BatchError(None, str(message)),) if message and status == "failed" else (),
    )


# --- event stream -----------------------------------------------------------------------------------------------


async def frame_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The events of an application/vnd.amazon.eventstream (wire.md §6d); botocore checks their checksums."""
    buffer = EventStreamBuffer()
    async for chunk in chunks:
        buffer.add_data(chunk)
        try:
            events = [_event_of(message) for message in buffer]
        except (ParserError, KeyError, TypeError, ValueError) as failure:
            raise Unavailable(f"the provider's stream cannot be read ({type(failure).__name__})") from failure
        for event in events:
            yield event


def _event_of(message: EventStreamMessage) -> dict[str, Any]:
    """A frame as `{type: content}`; one that tells of an error as `{"exception": {"type", "message"}}`."""
    headers: Mapping[str, Any] = message.to_response_dict()["headers"]
    if headers[":message-type"] == "event":
        return {str(headers[":event-type"]): orjson.loads(message.payload)}
    if headers[":message-type"] == "exception":
        return {"exception": {**orjson.loads(message.payload), "type": headers[":exception-type"]}}
    # An `error` is one that the service model does not know, told in headers alone.
    return {"exception": {"type": headers.get(":error-code")}}


# --- credentials ------------------------------------------------------------------------------------------------


def _find(params: BedrockParams) -> Credentials | None:
    session = botocore.session.Session(profile=params.aws_profile_name)
    if params.aws_access_key_id and params.aws_secret_access_key:
        token = params.aws_session_token.get_secret_value() if params.aws_session_token else None
        session.set_credentials(
            params.aws_access_key_id.get_secret_value(), params.aws_secret_access_key.get_secret_value(), token
        )
    found = session.get_credentials()
    if found is None or params.aws_role_name is None:
        return found
    role = AssumeRoleCredentialFetcher(
        partial(session.create_client, region_name=params.aws_region_name),
        found,
        params.aws_role_name,
        extra_args={"RoleSessionName": params.aws_session_name},
    )
    return DeferredRefreshableCredentials(role.fetch_credentials, "assume-role")


def _opened(params: BedrockParams, credentials: AwsCredentials, http: Http, place: StoragePlace) -> Objects:
    bucket, region = place.bucket, place.region or params.s3_region
    # S3 refuses a part of which it gets other bytes. The digest costs nothing: it is the one that is signed.
    config: S3Config = {"region": region, "checksum_algorithm": "SHA256"}
    if params.s3_endpoint_url:
        config["endpoint"] = params.s3_endpoint_url
    store = S3Store(
        bucket,
        config=config,
        client_options=CLIENT_OPTIONS,
        retry_config=NO_RETRIES,
        credential_provider=credentials.for_objects,
    )

    async def authorized(url: URL) -> dict[str, str]:
        request = AWSRequest("HEAD", str(url), {"x-amz-checksum-mode": "ENABLED"})
        S3SigV4Auth(await credentials.current(), "s3", region).add_auth(request)
        return dict(request.headers.items())

    url = f"{params.s3_endpoint_url or f'https://s3.{region}.amazonaws.com'}/{bucket}"
    proof = Proof(http, url, authorized, partial(PartsSha256, PART_BYTES))
    return Objects(store, "s3", bucket, place.prefix, proof=proof)
