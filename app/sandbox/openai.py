"""OpenAI: /openai/v1, the Files, Batch, Models and Chat Completions APIs (wire.md §1)."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from app.sandbox.batches import failure_of
from app.sandbox.faults import Faults
from app.sandbox.model import Attachment
from app.sandbox.openai_answers import (
    answer,
    answer_headers,
    bad_body,
    bad_request,
    error_response,
    plain_failure,
)
from app.sandbox.openai_batches import BatchRules, OpenAIBatches
from app.sandbox.openai_chat import ChatRequest
from app.sandbox.openai_completion import Completion, events
from app.sandbox.openai_files import FileRules, OpenAIFiles
from app.sandbox.openai_parts import NO_PDF, AudioPart, FilePart, ImagePart, Part, RefusalPart, TextPart, may_be_pdf
from app.sandbox.provider import Provider, Refusal, bearer_token
from app.sandbox.store import Store

_MODELS = (
    *("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"),
    *("gpt-5", "gpt-5-mini", "gpt-5-nano", "o3", "o3-mini", "o4-mini"),
)
_MODELS_CREATED = 1_715_367_049


class OpenAI(Provider):
    """OpenAI."""

    name: ClassVar[str] = "openai"
    prefix: ClassVar[str] = "/openai/v1"

    file_rules: ClassVar[FileRules] = FileRules(
        purposes=frozenset({"assistants", "batch", "fine-tune", "vision", "user_data", "evals"}),
    )
    batch_rules: ClassVar[BatchRules] = BatchRules()

    def __init__(self, store: Store, faults: Faults) -> None:
        super().__init__(store, faults)
        self.files = OpenAIFiles(self.name, store, self.file_rules)
        self.batches = OpenAIBatches(self.name, store, self.batch_rules, self)

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of Files, Batch, Models and Chat."""
        return [*self.account_routes(), self.chat_route("/chat/completions")]

    def account_routes(self) -> list[BaseRoute]:
        """Return the routes that are about the account and not about one model."""
        table = (
            ("POST", "/files", "upload_file", self.files.upload),
            ("GET", "/files", "list_files", self.files.list_page),
            ("GET", "/files/{file_id}", "retrieve_file", self.files.retrieve),
            ("DELETE", "/files/{file_id}", "delete_file", self.files.delete),
            ("GET", "/files/{file_id}/content", "read_file", self.files.read),
            ("POST", "/batches", "create_batch", self.batches.create),
            ("GET", "/batches", "list_batches", self.batches.list_page),
            ("GET", "/batches/{batch_id}", "retrieve_batch", self.batches.retrieve),
            ("POST", "/batches/{batch_id}/cancel", "cancel_batch", self.batches.cancel),
            ("GET", "/models", "list_models", self._list_models),
            ("GET", "/models/{model}", "retrieve_model", self._retrieve_model),
        )
        return [Route(path, self.operation(name, endpoint), methods=[method]) for method, path, name, endpoint in table]

    def chat_route(self, path: str) -> BaseRoute:
        """Return the route of Chat Completions; a `{model}` in `path` names the model."""
        return Route(path, self.operation(_chat_operation, self._chat), methods=["POST"])

    # Accounts and errors

    def credential(self, request: Request) -> str | None:
        """Return the bearer token. OpenAI-Organization and OpenAI-Project change nothing here."""
        return bearer_token(request)

    def unauthorized(self, credential: str | None) -> Response:
        """Return OpenAI's 401."""
        if credential is None:
            message = "You didn't provide an API key. You need to provide it in an Authorization header."
            return error_response(401, message)
        return plain_failure(401)

    def failure(self, status: int) -> Response:
        """Return OpenAI's error for a status."""
        return plain_failure(status)

    # Models

    async def _list_models(self, _request: Request, _account: str) -> Response:
        return answer({"object": "list", "data": [_model_object(model) for model in _MODELS]})

    async def _retrieve_model(self, request: Request, _account: str) -> Response:
        model = request.path_params["model"]
        self._require_model(model)
        return answer(_model_object(model))

    def is_model(self, name: str) -> bool:
        """Return whether there is such a model."""
        return name in _MODELS

    def _require_model(self, model: str) -> None:
        if not self.is_model(model):
            raise Refusal(self.unknown_model(model))

    def unknown_model(self, model: str) -> Response:
        """Return the answer to a model that does not exist."""
        message = f"The model `{model}` does not exist or you do not have access to it."
        return error_response(404, message, code="model_not_found")

    # Chat

    async def _chat(self, request: Request, account: str) -> Response:
        body = request.state.chat
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise bad_request("The body of a chat completion is application/json.")
        if not isinstance(body, dict):
            raise bad_request("We could not parse the JSON body of your request.")
        if "model" in request.path_params:
            body = body | {"model": request.path_params["model"]}
        chat = _read(body)
        completion = self._completion(chat, account)
        if chat.stream:
            chunks = self.dress_chunks(completion)
            return StreamingResponse(events(chunks), headers=answer_headers(), media_type="text/event-stream")
        return answer(self.dress(completion.body()))

    def _completion(self, chat: ChatRequest, account: str) -> Completion:
        self._require_model(chat.model)
        return Completion.of(chat, [*self._attachments(chat, account)], self.store.clock.now())

    def line_answer(self, body: dict[str, Any], account: str) -> Response:
        """Return what a line of a batch is answered with: what a chat is, unless its user wants it to fail."""
        try:
            chat = _read(body)
            if chat.stream:
                raise bad_request("A batch does not stream.", "stream")
            if status := failure_of(chat.last_user_text):
                return plain_failure(status)
            return answer(self.dress(self._completion(chat, account).body()))
        except Refusal as refusal:
            return refusal.response

    def dress(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return an answer's body as the provider gives it."""
        return body

    def dress_chunks(self, completion: Completion) -> Iterator[dict[str, Any]]:
        """Yield a streamed answer's chunks as the provider gives them."""
        return completion.chunks()

    def _attachments(self, chat: ChatRequest, account: str) -> Iterator[Attachment]:
        for number, message in enumerate(chat.messages):
            for index, part in enumerate(message.content or ()):
                attachment = self._attachment(part, account, f"messages[{number}].content[{index}]")
                if attachment is not None:
                    yield attachment

    def _attachment(self, part: Part | RefusalPart, account: str, where: str) -> Attachment | None:
        match part:
            case FilePart(file=file) if file.file_id is not None:
                # The status of an unknown id in chat is unverified; 404 is what the Files API says of it.
                stored = self.files.find(file.file_id, account)
                if not may_be_pdf(stored.content_type, stored.filename):
                    raise bad_request(f"Invalid '{where}.file.file_id': {NO_PDF}.", f"{where}.file.file_id")
                return Attachment(stored.filename, stored.size_bytes, stored.sha256)
            case FilePart(file=file) if file.file_data is not None:
                return Attachment.of(file.file_data, file.filename)
            case ImagePart(image_url=image) if isinstance(image.url, bytes):
                return Attachment.of(image.url)
            case AudioPart():
                return Attachment.of(part.input_audio.data)
            case TextPart():
                return Attachment.in_text(part.text)
        return None


async def _chat_operation(request: Request) -> str:
    """Name the operation by the body's `stream`, and keep the parsed body for the endpoint."""
    try:
        request.state.chat = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        request.state.chat = None
    body = request.state.chat
    return "stream_chat" if isinstance(body, dict) and body.get("stream") is True else "chat"


def _read(body: dict[str, Any]) -> ChatRequest:
    try:
        return ChatRequest.model_validate(body)
    except ValidationError as error:
        raise bad_body(error) from error


def _model_object(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": _MODELS_CREATED, "owned_by": "system"}
