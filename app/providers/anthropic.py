"""Anthropic: the Files, Messages and Message Batches APIs (wire.md §3).

Contract: https://docs.anthropic.com/en/api/files-create, …/messages and …/creating-message-batches.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal
from urllib.parse import quote

import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from yarl import URL

from app.errors import (
    Missing,
    ProviderError,
    QuotaExceeded,
    Rejected,
    Unavailable,
    Unsupported,
)
from app.formats import anthropic as messages
from app.formats.answers import Reader
from app.formats.batch_lines import CHAT_ENDPOINT, BatchResult, error_body
from app.formats.openai import Chat
from app.providers.http import (
    Http,
    after_acceptance,
    base_url,
    json_object,
    plain_error,
    retry_after_seconds,
    send_multipart,
    unix_seconds,
)
from app.providers.protocol import (
    ENDED,
    NO_LIMIT,
    PURPOSES,
    BatchLimits,
    BatchStatus,
    BatchSubmission,
    Capabilities,
    FileContent,
    FileUpload,
    ProviderBatch,
    ProviderBatchPage,
    ProviderFile,
    ProviderFilePage,
    StoragePlace,
)
from app.providers.translated import BatchRun, Call, Translating, batch_results

# --- declaration ------------------------------------------------------------------------------------------------

VENDOR_HOST = ".anthropic.com"
NEWEST_VERSION: Final = "2026-10-21"
MIN_EXPIRY_SECONDS, MAX_EXPIRY_SECONDS = 3600, 7_776_000
# A list page's bounds.
MAX_PAGE = 1000
KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")

CAPABILITIES = Capabilities(
    purposes=PURPOSES,
    max_file_bytes=500 * 1024 * 1024,
    needs_length=False,
    # Only what its tools have made is given back (wire.md §3b).
    readable=frozenset(),
    lists_files=True,
    file_ttl_seconds=None,
    chooses_id=False,
    batch_input="inline",
    chat_files={
        "application/pdf": "reference",
        "text/plain": "reference",
        "image/png": "reference",
        "image/jpeg": "reference",
        "image/gif": "reference",
        "image/webp": "reference",
        "text/*": "text",
        "*": "unsupported",
    },
    # A request is at most 32 MB, base64 included.
    inline_max_bytes={"text/*": 10 * 1024 * 1024, "*": 20 * 1024 * 1024},
    batch=BatchLimits(max_lines=100_000, max_bytes=256_000_000, named=False),
)


class AnthropicParams(BaseModel):
    """The parameters of an Anthropic account. `max_tokens` is the answer's limit when the caller names none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api_key: SecretStr
    api_base: str = "https://api.anthropic.com"
    api_version: Literal["2026-10-21", "2023-06-01"] = NEWEST_VERSION
    auth_header: Literal["authorization", "x-api-key"] = "authorization"
    workspace_id: str | None = None
    max_tokens: int = Field(default=4096, ge=1)

    @field_validator("api_base")
    @classmethod
    def _is_url(cls, text: str) -> str:
        return base_url(text).removesuffix("/v1")


