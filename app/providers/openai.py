"""OpenAI, and every server that speaks its API at another base URL.

Contract: https://platform.openai.com/docs/api-reference/files, …/chat and …/batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, suppress
from dataclasses import replace
from typing import Any, ClassVar, get_args
from urllib.parse import quote

import aiohttp
import orjson
from pydantic import BaseModel, ConfigDict, SecretStr, field_validator
from yarl import URL

from app.errors import (
    Missing,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unavailable,
    Unsupported,
)
from app.formats.batch_lines import CHAT_ENDPOINT, ENDPOINTS, MAX_RESULT_LINE_BYTES, BadLine, BatchResult, Lines
from app.providers.absent import WithoutBatches, WithoutFiles
from app.providers.http import (
    CHAT_READ_SECONDS,
    Http,
    after_acceptance,
    base_url,
    connection_errors,
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
    BatchError,
    BatchLimits,
    BatchStatus,
    BatchSubmission,
    Capabilities,
    Carriage,
    ChatRequest,
    FileContent,
    FileUpload,
    ProviderBatch,
    ProviderBatchPage,
    ProviderFile,
    ProviderFilePage,
    StoragePlace,
)

# --- declaration ------------------------------------------------------------------------------------------------

CHAT_FILES: Mapping[str, Carriage] = {
    "application/pdf": "reference",
    "image/png": "inline",
    "image/jpeg": "inline",
    "image/gif": "inline",
    "image/webp": "inline",
    "audio/wav": "inline",
    "audio/mpeg": "inline",
    "text/*": "text",
    "application/json": "text",
    "*": "unsupported",
}

VENDOR_HOSTS = (".openai.com", ".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
REASONING = b'"reasoning_content"'
# The pair of a batch's metadata that is its name, and how many pairs there may be (wire.md §8.3).
NAME_PAIR = "filemux"
MAX_METADATA_PAIRS = 16
BATCH_STATUSES: Mapping[str, BatchStatus] = {status: status for status in get_args(BatchStatus)}

CAPABILITIES = Capabilities(
    purposes=PURPOSES,
    max_file_bytes=512 * 1024 * 1024,
    needs_length=False,
    # OpenAI refuses to return user_data, assistants and vision uploads (wire.md §0.1, fact 6).
    readable=frozenset({"batch", "fine-tune", "evals"}),
    lists_files=True,
    file_ttl_seconds=None,
    chooses_id=False,
    batch_input="file",
    chat_files=CHAT_FILES,
    # All file inputs of a request are at most 50 MB together (wire.md §1c).
    inline_max_bytes={"text/*": 10 * 1024 * 1024, "*": 20 * 1024 * 1024},
    speaks_openai=True,
    batch=BatchLimits(endpoints=ENDPOINTS),
)


class OpenAIParams(BaseModel):
    """The parameters of an OpenAI account."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api_key: SecretStr
    api_base: str = "https://api.openai.com/v1"
    organization: str | None = None
    project: str | None = None

    @field_validator("api_base")
    @classmethod
    def _is_url(cls, text: str) -> str:
        return base_url(text)


class CompatibleParams(OpenAIParams):
    """The parameters of an OpenAI-compatible server; many self-hosted ones take no key."""

    api_key: SecretStr | None = None  # type: ignore[assignment]


