"""Anthropic: /anthropic, the Files, Models, Messages and Message Batches APIs, in both of its versions (wire.md §3)."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from app.sandbox.anthropic_answer import Answer, sse
from app.sandbox.anthropic_batches import AnthropicBatches
from app.sandbox.anthropic_blocks import (
    Block,
    DocumentBlock,
    FileSource,
    ImageBlock,
    InlineContent,
    InlineImage,
    InlinePdf,
    InlineText,
    TextBlock,
    ToolResultBlock,
)
from app.sandbox.anthropic_errors import answer, answer_headers, bad_body, bad_request, error_response, refusal
from app.sandbox.anthropic_files import AnthropicFiles
from app.sandbox.anthropic_messages import MessagesRequest
from app.sandbox.anthropic_pages import page_by_id, require_known
from app.sandbox.anthropic_rules import VERSIONS, check
from app.sandbox.faults import Faults
from app.sandbox.model import Attachment
from app.sandbox.provider import Endpoint, OperationName, Provider, bearer_token
from app.sandbox.store import Store

_MAX_BODY_BYTES = 32 * 1024**2
_MODELS = {
    "claude-sonnet-5": "Claude Sonnet 5",
    "claude-opus-4-5": "Claude Opus 4.5",
    "claude-haiku-4-5": "Claude Haiku 4.5",
    "claude-sonnet-4-5": "Claude Sonnet 4.5",
    # Retired; Bifrost's examples name it.
    "claude-3-sonnet-20240229": "Claude 3 Sonnet",
}
_DOCUMENTS = frozenset({"application/pdf", "text/plain"})
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


class Anthropic(Provider):
    """Anthropic's own API."""

    name: ClassVar[str] = "anthropic"
    prefix: ClassVar[str] = "/anthropic"

    def __init__(self, store: Store, faults: Faults) -> None:
        super().__init__(store, faults)
        self.files = AnthropicFiles(self.name, store)
        self.batches = AnthropicBatches(self.name, store, self._reply)

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of Files, Models, Messages and their batches."""
        batches, batch = "/v1/messages/batches", "/v1/messages/batches/{batch_id}"
        table: tuple[tuple[str, str, OperationName, Endpoint], ...] = (
            ("POST", "/v1/files", "upload_file", self.files.upload),
            ("GET", "/v1/files", "list_files", self.files.list_page),
            ("GET", "/v1/files/{file_id}", "retrieve_file", self.files.retrieve),
            ("DELETE", "/v1/files/{file_id}", "delete_file", self.files.delete),
            ("GET", "/v1/files/{file_id}/content", "read_file", self.files.read),
            ("GET", "/v1/models", "list_models", self._list_models),
            ("GET", "/v1/models/{model}", "retrieve_model", self._retrieve_model),
            ("POST", "/v1/messages", _chat_operation, self._create_message),
            ("POST", batches, "create_batch", self.batches.create),
            ("GET", batches, "list_batches", self.batches.list_page),
            ("GET", batch, "retrieve_batch", self.batches.retrieve),
            ("DELETE", batch, "delete_batch", self.batches.delete),
            ("POST", f"{batch}/cancel", "cancel_batch", self.batches.cancel),
            ("GET", f"{batch}/results", "read_batch_output", self.batches.read),
        )
        return [
            Route(path, self.operation(name, _versioned(endpoint)), methods=[method])
            for method, path, name, endpoint in table
        ]

    # Accounts and errors

    def credential(self, request: Request) -> str | None:
        """Return the key: 2.x of the SDK sends it as a bearer token, older ones in a header of its own."""
        return request.headers.get("x-api-key") or bearer_token(request)

    def unauthorized(self, credential: str | None) -> Response:
        """Return Anthropic's 401."""
        return error_response(401, None if credential else "x-api-key header is required")

    def failure(self, status: int) -> Response:
        """Return Anthropic's error for a status."""
        return error_response(status)

    # Models

    async def _list_models(self, request: Request, _account: str) -> Response:
        require_known(request.query_params, ("limit", "before_id", "after_id", "lifecycle[]"))
        return answer(page_by_id([_model_info(model) for model in _MODELS], request.query_params))

    async def _retrieve_model(self, request: Request, _account: str) -> Response:
        model = request.path_params["model"]
        _require_model(model)
        return answer(_model_info(model))

    # Messages

    async def _create_message(self, request: Request, account: str) -> Response:
        if len(await request.body()) > _MAX_BODY_BYTES:
            raise refusal(413, f"Request exceeds the maximum size of {_MAX_BODY_BYTES} bytes.")
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise bad_request("The body of a message is application/json.")
        if request.state.message is None:
            raise bad_request("The request body is not valid JSON.", code="request_body_encoding_invalid")
        reply = self._reply(request.state.message, request.headers["anthropic-version"], account)
        if request.state.message.get("stream"):
            return StreamingResponse(sse(reply.events()), headers=answer_headers(), media_type="text/event-stream")
        return answer(reply.body())

    def _reply(self, body: Any, version: str, account: str) -> Answer:
        """Let the model answer a message's body, or refuse it."""
        try:
            message = MessagesRequest.model_validate(body)
        except ValidationError as error:
            raise bad_body(error) from error
        _require_model(message.model)
        check(message, version)
        said = [block for turn in message.turns for block in turn.blocks]
        return Answer.of(message, [*self._attachments(said, account)])

    def _attachments(self, blocks: Sequence[Block], account: str) -> Iterator[Attachment]:
        for block in blocks:
            match block:
                case TextBlock() if (file := Attachment.in_text(block.text)) is not None:
                    yield file
                case ImageBlock() | DocumentBlock():
                    yield from self._attached(block, account)
                case ToolResultBlock():
                    yield from self._attachments(block.content, account)

    def _attached(self, block: ImageBlock | DocumentBlock, account: str) -> Iterator[Attachment]:
        title = block.title if isinstance(block, DocumentBlock) else None
        match block.source:
            case FileSource(file_id=file_id):
                yield self._referenced(block, file_id, account)
            case InlineImage(data=data) | InlinePdf(data=data):
                yield Attachment.of(data, title)
            case InlineText(data=text):
                yield Attachment.of(text.encode(), title)
            case InlineContent(content=content):
                text = "".join(part.text for part in content if isinstance(part, TextBlock))
                if text:
                    yield Attachment.of(text.encode(), title)
                yield from self._attachments([part for part in content if isinstance(part, ImageBlock)], account)

    def _referenced(self, block: ImageBlock | DocumentBlock, file_id: str, account: str) -> Attachment:
        file = self.files.find(file_id, account)
        mime_type = file.content_type.partition(";")[0].strip().lower()
        if mime_type not in (_IMAGES if isinstance(block, ImageBlock) else _DOCUMENTS):
            raise bad_request(f"The file {file_id} is {mime_type}, which a block of type {block.type} does not hold.")
        return Attachment(file.filename, file.size_bytes, file.sha256)


def _versioned(endpoint: Endpoint) -> Endpoint:
    """Return `endpoint`, for requests that say which version of the API they mean."""

    async def checked(request: Request, account: str) -> Response:
        version = request.headers.get("anthropic-version")
        if version is None:
            raise bad_request("anthropic-version: header is required")
        if version not in VERSIONS:
            raise bad_request(f'anthropic-version: "{version}" is not a valid version')
        return await endpoint(request, account)

    return checked


async def _chat_operation(request: Request) -> str:
    """Name the operation by the body's `stream`, and keep the parsed body for the endpoint."""
    try:
        request.state.message = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        request.state.message = None
    body = request.state.message
    return "stream_chat" if isinstance(body, dict) and body.get("stream") is True else "chat"


def _require_model(model: str) -> None:
    if model not in _MODELS:
        raise refusal(404, f"model: {model}")


def _model_info(model: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model,
        "display_name": _MODELS[model],
        "created_at": "2025-09-29T00:00:00Z",
        "lifecycle": "active",
    }