class Anthropic(Translating):
    """One Anthropic account, or workspace."""

    name = "anthropic"
    capabilities = CAPABILITIES

    def __init__(self, params: AnthropicParams, http: Http) -> None:
        key = params.api_key.get_secret_value()
        self._headers: dict[str, str] = {"anthropic-version": params.api_version}
        if params.auth_header == "authorization":
            self._headers["authorization"] = f"Bearer {key}"
        else:
            self._headers["x-api-key"] = key
        if params.workspace_id:
            self._headers["anthropic-workspace-id"] = params.workspace_id
        self._base, self._http = f"{params.api_base}/v1", http
        if not str(URL(self._base).host).endswith(VENDOR_HOST):
            # As with OpenAI: whoever speaks this API elsewhere has limits of its own, and tells them with a 413.
            self.capabilities = replace(CAPABILITIES, max_file_bytes=NO_LIMIT)
        self._messages_url = URL(f"{self._base}/messages")
        self._json_headers = {**self._headers, "content-type": "application/json"}
        self._dialect = messages.Dialect(params.api_version != NEWEST_VERSION, params.max_tokens)

    def _url(self, path: str, params: Mapping[str, str] | None = None) -> URL:
        return URL(self._base + path, encoded=True).with_query(params or {})

    async def _call(self, method: str, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        return await self._http.json(method, self._url(path, params), headers=self._headers, error_of=self._error)

    async def check(self) -> None:
        """List one model: free, and it needs endpoint and key."""
        await self._call("GET", "/models", {"limit": "1"})

    # --- files --------------------------------------------------------------------------------------------------

    async def upload_file(self, upload: FileUpload) -> ProviderFile:
        """POST /v1/files; a purpose does not exist there, and is kept in our own row."""
        fields = {}
        if upload.expires_after_seconds is not None:
            seconds = min(max(upload.expires_after_seconds, MIN_EXPIRY_SECONDS), MAX_EXPIRY_SECONDS)
            fields["expires_in_seconds"] = str(seconds)
        content = await send_multipart(self._http, self._url("/files"), self._headers, fields, upload, self._error)
        with after_acceptance():
            return _provider_file(json_object(content))

    async def retrieve_file(self, provider_file_id: str) -> ProviderFile:
        """GET /v1/files/{id}."""
        return _provider_file(await self._call("GET", f"/files/{provider_file_id}"))

    def read_file(self, provider_file_id: str) -> AbstractAsyncContextManager[FileContent]:
        """GET /v1/files/{id}/content, which it allows for files of its own tools."""
        url = self._url(f"/files/{provider_file_id}/content")
        return self._http.content(url, headers=self._headers, error_of=self._error)

    async def list_files(self, after: str | None, limit: int, storage: StoragePlace | None = None) -> ProviderFilePage:
        """GET /v1/files, newest first; the older beta shape pages by after_id (wire.md §3b)."""
        params = {"limit": str(min(limit, MAX_PAGE))}
        if after:
            name, _, cursor = after.partition("=")
            params[name] = cursor
        page = await self._call("GET", "/files", params)
        files = tuple(_provider_file(item) for item in page.get("data", ()))
        if page.get("next_page"):
            return ProviderFilePage(files, f"page={page['next_page']}")
        more = page.get("has_more") and page.get("last_id")
        return ProviderFilePage(files, f"after_id={page['last_id']}" if more else None)

    async def delete_file(self, provider_file_id: str) -> None:
        """DELETE /v1/files/{id}."""
        await self._call("DELETE", f"/files/{provider_file_id}")

    def chosen_file_id(self, replica_id: str) -> str:
        """Raise Unsupported: Anthropic names its files."""
        raise Unsupported("this provider chooses the ids of its files")

    # --- chat ---------------------------------------------------------------------------------------------------

    def _translate(self, chat: Chat) -> dict[str, Any]:
        return messages.translate(chat, self._dialect)

    async def _chat_call(self, chat: Chat, body: bytes) -> Call:
        return Call(self._messages_url, self._json_headers, body)

    def _reader(self, provider_model: str) -> Reader:
        return messages.Reader()

    async def _blame_files(self, chat: Chat, failure: ProviderError) -> None:
        """Ask for each file: a model that does not exist is answered with the same 404 (wire.md §3b)."""
        if isinstance(failure, Missing):
            for file_id in chat.file_ids():
                await self.retrieve_file(file_id)

    # --- batches ------------------------------------------------------------------------------------------------

    def _batch_line(self, key: str, chat: Chat, body: bytes) -> bytes:
        if not KEY.fullmatch(key):
            raise Rejected("a request of a batch is told by 1 to 64 letters, digits, - and _", param="custom_id")
        return orjson.dumps({"custom_id": key, "params": orjson.Fragment(body)})

    async def create_batch(self, batch: BatchSubmission) -> ProviderBatch:
        """POST /v1/messages/batches, the lines as the elements of one JSON list. There is no place for a name."""
        if batch.open is None:
            raise Unsupported("this provider takes a batch's lines with the batch itself, not as a file")
        url = self._url("/messages/batches")
        content = await self._submitted(url, self._json_headers, _requests(batch.open()))
        with after_acceptance():
            return _provider_batch(json_object(content))

    async def retrieve_batch(self, provider_batch_id: str) -> ProviderBatch:
        """GET /v1/messages/batches/{id}."""
        return _provider_batch(await self._call("GET", _batch_path(provider_batch_id)))

    async def list_batches(self, after: str | None, limit: int) -> ProviderBatchPage:
        """GET /v1/messages/batches, newest first."""
        params = {"limit": str(min(limit, MAX_PAGE))} | ({"after_id": after} if after else {})
        page = await self._call("GET", "/messages/batches", params)
        batches = tuple(_provider_batch(item) for item in page.get("data") or ())
        return ProviderBatchPage(batches, page.get("last_id") if page.get("has_more") else None)

    async def cancel_batch(self, provider_batch_id: str) -> None:
        """POST /v1/messages/batches/{id}/cancel; what one that has ended is answered with is unverified."""
        try:
            await self._call("POST", f"{_batch_path(provider_batch_id)}/cancel")
        except Rejected:
            if (await self.retrieve_batch(provider_batch_id)).status not in ENDED:
                raise

    @asynccontextmanager
    async def read_batch_output(self, batch: ProviderBatch) -> AsyncIterator[AsyncIterator[list[BatchResult]]]:
        """The JSON lines at the batch's own results_url."""
        address = (await self._call("GET", _batch_path(batch.id))).get("results_url")
        if not address:
            raise Missing("the provider keeps the results of this batch no more")
        url = URL(str(address), encoded=True)
        if not url.absolute or url.origin() != self._messages_url.origin():
            # The key goes where the account is, and nowhere else.
            raise Unavailable("the provider keeps the results of this batch at another host")
        async with self._http.content(url, headers=self._headers, error_of=self._error) as content:
            yield batch_results(content.chunks, partial(self._result, BatchRun("", batch.ended_at or 0)))

    def _result(self, run: BatchRun, line: Any) -> BatchResult:
        """What a line of the results says (wire.md §3e)."""
        key = str(line["custom_id"])
        match line.get("result"):
            case {"type": "canceled"}:
                return BatchResult(key, code="batch_cancelled", message="the batch was cancelled before this ran")
            case {"type": "expired"}:
                return BatchResult(key, code="batch_expired", message="the batch expired before this ran")
            case {"type": "errored", "error": {"error": {"type": str(kind), "message": str(message)}}}:
                status = STATUS_OF_ERROR.get(kind, 500)
                return BatchResult(key, status, error_body(status, message, code=kind))
            case {"type": "succeeded", "message": message}:
                return self._batch_answer(key, run, message)
            case unknown:
                return self._batch_answer(key, run, unknown)

    async def forget_batch(self, batch: ProviderBatch) -> None:
        """DELETE /v1/messages/batches/{id}, its results with it."""
        with suppress(Missing):
            await self._call("DELETE", _batch_path(batch.id))

    # --- errors -------------------------------------------------------------------------------------------------

    def _error(self, status: int, headers: Mapping[str, str], content: bytes) -> ProviderError:
        """Status and documented code → our tree (wire.md §3b); never by the message's text."""
        message, kind, code = _error_fields(content)
        message = message or f"the provider answered {status}"
        if status == 402 or code == "storage_quota_exceeded" or str(code).endswith("_spend_limit_reached"):
            return QuotaExceeded(message)
        return plain_error(status, message, wait=retry_after_seconds(headers), code=code or kind)


def _error_fields(content: bytes) -> tuple[str | None, str | None, str | None]:
    """Message, type and details.error_code of Anthropic's envelope."""
    try:
        error = orjson.loads(content)["error"]
        details = error.get("details") or {}
        return str(error["message"])[:2000], error.get("type"), details.get("error_code")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None, None, None


def _provider_file(item: Any) -> ProviderFile:
    if not isinstance(item, dict) or "id" not in item:
        raise Unavailable("the provider's answer is not a file")
    return ProviderFile(
        id=str(item["id"]),
        filename=item.get("filename"),
        bytes=item.get("size_bytes"),
        purpose=None,
        created_at=unix_seconds(item.get("created_at")),
        expires_at=unix_seconds(item.get("expires_at")),
    )


# --- batches ----------------------------------------------------------------------------------------------------

# The types of wire.md §3b.
STATUS_OF_ERROR = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


async def _requests(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines as the elements of one list. A newline stands between them and nowhere else; one at the end waits."""
    yield b'{"requests":['
    newline = b""
    async for chunk in lines:
        text = newline + chunk
        elements = text.rstrip(b"\n")
        newline = text[len(elements) :]
        yield elements.replace(b"\n", b",")
    yield b"]}"


def _batch_path(provider_batch_id: str) -> str:
    return f"/messages/batches/{quote(provider_batch_id, safe='')}"


def _provider_batch(item: dict[str, Any]) -> ProviderBatch:
    if not isinstance(counts := item.get("request_counts"), dict) or "id" not in item:
        raise Unavailable("the provider's answer is not a batch")
    return ProviderBatch(
        id=str(item["id"]),
        status=_status(item, counts),
        created_at=unix_seconds(item.get("created_at")),
        ended_at=unix_seconds(item.get("ended_at")),
        expires_at=unix_seconds(item.get("expires_at")),
        endpoint=CHAT_ENDPOINT,
        total=sum(counts.values()),
        completed=counts.get("succeeded", 0),
        failed=sum(counts.get(kind, 0) for kind in ("errored", "canceled", "expired")),
    )


def _status(item: Mapping[str, Any], counts: Mapping[str, int]) -> BatchStatus:
    """OpenAI's word (wire.md §3e)."""
    match item.get("processing_status"):
        case "canceling":
            return "cancelling"
        case "ended" if item.get("cancel_initiated_at"):
            return "cancelled"
        case "ended" if counts.get("expired") and counts["expired"] == sum(counts.values()):
            return "expired"
        case "ended":
            return "completed"
    return "in_progress"
