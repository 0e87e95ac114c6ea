"""AWS Bedrock: chats by Converse, files as S3 objects (wire.md §6).

Contract: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html. botocore finds credentials,
signs, and takes the event stream's frames apart; its clients are synchronous, so calls go through the shared Http.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

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
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
)
from app.formats import converse
from app.formats.answers import Reader
from app.formats.openai import Chat
from app.providers.aws import AwsCredentials
from app.providers.checksums import PartsSha256
from app.providers.http import Http, base_url, kind_of_status, retry_after_seconds
from app.providers.objects import CLIENT_OPTIONS, NO_RETRIES, PART_BYTES, FilesInBucket, Objects, Proof
from app.providers.protocol import PURPOSES, Capabilities
from app.providers.translated import LARGE_BODY_BYTES, Call, Translating

if TYPE_CHECKING:
    from obstore.store import S3Config

# --- declaration ------------------------------------------------------------------------------------------------

SERVICE = "bedrock"
# LiteLLM writes bedrock/converse/<model> to say which of two APIs it is to use.
LITELLM_PREFIX = "converse/"
# A video's limit counts its base64 (service model, VideoSource), as that of a request's body does.
_ENCODED_LIMIT_BYTES = 25_000_000 * 3 // 4

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
)
# Without a bucket there is nowhere to keep a file: what is read by reference elsewhere travels inline.
WITHOUT_BUCKET = CAPABILITIES.without_files(reference_models=())


class BedrockParams(BaseModel):
    """The parameters of a Bedrock account, under LiteLLM's names.

    `api_key` is a Bedrock API key, which S3 does not take: the bucket is always reached with the AWS credentials, given
    as keys, as a profile, or found where botocore looks; `aws_role_name` is the ARN of a role to assume with them.
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

    @field_validator("aws_bedrock_runtime_endpoint", "api_base", "aws_bedrock_control_endpoint", "s3_endpoint_url")
    @classmethod
    def _is_url(cls, text: str | None) -> str | None:
        return None if text is None else base_url(text)

    @field_validator("s3_prefix")
    @classmethod
    def _is_folder(cls, text: str) -> str:
        return f"{text.strip('/')}/".lstrip("/")

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
    def control_url(self) -> str:
        """Where the models are listed. Who puts something before one plane has put it before both."""
        endpoint = self.aws_bedrock_control_endpoint or self.aws_bedrock_runtime_endpoint or self.api_base
        return endpoint or f"https://bedrock.{self.aws_region_name}.amazonaws.com"


class Bedrock(FilesInBucket, Translating):
    """One Bedrock account in one region, with its bucket if it has one."""

    name = "bedrock"
    bucket_param = "s3_bucket_name"

    def __init__(self, params: BedrockParams, http: Http) -> None:
        self._params, self._http = params, http
        self._credentials = AwsCredentials(partial(_find, params))
        self._bucket: Objects | None = None
        self.capabilities = WITHOUT_BUCKET
        if params.s3_bucket_name:
            self._bucket = _bucket(params, params.s3_bucket_name, self._credentials, http)
            self.capabilities = CAPABILITIES

    async def check(self) -> None:
        """List the models, and the bucket: free, and it needs endpoints and credentials."""
        url = URL(f"{self._params.control_url}/foundation-models", encoded=True)
        headers = await self._authorized("GET", url, b"")
        await self._http.accepted("GET", url, headers=headers, error_of=self._error)
        if self._bucket is not None:
            await self._bucket.check()

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
        model = chat.provider_model.removeprefix(LITELLM_PREFIX)
        path = f"/model/{quote(model, safe='')}/{verb}"
        url = URL(self._params.runtime_url + path, encoded=True)
        return Call(url, await self._authorized("POST", url, body), body)

    def _reader(self, chat: Chat) -> Reader:
        # An answer of Converse has no id.
        return converse.Reader(f"chatcmpl-{secrets.token_hex(12)}", chat.provider_model)

    def _events(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
        return frame_events(chunks)

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


def _bucket(params: BedrockParams, bucket: str, credentials: AwsCredentials, http: Http) -> Objects:
    region = params.s3_region_name or params.aws_region_name
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
    return Objects(store, "s3", bucket, params.s3_prefix, proof=proof)
