"""Anthropic: the Files and Messages APIs (wire.md §3).

Contract: https://docs.anthropic.com/en/api/files-create and …/messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from yarl import URL

from app.errors import (
    Missing,
    ProviderError,
    QuotaExceeded,
    Unavailable,
    Unsupported,
)
from app.formats import anthropic as messages
from app.formats.answers import Reader
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
    NO_LIMIT,
    PURPOSES,
    Capabilities,
    FileContent,
    FileUpload,
    ProviderFile,
    ProviderFilePage,
)
from app.providers.translated import Call, Translating

# --- declaration ------------------------------------------------------------------------------------------------

VENDOR_HOST = ".anthropic.com"
NEWEST_VERSION: Final = "2026-10-21"
MIN_EXPIRY_SECONDS, MAX_EXPIRY_SECONDS = 3600, 7_776_000
# A list page's bounds.
MAX_PAGE = 1000

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

    async def list_files(self, after: str | None, limit: int) -> ProviderFilePage:
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
        return Call(self._messages_url, {**self._headers, "content-type": "application/json"}, body)

    def _reader(self, chat: Chat) -> Reader:
        return messages.Reader()

    async def _blame_files(self, chat: Chat, failure: ProviderError) -> None:
        """Ask for each file: a model that does not exist is answered with the same 404 (wire.md §3b)."""
        if isinstance(failure, Missing):
            for file_id in chat.file_ids():
                await self.retrieve_file(file_id)

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
