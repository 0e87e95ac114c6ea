"""Vertex AI: Gemini's chats at other URLs, and files as objects in a bucket of Google Cloud Storage (wire.md §5).

Contract: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
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

from app.errors import ProviderError, Unauthorized, Unavailable
from app.formats.openai import Chat
from app.providers import gemini
from app.providers.checksums import Crc32c
from app.providers.http import Http, base_url
from app.providers.objects import CLIENT_OPTIONS, NO_RETRIES, FilesInBucket, Objects, Proof
from app.providers.protocol import PURPOSES, Capabilities
from app.providers.translated import Call

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from obstore.store import GCSConfig, GCSCredential

# --- declaration ------------------------------------------------------------------------------------------------

AWS_SUBJECT = "urn:ietf:params:aws:token-type:aws4_request"
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
# A token is renewed this long before its end.
MARGIN = timedelta(minutes=5)

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

    @field_validator("api_base", "gcs_endpoint")
    @classmethod
    def _is_url(cls, text: str | None) -> str | None:
        return None if text is None else base_url(text)

    @field_validator("gcs_prefix")
    @classmethod
    def _is_folder(cls, text: str) -> str:
        return f"{text.strip('/')}/".lstrip("/")

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
        self._bucket: Objects | None = None
        self.capabilities = WITHOUT_BUCKET
        if params.gcs_bucket:
            self._bucket = _bucket(params, params.gcs_bucket, self._credentials, http)
            self.capabilities = CAPABILITIES

    async def check(self) -> None:
        """List one model, and one object of the bucket: free, and it needs endpoints and credentials."""
        # The list is one of v1beta1 alone.
        url = URL(f"{self._params.url}/v1beta1/publishers/google/models?pageSize=1", encoded=True)
        await self._http.accepted("GET", url, headers=await self._authorized(), error_of=self._error)
        if self._bucket is not None:
            await self._bucket.check()

    async def _authorized(self) -> dict[str, str]:
        """The headers of a call."""
        headers = {"content-type": "application/json"}
        if self._params.api_key:
            return headers | {"x-goog-api-key": self._params.api_key.get_secret_value()}
        # Also names the project that pays, where the credentials do.
        (await self._credentials.current()).apply(headers)  # type: ignore[no-untyped-call]
        return headers

    # --- files --------------------------------------------------------------------------------------------------

    async def _objects(self) -> Objects:
        bucket = self._named_bucket()
        # What is wrong with them would not be told through obstore.
        await self._credentials.current()
        return bucket

    # --- chat ---------------------------------------------------------------------------------------------------

    async def _chat_call(self, chat: Chat, body: bytes) -> Call:
        headers = await self._authorized()
        model = f"publishers/google/models/{quote(chat.provider_model, safe='')}"
        if not self._params.api_key:
            # A key belongs to a project already (wire.md §5a).
            model = f"projects/{self._credentials.project}/locations/{self._params.vertex_location}/{model}"
        url = f"{self._params.url}/{self._params.api_version}/{model}{gemini.verb_of(chat)}"
        return Call(URL(url, encoded=True), headers, body)

    async def _blame_files(self, chat: Chat, failure: ProviderError) -> None:
        """Ask for each file: what a missing object is answered with is unverified (wire.md §5c)."""
        if self._bucket is not None and not failure.retryable:
            for file_id in chat.file_ids():
                if file_id.startswith(self._bucket.file_id_of("")):
                    await self.retrieve_file(file_id)


def _bucket(params: VertexParams, bucket: str, credentials: _AccountCredentials, http: Http) -> Objects:
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
    return Objects(store, "gs", bucket, params.gcs_prefix, proof=Proof(http, url, authorized, Crc32c))


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
