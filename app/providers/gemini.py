"""Gemini, as AI Studio serves it: the Files API and generateContent (wire.md §4).

Contract: https://ai.google.dev/api/files and …/generate-content.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal
from urllib.parse import quote

import orjson
from pydantic import BaseModel, ConfigDict, SecretStr, field_validator
from yarl import URL

from app.errors import (
    Missing,
    ProviderError,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
)
from app.formats import gemini
from app.formats.answers import Reader
from app.formats.openai import Chat
from app.providers.checksums import verified
from app.providers.http import (
    READ_CHUNK_BYTES,
    Http,
    after_acceptance,
    base_url,
    json_object,
    plain_error,
    retry_after_seconds,
    send_upload,
    unix_seconds,
)
from app.providers.protocol import (
    PURPOSES,
    Capabilities,
    FileContent,
    FileUpload,
    ProviderFile,
    ProviderFilePage,
)
from app.providers.translated import Call, Translating

# --- declaration ------------------------------------------------------------------------------------------------

MAX_PAGE = 100
MAX_NAME = 512
ALREADY_EXISTS = "ALREADY_EXISTS"
API_KEY_INVALID = "API_KEY_INVALID"

CAPABILITIES = Capabilities(
    purposes=PURPOSES,
    max_file_bytes=2 * 1024**3,
    needs_length=False,
    # Only what its models have made is given back (wire.md §4b).
    readable=frozenset(),
    lists_files=True,
    file_ttl_seconds=48 * 3600,
    chooses_id=True,
    batch_input="file",
    chat_files={
        "application/pdf": "reference",
        "text/*": "reference",
        "image/*": "reference",
        "audio/*": "reference",
        "video/*": "reference",
        "*": "unsupported",
    },
    # A request is at most 100 MB, base64 included, and a PDF in it 50 MB (wire.md §4b).
    inline_max_bytes={"text/*": 10 * 1024 * 1024, "*": 50_000_000},
)


class GeminiParams(BaseModel):
    """The parameters of a Gemini account."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api_key: SecretStr
    api_base: str = "https://generativelanguage.googleapis.com"
    api_version: Literal["v1", "v1beta"] = "v1"

    @field_validator("api_base")
    @classmethod
    def _is_url(cls, text: str) -> str:
        return base_url(text).removesuffix("/v1").removesuffix("/v1beta")


# --- chat and errors, which Vertex AI has in common -------------------------------------------------------------


class GenerateContent(Translating):
    """A provider of the Gemini models; a subclass knows where they are."""

    def _translate(self, chat: Chat) -> dict[str, Any]:
        return gemini.translate(chat)

    def _reader(self, chat: Chat) -> Reader:
        return gemini.Reader(chat.provider_model)

    def _error(self, status: int, headers: Mapping[str, str], content: bytes) -> ProviderError:
        """Status and documented code → our tree (wire.md §4b); never by the message's text."""
        error = _error_object(content)
        details = {str(one.get("@type")).rpartition(".")[2]: one for one in error.get("details") or ()}
        message = str(error.get("message") or f"the provider answered {status}")[:2000]
        wait = retry_after_seconds(headers) or _seconds(details.get("RetryInfo", {}).get("retryDelay"))
        if details.get("ErrorInfo", {}).get("reason") == API_KEY_INVALID:
            # A wrong key is a 400.
            return Unauthorized(f"the provider refused the gateway's credentials ({status})")
        if status == 409:
            return RateLimited(message, code=ALREADY_EXISTS, retry_after_seconds=wait)
        return plain_error(status, message, wait=wait, code=error.get("status"))


def verb_of(chat: Chat) -> str:
    """What follows the model in a chat's URL."""
    return ":streamGenerateContent?alt=sse" if chat.request.stream else ":generateContent"


def _error_object(content: bytes) -> dict[str, Any]:
    """Google's error, which a streaming method wraps in a list."""
    try:
        body = orjson.loads(content)
        return dict((body[0] if isinstance(body, list) else body)["error"])
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError):
        return {}