class OpenAI:
    """One OpenAI account."""

    capabilities: Capabilities = CAPABILITIES
    # Our purpose → the provider's, where they differ.
    purpose_map: ClassVar[Mapping[str, str]] = {}
    # OpenAI refuses the field in which other models' answers show their thinking.
    forgets_reasoning: ClassVar[bool] = True

    def __init__(self, params: OpenAIParams, http: Http) -> None:
        headers = {}
        if params.api_key:
            headers["authorization"] = f"Bearer {params.api_key.get_secret_value()}"
        if params.organization:
            headers["openai-organization"] = params.organization
        if params.project:
            headers["openai-project"] = params.project
        self._connect(params.api_base, headers, http)

    def _connect(self, base: str, headers: dict[str, str], http: Http, query: Mapping[str, str] | None = None) -> None:
        self._base, self._headers, self._http, self._query = base, headers, http, dict(query or {})
        self._json_headers = {**headers, "content-type": "application/json"}
        if not str(URL(base).host).endswith(VENDOR_HOSTS):
            # Whoever speaks this API at another host has limits of its own, and tells them with a 413; nor is it sure
            # that it gives a batch's metadata back.
            batch = replace(self.capabilities.batch, max_lines=NO_LIMIT, max_bytes=NO_LIMIT, named=False)
            self.capabilities = replace(self.capabilities, max_file_bytes=NO_LIMIT, batch=batch)
        self._chat_urls: dict[str, URL] = {}

    def _url(self, path: str, params: Mapping[str, str] | None = None) -> URL:
        return URL(self._base + path, encoded=True).with_query({**self._query, **(params or {})})

    def _chat_path(self, provider_model: str) -> str:
        """Where a chat of this model goes; every model's is the same here."""
        return "/chat/completions"

    async def _call(self, method: str, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        return await self._http.json(method, self._url(path, params), headers=self._headers, error_of=self._error)

    async def check(self) -> None:
        """List the models: free, and it needs endpoint and key."""
        await self._call("GET", "/models")

    # --- files --------------------------------------------------------------------------------------------------

    async def upload_file(self, upload: FileUpload) -> ProviderFile:
        """POST /files, streamed; the multipart is sent as the SDK does, the file last."""
        fields = {"purpose": self.purpose_map.get(upload.purpose, upload.purpose)}
        if upload.expires_after_seconds is not None:
            fields["expires_after[anchor]"] = "created_at"
            fields["expires_after[seconds]"] = str(upload.expires_after_seconds)
        content = await send_multipart(self._http, self._url("/files"), self._headers, fields, upload, self._error)
        with after_acceptance():
            return _provider_file(json_object(content))

    async def retrieve_file(self, provider_file_id: str) -> ProviderFile:
        """GET /files/{id}."""
        return _provider_file(await self._call("GET", f"/files/{provider_file_id}"))

    def read_file(self, provider_file_id: str) -> AbstractAsyncContextManager[FileContent]:
        """GET /files/{id}/content."""
        url = self._url(f"/files/{provider_file_id}/content")
        return self._http.content(url, headers=self._headers, error_of=self._error)

    async def list_files(self, after: str | None, limit: int, storage: StoragePlace | None = None) -> ProviderFilePage:
        """GET /files, newest first."""
        params = {"limit": str(limit), "order": "desc"}
        if after:
            params["after"] = after
        page = await self._call("GET", "/files", params)
        files = tuple(_provider_file(item) for item in page.get("data", ()))
        return ProviderFilePage(files, files[-1].id if files and page.get("has_more") else None)

    async def delete_file(self, provider_file_id: str) -> None:
        """DELETE /files/{id}."""
        await self._call("DELETE", f"/files/{provider_file_id}")

    def chosen_file_id(self, replica_id: str) -> str:
        """Raise Unsupported: OpenAI names its files."""
        raise Unsupported("this provider chooses the ids of its files")

    # --- chat ---------------------------------------------------------------------------------------------------

    async def chat(self, request: ChatRequest) -> bytes:
        """POST /chat/completions; the answer's own bytes."""
        async with self._open_chat(request) as answer:
            return await self._accepted(answer)

    async def stream_chat(self, request: ChatRequest) -> _Events:
        """POST /chat/completions; the answer's events pass through untouched."""
        stack = AsyncExitStack()
        try:
            answer = await stack.enter_async_context(self._open_chat(request))
            if answer.status >= 300:
                raise self._error(answer.status, answer.headers, await answer.read())
        except BaseException:
            await stack.aclose()
            raise
        return _Events(answer, stack)

    def _open_chat(self, request: ChatRequest) -> Any:
        model = request.provider_model
        url = self._chat_urls.get(model)
        if url is None:
            url = self._chat_urls[model] = self._url(self._chat_path(model))
        body, read_seconds = self._chat_body(request), request.timeout_seconds or CHAT_READ_SECONDS
        return self._http.open("POST", url, headers=self._json_headers, body=body, read_seconds=read_seconds)

    def _chat_body(self, request: ChatRequest) -> bytes:
        forgets = self.forgets_reasoning and REASONING in request.body
        return without_reasoning(request.body) if forgets else request.body

    # --- batches ------------------------------------------------------------------------------------------------

    def batch_line(self, key: str, endpoint: str, request: ChatRequest) -> bytes:
        """OpenAI's own line."""
        if endpoint not in self.capabilities.batch.endpoints:
            raise Unsupported(f"this provider runs no batches of {endpoint}", param="url")
        body = self._chat_body(request) if endpoint == CHAT_ENDPOINT else request.body
        # Within JSON's texts there is no newline (RFC 8259 §7), so those that there are separate nothing.
        one_line = orjson.Fragment(body.replace(b"\n", b" "))
        return orjson.dumps({"custom_id": key, "method": "POST", "url": endpoint, "body": one_line})

    async def create_batch(self, batch: BatchSubmission) -> ProviderBatch:
        """POST /batches; its name is a pair of its metadata, unless those of the caller leave no room."""
        metadata = dict(batch.metadata)
        if len(metadata) < MAX_METADATA_PAIRS:
            metadata[NAME_PAIR] = batch.name
        body = orjson.dumps(
            {
                "input_file_id": batch.input_file_id,
                "endpoint": batch.endpoint,
                "completion_window": batch.completion_window,
                "metadata": metadata,
            }
        )
        async with self._http.open("POST", self._url("/batches"), headers=self._json_headers, body=body) as answer:
            content = await self._accepted(answer)
        with after_acceptance():
            return _provider_batch(json_object(content))

    async def retrieve_batch(self, provider_batch_id: str) -> ProviderBatch:
        """GET /batches/{id}."""
        return _provider_batch(await self._call("GET", _batch_path(provider_batch_id)))

    async def list_batches(self, after: str | None, limit: int) -> ProviderBatchPage:
        """GET /batches, newest first; older versions of Azure's wrap them in `value` (wire.md §2e)."""
        params = {"limit": str(limit)} | ({"after": after} if after else {})
        page = await self._call("GET", "/batches", params)
        batches = tuple(_provider_batch(item) for item in page.get("data") or page.get("value") or ())
        return ProviderBatchPage(batches, batches[-1].id if batches and page.get("has_more") else None)

    async def cancel_batch(self, provider_batch_id: str) -> None:
        """POST /batches/{id}/cancel; refused with 400 or 409 for one that has ended or is being cancelled."""
        try:
            await self._call("POST", _batch_path(provider_batch_id) + "/cancel")
        except (Rejected, RateLimited):
            batch = await self.retrieve_batch(provider_batch_id)
            if batch.status not in ENDED | {"cancelling"}:
                raise

    def read_batch_output(self, batch: ProviderBatch) -> AbstractAsyncContextManager[AsyncIterator[list[BatchResult]]]:
        """The lines of the output file, then those of the error file."""
        return aclosing(self._results(batch))

    async def _results(self, batch: ProviderBatch) -> AsyncGenerator[list[BatchResult], None]:
        for file_id in batch.result_ids:
            lines = Lines(MAX_RESULT_LINE_BYTES)
            async with self.read_file(file_id) as content:
                async for chunk in content.chunks:
                    yield await asyncio.to_thread(_results_of, lines.of(chunk))
            yield _results_of(lines.rest())

    async def forget_batch(self, batch: ProviderBatch) -> None:
        """Delete the output and the error file."""
        for file_id in batch.result_ids:
            with suppress(Missing):
                await self.delete_file(file_id)

    # --- errors -------------------------------------------------------------------------------------------------

    async def _accepted(self, answer: aiohttp.ClientResponse) -> bytes:
        content = await answer.read()
        if answer.status >= 300:
            raise self._error(answer.status, answer.headers, content)
        return content

    def _error(self, status: int, headers: Mapping[str, str], content: bytes) -> ProviderError:
        """Status and documented code → our tree; never by the message's text."""
        message, code, param = error_fields(content)
        if status == 404 and code in ("model_not_found", "DeploymentNotFound"):
            return Rejected(message or code, param=param, code=code)
        if code == "insufficient_quota":
            return QuotaExceeded(message or code)
        message = message or f"the provider answered {status}"
        return plain_error(status, message, wait=retry_after_seconds(headers), param=param, code=code)


class Compatible(WithoutFiles, WithoutBatches, OpenAI):
    """A server that speaks OpenAI's chat completions but has no Files and Batch API, such as vLLM (wire.md §7)."""

    # Many of them have the field themselves.
    forgets_reasoning = False

    capabilities = CAPABILITIES.without_files(chat_files={**CHAT_FILES, "application/pdf": "inline"})


def without_reasoning(body: bytes) -> bytes:
    """A chat without the `reasoning_content` that a client brings back in its messages."""
    payload = orjson.loads(body)
    messages = payload.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            message.pop("reasoning_content", None)
    try:
        return orjson.dumps(payload)
    except orjson.JSONEncodeError:
        # Nested deeper than can be written: the provider says what it thinks of it.
        return body


class _Events:
    """A streamed answer that holds its connection until it is closed."""

    def __init__(self, answer: aiohttp.ClientResponse, stack: AsyncExitStack) -> None:
        self._answer, self._stack = answer, stack

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with connection_errors():
            async for chunk in self._answer.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        await self._stack.aclose()


def error_fields(content: bytes) -> tuple[str | None, str | None, str | None]:
    """Message, code and param of OpenAI's envelope, or of the shapes that look like it (vLLM's code is a number)."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None, None, None
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, str):
        return error[:2000], None, None
    if not isinstance(error, dict):
        return None, None, None
    message, code, param = (error.get(key) for key in ("message", "code", "param"))
    return (
        str(message)[:2000] if message else None,
        str(code) if code is not None else None,
        param if isinstance(param, str) else None,
    )


def _provider_file(item: Any) -> ProviderFile:
    if not isinstance(item, dict) or "id" not in item:
        raise Unavailable("the provider's answer is not a file")
    status = str(item.get("status") or "").lower()
    return ProviderFile(
        id=str(item["id"]),
        filename=item.get("filename"),
        bytes=item.get("bytes"),
        purpose=item.get("purpose"),
        created_at=_unix_seconds(item.get("created_at")),
        expires_at=_unix_seconds(item.get("expires_at")),
        ready=status not in ("pending", "running"),
    )


def _unix_seconds(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None


def _batch_path(provider_batch_id: str) -> str:
    return f"/batches/{quote(provider_batch_id, safe='')}"


def _provider_batch(item: Any) -> ProviderBatch:
    """A batch in any of the ways in which OpenAI and Azure describe one (wire.md §1e, §2e)."""
    status = BATCH_STATUSES.get(str(item.get("status")).lower()) if isinstance(item, dict) else None
    if status is None or "id" not in item:
        raise Unavailable("the provider's answer is not a batch")
    counts = item.get("request_counts") or {}
    metadata = dict(item.get("metadata") or {})
    ends = (_moment(item.get(f"{end}_at")) for end in sorted(ENDED))
    return ProviderBatch(
        id=str(item["id"]),
        status=status,
        name=metadata.pop(NAME_PAIR, None),
        created_at=_moment(item.get("created_at")),
        in_progress_at=_moment(item.get("in_progress_at")),
        ended_at=next(filter(None, ends), None),
        expires_at=_moment(item.get("expires_at")),
        endpoint=item.get("endpoint"),
        input_file_id=item.get("input_file_id"),
        output_file_id=item.get("output_file_id"),
        error_file_id=item.get("error_file_id"),
        result_ids=tuple(filter(None, (item.get("output_file_id"), item.get("error_file_id")))),
        total=counts.get("total"),
        completed=counts.get("completed"),
        failed=counts.get("failed"),
        errors=tuple(_batch_error(error) for error in (item.get("errors") or {}).get("data") or ()),
        metadata=metadata,
    )


def _batch_error(error: dict[str, Any]) -> BatchError:
    return BatchError(error.get("code"), str(error.get("message")), error.get("line"), error.get("param"))


def _moment(value: Any) -> int | None:
    """Unix seconds, which older versions of Azure's write as a date; 0 is none."""
    with suppress(ValueError):
        return _unix_seconds(value) or unix_seconds(value)
    return None


def _results_of(lines: Iterable[tuple[int, bytes]]) -> list[BatchResult]:
    """The results that these lines of an output or error file tell. Raises Unavailable."""
    try:
        return [_result(orjson.loads(content)) for _, content in lines]
    except (BadLine, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as failure:
        reason = f"a line of the batch's results cannot be read ({type(failure).__name__})"
        raise Unavailable(reason) from failure


def _result(line: dict[str, Any]) -> BatchResult:
    key, response = line["custom_id"], line.get("response")
    if response and response.get("status_code"):
        return BatchResult(key, response["status_code"], orjson.dumps(response["body"]))
    return BatchResult(key, code=line["error"].get("code"), message=line["error"]["message"])
