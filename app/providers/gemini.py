"""Gemini, as AI Studio serves it: the Files API, generateContent and its batches (wire.md §4).

Contract: https://ai.google.dev/api/files, …/generate-content and …/batch-api.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
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
from app.formats.batch_lines import CHAT_ENDPOINT, MAX_LINES, BatchResult, error_body
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
    ENDED,
    PURPOSES,
    BatchError,
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

HOST = "generativelanguage.googleapis.com"
MAX_PAGE = 100
MAX_NAME = 512
ALREADY_EXISTS = "ALREADY_EXISTS"
API_KEY_INVALID = "API_KEY_INVALID"
BATCH_SECONDS = 48 * 3600

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
    # A batch is as large as a file may be; no number of lines is documented (wire.md §4e).
    batch=BatchLimits(max_lines=MAX_LINES, max_bytes=2 * 1024**3),
)


class GeminiParams(BaseModel):
    """The parameters of a Gemini account."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api_key: SecretStr
    api_base: str = f"https://{HOST}"
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

    def _reader(self, provider_model: str) -> Reader:
        return gemini.Reader(provider_model)

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


# A batch's state, which Gemini writes with BATCH_ before it and Vertex AI with JOB_ (wire.md §4e, §5e).
STATUS_OF_STATE: Mapping[str, BatchStatus] = {
    "STATE_PENDING": "validating",
    "STATE_QUEUED": "validating",
    "STATE_CANCELLING": "cancelling",
    "STATE_SUCCEEDED": "completed",
    "STATE_PARTIALLY_SUCCEEDED": "completed",
    "STATE_FAILED": "failed",
    "STATE_CANCELLED": "cancelled",
    "STATE_EXPIRED": "expired",
}
# google.rpc.Code, with which a line of a batch fails → the HTTP status that google/rpc/code.proto gives it.
STATUS_OF_CODE: Mapping[Any, int] = {
    **{1: 499, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429},
    **{9: 400, 10: 409, 11: 400, 12: 501, 14: 503, 16: 401},
}


def status_of(state: Any) -> BatchStatus:
    """OpenAI's word for a batch's state."""
    return STATUS_OF_STATE.get(str(state).partition("_")[2], "in_progress")


def failed_line(key: str, failure: Any) -> BatchResult:
    """The result of a line that ended in a google.rpc.Status, or in its message alone."""
    told = failure if isinstance(failure, dict) else {"message": failure}
    code, message = told.get("code"), told.get("message") or "the request failed"
    # Whether the code is Google's or HTTP's is unverified (wire.md §4e).
    status = code if isinstance(code, int) and code >= 400 else STATUS_OF_CODE.get(code, 500)
    return BatchResult(key, status, error_body(status, str(message)[:2000]))


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
        # Unknown of a file that another gateway has uploaded.
        sent = upload.sha256() if upload.sha256 else ""
        intact = not sent or file.sha256 in (None, sent)
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

    async def list_files(self, after: str | None, limit: int, storage: StoragePlace | None = None) -> ProviderFilePage:
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
        return await self._named_call(method, self._file_url(provider_file_id))

    async def _named_call(self, method: str, url: URL) -> dict[str, Any]:
        """A call about one file or batch."""
        answer = await self._http.call(method, url, headers=self._headers)
        if answer.status_code == 403:
            raise await self._forbidden()
        if answer.status_code >= 300:
            raise self._error(answer.status_code, answer.headers, answer.content)
        return json_object(answer.content)

    async def _forbidden(self) -> ProviderError:
        """What a 403 on a file means: credentials that are good for something else are not the reason, so the file is
        expired or foreign (wire.md §4b). Raises Unauthorized for those that are not. A batch's is unverified."""
        await self.check()
        return Missing("the provider holds no such file or batch for this account")

    # --- chat ---------------------------------------------------------------------------------------------------

    def _translate(self, chat: Chat) -> dict[str, Any]:
        for where, address in chat.addresses():
            # The API would read it with the gateway's key, whoever's file it is.
            if self._is_own(address):
                reason = f"{where}: expected an address elsewhere; the provider's files are named by file_id"
                raise Rejected(reason, param=where, code="invalid_url")
        return super()._translate(chat)

    def _is_own(self, address: str) -> bool:
        """Whether an address may be one of this API's; so may one that is malformed."""
        try:
            host = (URL(address).host or "").rstrip(".")
        except ValueError:
            return True
        return host == URL(self._base).host or host.endswith(HOST)

    async def _chat_call(self, chat: Chat, body: bytes) -> Call:
        return Call(self._model_url(chat.provider_model, verb_of(chat)), self._json_headers, body)

    def _model_url(self, provider_model: str, verb: str) -> URL:
        return URL(f"{self._base}/models/{quote(provider_model.removeprefix('models/'), safe='')}{verb}", encoded=True)

    async def _blame_files(self, chat: Chat, failure: ProviderError) -> None:
        """Ask for each file: one that is gone is answered with a 403 (wire.md §4b), and so is much else."""
        if not failure.retryable:
            for file_id in chat.file_ids():
                await self.retrieve_file(file_id)

    # --- batches ------------------------------------------------------------------------------------------------

    def _batch_line(self, key: str, chat: Chat, body: bytes) -> bytes:
        return orjson.dumps({"key": key, "request": orjson.Fragment(body)})

    async def create_batch(self, batch: BatchSubmission) -> ProviderBatch:
        """POST /models/{model}:batchGenerateContent; the lines are in a file."""
        if batch.input_file_id is None:
            raise Rejected("the lines of a batch are in a file that was uploaded before", param="input_file_id")
        lines = {"fileName": f"files/{batch.input_file_id.rpartition('/')[2]}"}
        body = orjson.dumps({"batch": {"displayName": batch.name, "inputConfig": lines}})
        url = self._model_url(batch.provider_model, ":batchGenerateContent")
        try:
            content = await self._submitted(url, self._json_headers, body)
        except Unauthorized:
            # For a file that is gone (wire.md §4b), perhaps.
            await self.retrieve_file(batch.input_file_id)
            raise
        with after_acceptance():
            return _provider_batch(json_object(content))

    async def retrieve_batch(self, provider_batch_id: str) -> ProviderBatch:
        """GET /batches/{name}."""
        return _provider_batch(await self._named_call("GET", self._batch_url(provider_batch_id)))

    async def list_batches(self, after: str | None, limit: int) -> ProviderBatchPage:
        """GET /batches."""
        params = {"pageSize": str(min(limit, MAX_PAGE))} | ({"pageToken": after} if after else {})
        page = await self._call("GET", self._url("/batches", params))
        batches = tuple(_provider_batch(item) for item in page.get("operations") or ())
        return ProviderBatchPage(batches, page.get("nextPageToken") or None)

    async def cancel_batch(self, provider_batch_id: str) -> None:
        """POST /batches/{name}:cancel; what one that has ended is answered with is unverified."""
        try:
            await self._named_call("POST", self._batch_url(provider_batch_id, ":cancel"))
        except Rejected:
            if (await self.retrieve_batch(provider_batch_id)).status not in ENDED:
                raise

    @asynccontextmanager
    async def read_batch_output(self, batch: ProviderBatch) -> AsyncIterator[AsyncIterator[list[BatchResult]]]:
        """The lines of the responses' file, or the answers that stand in the batch itself."""
        operation = await self._named_call("GET", self._batch_url(batch.id))
        model = str(_metadata(operation).get("model") or "").removeprefix("models/")
        result_of = partial(self._result, BatchRun(model, batch.ended_at or 0))
        output = _output(operation)
        if file_id := output.get("responsesFile"):
            async with self.read_file(file_id) as content:
                yield batch_results(content.chunks, result_of)
        else:
            yield batch_results(_inlined(output), result_of)

    def _result(self, run: BatchRun, line: Any) -> BatchResult:
        """What a line of the responses says, or an answer in the batch itself, whose key is in its metadata."""
        key = str(line["key"] if "key" in line else line["metadata"]["key"])
        if answer := line.get("response"):
            return self._batch_answer(key, run, answer)
        return failed_line(key, line.get("error") or line.get("status"))

    async def forget_batch(self, batch: ProviderBatch) -> None:
        """DELETE the file of the responses, then the batch."""
        with suppress(Missing):
            operation = await self._named_call("GET", self._batch_url(batch.id))
            for file_id in _result_ids(operation):
                with suppress(Missing):
                    await self.delete_file(file_id)
            await self._named_call("DELETE", self._batch_url(batch.id))

    def _batch_url(self, provider_batch_id: str, verb: str = "") -> URL:
        return self._url(f"/batches/{quote(provider_batch_id.rpartition('/')[2], safe='')}{verb}")