def _seconds(duration: Any) -> float | None:
    """A proto3 duration such as `7.5s`."""
    try:
        return float(str(duration).removesuffix("s")) if duration else None
    except ValueError:
        return None


# --- AI Studio --------------------------------------------------------------------------------------------------


class Gemini(GenerateContent):
    """One Gemini account: the project that a key belongs to."""

    name = "gemini"
    capabilities = CAPABILITIES

    def __init__(self, params: GeminiParams, http: Http) -> None:
        self._headers = {"x-goog-api-key": params.api_key.get_secret_value()}
        self._json_headers = {**self._headers, "content-type": "application/json"}
        self._base = f"{params.api_base}/{params.api_version}"
        self._upload_url = URL(f"{params.api_base}/upload/{params.api_version}/files", encoded=True)
        self._http = http

    def _url(self, path: str, params: Mapping[str, str] | None = None) -> URL:
        return URL(self._base + path, encoded=True).with_query(params or {})

    async def _call(self, method: str, url: URL) -> dict[str, Any]:
        return await self._http.json(method, url, headers=self._headers, error_of=self._error)

    async def check(self) -> None:
        """List one model: free, and it needs endpoint and key."""
        await self._call("GET", self._url("/models", {"pageSize": "1"}))

    # --- files --------------------------------------------------------------------------------------------------

    async def upload_file(self, upload: FileUpload) -> ProviderFile:
        """The resumable protocol, with all bytes in the one request that also ends it; the name is the replica's."""
        file = await self._made(upload)
        intact = upload.sha256 is None or file.sha256 in (None, upload.sha256())
        return await verified(file, intact=intact, delete_file=self.delete_file)

    async def _made(self, upload: FileUpload) -> ProviderFile:
        try:
            session = await self._start(upload)
            command = {"x-goog-upload-command": "upload, finalize", "x-goog-upload-offset": "0"}
            content = await send_upload(self._http, session, command, upload, self._error)
        except RateLimited as refused:
            if refused.code != ALREADY_EXISTS:
                raise
            return await self._made_before(upload, refused)
        with after_acceptance():
            return _provider_file(json_object(content).get("file"))

    async def _start(self, upload: FileUpload) -> URL:
        """Begin an upload: the address for its bytes, which needs no key."""
        headers = {
            **self._json_headers,
            "x-goog-upload-protocol": "resumable",
            "x-goog-upload-command": "start",
            "x-goog-upload-header-content-type": upload.mime_type,
        }
        if upload.size_bytes is not None:
            # That it may be left out is unverified: the protocol's, not the SDK's, which always knows it (wire.md §4b).
            headers["x-goog-upload-header-content-length"] = str(upload.size_bytes)
        file = {
            "name": self.chosen_file_id(upload.replica_id),
            "displayName": upload.filename[:MAX_NAME],
            "mimeType": upload.mime_type,
        }
        body = orjson.dumps({"file": file})
        answer = await self._http.accepted("POST", self._upload_url, headers=headers, error_of=self._error, body=body)
        if not (session := answer.headers.get("x-goog-upload-url")):
            raise Unavailable("the provider began no upload")
        return URL(session, encoded=True)

    async def _made_before(self, upload: FileUpload, refused: RateLimited) -> ProviderFile:
        """The file of this name, from an attempt whose answer was lost; else the refusal is what it says."""
        try:
            file = await self.retrieve_file(self.chosen_file_id(upload.replica_id))
        except Missing:
            raise refused from None
        if upload.size_bytes not in (None, file.bytes):
            raise refused
        return file

    async def retrieve_file(self, provider_file_id: str) -> ProviderFile:
        """GET /files/{name}. Raises Rejected for a file that could not be processed."""
        item = await self._file_call("GET", provider_file_id)
        if item.get("state") == "FAILED":
            reason = (item.get("error") or {}).get("message") or "the provider could not process the file"
            raise Rejected(str(reason)[:2000], code="file_not_processed")
        return _provider_file(item)

    @asynccontextmanager
    async def read_file(self, provider_file_id: str) -> AsyncIterator[FileContent]:
        """GET /files/{name}:download, which it allows for files of its own models."""
        url = self._file_url(provider_file_id, ":download").with_query(alt="media")
        async with self._http.open("GET", url, headers=self._headers) as answer:
            if answer.status == 403:
                raise await self._forbidden()
            if answer.status >= 300:
                raise self._error(answer.status, answer.headers, await answer.read())
            yield FileContent(answer.content.iter_chunked(READ_CHUNK_BYTES), answer.content_length)

    async def list_files(self, after: str | None, limit: int) -> ProviderFilePage:
        """GET /files."""
        params = {"pageSize": str(min(limit, MAX_PAGE))} | ({"pageToken": after} if after else {})
        page = await self._call("GET", self._url("/files", params))
        return ProviderFilePage(
            tuple(_provider_file(item) for item in page.get("files") or ()), page.get("nextPageToken") or None
        )

    async def delete_file(self, provider_file_id: str) -> None:
        """DELETE /files/{name}."""
        await self._file_call("DELETE", provider_file_id)

    def chosen_file_id(self, replica_id: str) -> str:
        """The name of a replica's file, which does for its uri."""
        return f"files/{replica_id}"

    def _file_url(self, provider_file_id: str, verb: str = "") -> URL:
        """A file by its uri or its name: whatever API version the uri is of, the account's own is as good."""
        return self._url(f"/files/{quote(provider_file_id.rpartition('/')[2], safe='')}{verb}")

    async def _file_call(self, method: str, provider_file_id: str) -> dict[str, Any]:
        answer = await self._http.call(method, self._file_url(provider_file_id), headers=self._headers)
        if answer.status_code == 403:
            raise await self._forbidden()
        if answer.status_code >= 300:
            raise self._error(answer.status_code, answer.headers, answer.content)
        return json_object(answer.content)

    async def _forbidden(self) -> ProviderError:
        """What a 403 on a file means: credentials that are good for something else are not the reason, so the file is
        expired or foreign (wire.md §4b). Raises Unauthorized for those that are not."""
        await self.check()
        return Missing("the provider holds no such file for this account")

    # --- chat ---------------------------------------------------------------------------------------------------

    async def _chat_call(self, chat: Chat, body: bytes) -> Call:
        model = quote(chat.provider_model.removeprefix("models/"), safe="")
        url = URL(f"{self._base}/models/{model}{verb_of(chat)}", encoded=True)
        return Call(url, self._json_headers, body)

    async def _blame_files(self, chat: Chat, failure: ProviderError) -> None:
        """Ask for each file: one that is gone is answered with a 403 (wire.md §4b), and so is much else."""
        if not failure.retryable:
            for file_id in chat.file_ids():
                await self.retrieve_file(file_id)


def _provider_file(item: Any) -> ProviderFile:
    if not isinstance(item, dict) or "uri" not in item:
        raise Unavailable("the provider's answer is not a file")
    size = item.get("sizeBytes")
    return ProviderFile(
        id=str(item["uri"]),
        filename=item.get("displayName"),
        bytes=None if size is None else int(size),
        purpose=None,
        created_at=unix_seconds(item.get("createTime")),
        expires_at=unix_seconds(item.get("expirationTime")),
        ready=item.get("state", "ACTIVE") == "ACTIVE",
        sha256=_sha256(item.get("sha256Hash")),
    )


def _sha256(encoded: Any) -> str | None:
    """The digest in hex, from base64 of its bytes or, as the service is known to write it, of its hex (wire.md §4b)."""
    try:
        digest = b64decode(encoded, validate=True)
        return (digest if len(digest) == 32 else bytes.fromhex(digest.decode())).hex()
    except (TypeError, ValueError):
        return None
