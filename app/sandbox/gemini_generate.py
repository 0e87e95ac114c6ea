"""generateContent and streamGenerateContent, which Gemini and Vertex have in common (wire.md §4d, §5d)."""

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from app.sandbox.gemini_answers import answer, bad_body, bad_request, forbidden, plain_failure
from app.sandbox.gemini_chat import GenerateContentRequest
from app.sandbox.gemini_completion import Completion
from app.sandbox.gemini_contents import FileData, Part, ResponsePart
from app.sandbox.gemini_rules import MODELS, Model, check
from app.sandbox.model import Attachment
from app.sandbox.provider import Provider, Refusal

_MAX_BODY_BYTES = 100 * 1024**2
_MAX_PDF_BYTES = 50 * 1024**2


class GenerativeProvider(Provider):
    """A provider of the Gemini models."""

    request_type: ClassVar[type[GenerateContentRequest]]

    def failure(self, status: int) -> Response:
        """Return Google's error for a status."""
        return plain_failure(status)

    def failing(self, status: int, retry_after_seconds: int | None) -> Response:
        """Return Google's error for a status; when to come back is said in its details too."""
        return plain_failure(status, retry_after_seconds)

    @abstractmethod
    def unknown_model(self, request: Request) -> Response:
        """Return the answer to a model that does not exist."""

    @abstractmethod
    def check_type(self, mime_type: str) -> None:
        """Refuse a type that the models of this provider do not read."""

    @abstractmethod
    def resolve(self, data: FileData, account: str) -> Attachment | None:
        """Return the file that `data` refers to, None if it is an address outside, or refuse."""

    def chat_routes(self, models_path: str) -> list[BaseRoute]:
        """Return the routes of the chat with the models below `models_path`."""
        table = (("generateContent", "chat", self._chat), ("streamGenerateContent", "stream_chat", self._stream_chat))
        return [
            Route(f"{models_path}/{{model}}:{verb}", self.operation(name, endpoint), methods=["POST"])
            for verb, name, endpoint in table
        ]

    def require_model(self, request: Request) -> Model:
        """Return the model that the path names."""
        model = MODELS.get(request.path_params["model"])
        if model is None:
            raise Refusal(self.unknown_model(request))
        return model

    async def _chat(self, request: Request, account: str) -> Response:
        return answer((await self._completion(request, account)).body())

    async def _stream_chat(self, request: Request, account: str) -> Response:
        if request.query_params.get("alt") == "sse":
            completion = await self._completion(request, account)
            return StreamingResponse(_events(completion.chunks()), media_type="text/event-stream")
        try:
            completion = await self._completion(request, account)
        except Refusal as refusal:  # comes in a list too (wire.md §4b)
            listed = b"[" + bytes(refusal.response.body) + b"]"
            raise Refusal(Response(listed, refusal.response.status_code, media_type="application/json")) from refusal
        return StreamingResponse(_listed(completion.chunks()), media_type="application/json")

    async def _completion(self, request: Request, account: str) -> Completion:
        model = self.require_model(request)
        return self.reply(await json_body(request), model, account)

    def reply(self, body: Any, model: Model, account: str) -> Completion:
        """Let the model answer a body, or refuse it."""
        try:
            chat = self.request_type.model_validate(body)
        except ValidationError as error:
            raise bad_body(error) from error
        if chat.cached_content is not None:  # there are none
            raise forbidden("CachedContent not found (or permission denied)")
        try:
            check(chat, model)
        except ValueError as error:
            raise bad_request(str(error)) from error
        return Completion.of(chat, model, [*self._attachments(chat, account)])

    def _attachments(self, chat: GenerateContentRequest, account: str) -> Iterator[Attachment]:
        """Yield the files of the conversation, in its order."""
        for part in (part for content in chat.contents for part in content.parts):
            in_text = Attachment.in_text(part.text) if part.text is not None else None
            if in_text is not None:
                yield in_text
            yield from self._attached(part, account)
            for returned in part.function_response.parts if part.function_response is not None else ():
                yield from self._attached(returned, account)

    def _attached(self, part: Part | ResponsePart, account: str) -> Iterator[Attachment]:
        data = part.media
        if data is None:
            return
        self.check_type(data.mime_type)
        if isinstance(data, FileData):
            attachment = self.resolve(data, account)
        else:
            attachment = Attachment.of(data.data, data.display_name)
        if attachment is None:
            return
        if data.mime_type == "application/pdf" and attachment.size_bytes > _MAX_PDF_BYTES:
            raise bad_request(f"The document exceeds the limit of {_MAX_PDF_BYTES} bytes.")
        yield attachment


def api_key(request: Request) -> str | None:
    """Return the API key, of the header or of the query."""
    return request.headers.get("x-goog-api-key") or request.query_params.get("key")


async def json_body(request: Request) -> Any:
    """Return the JSON of a request's body."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise bad_request("The body of this method is application/json.")
    body = await request.body()
    if len(body) > _MAX_BODY_BYTES:
        raise bad_request(f"Request payload size exceeds the limit: {_MAX_BODY_BYTES} bytes.")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"Invalid JSON payload received. {error}") from error


async def _events(chunks: Iterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Yield `chunks` as server-sent events; nothing says that they end."""
    for chunk in chunks:
        yield b"data: " + orjson.dumps(chunk) + b"\r\n\r\n"


async def _listed(chunks: Iterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Yield `chunks` as one JSON list."""
    before = b"["
    for chunk in chunks:
        yield before + orjson.dumps(chunk)
        before = b",\r\n"
    yield b"]"