def _provider_batch(operation: Mapping[str, Any]) -> ProviderBatch:
    if not isinstance(operation, dict) or "name" not in operation:
        raise Unavailable("the provider's answer is not a batch")
    metadata = _metadata(operation)
    created_at, counts = unix_seconds(metadata.get("createTime")), metadata.get("batchStats") or {}
    failure = operation.get("error") or {}
    status = status_of(metadata.get("state"))
    return ProviderBatch(
        id=str(operation["name"]),
        status=status,
        name=metadata.get("displayName"),
        created_at=created_at,
        ended_at=unix_seconds(metadata.get("endTime")),
        expires_at=None if created_at is None else created_at + BATCH_SECONDS,
        endpoint=CHAT_ENDPOINT,
        input_file_id=(metadata.get("inputConfig") or {}).get("fileName"),
        result_ids=_result_ids(operation),
        total=_count(counts, "requestCount"),
        completed=_count(counts, "successfulRequestCount"),
        failed=_count(counts, "failedRequestCount"),
        errors=(BatchError(None, str(failure.get("message"))[:2000]),) if status == "failed" else (),
    )


def _metadata(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    return operation.get("metadata") or {}


def _output(operation: Mapping[str, Any]) -> dict[str, Any]:
    """Where the results are: the SDK reads it in the metadata, the documentation in the response (wire.md §4e). A batch
    that was cancelled or has expired has none."""
    return {**(operation.get("response") or {}), **(_metadata(operation).get("output") or {})}


def _result_ids(operation: Mapping[str, Any]) -> tuple[str, ...]:
    file_id = _output(operation).get("responsesFile")
    return (file_id.rpartition("/")[2],) if file_id else ()


async def _inlined(output: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """The answers that stand in the batch itself, as the lines that a file has."""
    for answer in (output.get("inlinedResponses") or {}).get("inlinedResponses") or ():
        yield orjson.dumps(answer) + b"\n"


def _count(counts: Mapping[str, Any], name: str) -> int | None:
    """An int64, which is a text in JSON; one that is 0 is left out."""
    return int(counts.get(name, 0)) if counts else None


def _provider_file(item: Any) -> ProviderFile:
    if not isinstance(item, dict) or "uri" not in item:
        raise Unavailable("the provider's answer is not a file")
    size = item.get("sizeBytes")
    return ProviderFile(
        id=str(item["uri"]),
        filename=item.get("displayName"),
        bytes=None if size is None else int(size),
        # That of a batch's results is not told but by their name.
        purpose="batch_output" if str(item.get("name")).startswith("files/batch-") else None,
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
