"""Bedrock: /bedrock, Converse, ConverseStream and batches with files from S3, and the models (wire.md §6)."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from app.sandbox.bedrock_answer import Answer
from app.sandbox.bedrock_auth import ApiKey, check_signature, credential
from app.sandbox.bedrock_batches import BedrockBatches
from app.sandbox.bedrock_blocks import DocumentBlock, Media, S3Location
from app.sandbox.bedrock_catalog import Model, require_model, summaries
from app.sandbox.bedrock_errors import (
    answer,
    answer_headers,
    bad_body,
    bad_request,
    error_response,
    parsed,
    plain_failure,
)
from app.sandbox.bedrock_request import ConverseRequest, ConverseStreamRequest
from app.sandbox.bedrock_rules import check
from app.sandbox.event_stream import MEDIA_TYPE
from app.sandbox.faults import Faults
from app.sandbox.model import Attachment
from app.sandbox.provider import Endpoint, Provider
from app.sandbox.store import Store


class Bedrock(Provider):
    """Bedrock's runtime plane and, of its control plane, models and batches; files are the objects of a bucket."""

    name: ClassVar[str] = "bedrock"
    prefix: ClassVar[str] = "/bedrock"

    def __init__(self, store: Store, faults: Faults) -> None:
        super().__init__(store, faults)
        self._batches = BedrockBatches(self.name, store, self._reply)

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of both planes; the id of a model or a job may be an ARN, which has slashes."""
        table: tuple[tuple[str, str, str, Endpoint], ...] = (
            ("GET", "/foundation-models", "list_models", self._list_models),
            ("POST", "/model/{model:path}/converse", "chat", self._converse),
            ("POST", "/model/{model:path}/converse-stream", "stream_chat", self._converse_stream),
            ("POST", "/model-invocation-job", "create_batch", self._batches.create),
            ("GET", "/model-invocation-jobs", "list_batches", self._batches.list_page),
            ("POST", "/model-invocation-job/{job:path}/stop", "cancel_batch", self._batches.stop),
            ("GET", "/model-invocation-job/{job:path}", "retrieve_batch", self._batches.retrieve),
        )
        return [
            Route(path, self.operation(name, _signed(endpoint)), methods=[method])
            for method, path, name, endpoint in table
        ]

    # Accounts and errors

    def credential(self, request: Request) -> str | None:
        """Return the access key id, else the API key."""
        return credential(request)

    def unauthorized(self, credential: str | None) -> Response:
        """Return Bedrock's 403, of which there is one for each way to say who one is."""
        if credential is None:
            return error_response(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        if isinstance(credential, ApiKey):
            # The type is unverified [U]; the message begins with a capital for this refusal
            # (https://github.com/anomalyco/opencode/issues/47073).
            message = "Authentication failed: Please make sure your API Key is valid."
            return error_response(403, "AccessDeniedException", message, key="Message")
        message = "The security token included in the request is invalid."
        return error_response(403, "UnrecognizedClientException", message)

    def failure(self, status: int) -> Response:
        """Return Bedrock's error for a status."""
        return plain_failure(status)

    # Models and chat

    async def _list_models(self, request: Request, _account: str) -> Response:
        return answer({"modelSummaries": summaries(request.query_params)})

    async def _converse(self, request: Request, _account: str) -> Response:
        return answer((await self._answer(request, ConverseRequest)).body())

    async def _converse_stream(self, request: Request, _account: str) -> Response:
        reply = await self._answer(request, ConverseStreamRequest)
        return StreamingResponse(reply.frames(), headers=answer_headers(), media_type=MEDIA_TYPE)

    async def _answer(self, request: Request, shape: type[ConverseRequest]) -> Answer:
        model = require_model(request.path_params["model"])
        return self._reply(parsed(await request.body()), model, shape)

    def _reply(self, body: Any, model: Model, shape: type[ConverseRequest] = ConverseRequest) -> Answer:
        """Let the model answer a body, or refuse it."""
        try:
            chat = shape.model_validate(body)
            check(chat, model)
        except ValidationError as error:
            raise bad_body(error) from error
        except ValueError as error:
            raise bad_request(str(error)) from error
        return Answer.of(chat, model, [*self._attachments(chat)])

    def _attachments(self, chat: ConverseRequest) -> Iterator[Attachment]:
        """Yield the files of the conversation, in its order."""
        for piece in (piece for message in chat.messages for piece in message.pieces()):
            if piece.media is not None:
                yield self._attached(piece.media)
            elif piece.text is not None and (file := Attachment.in_text(piece.text)) is not None:
                yield file

    def _attached(self, media: Media) -> Attachment:
        if media.source.s3_location is not None:
            return self._fetched(media.source.s3_location)
        if not isinstance(media, DocumentBlock):
            return Attachment.of(media.source.data or b"")
        written = media.source.written
        return Attachment.of((media.source.data or b"") if written is None else written.encode(), media.name)

    def _fetched(self, location: S3Location) -> Attachment:
        """Return the object, whoever asks: every credential may read the bucket."""
        for file in self.store.everything():
            if file.provider == self.name and file.id == location.uri:
                return Attachment(file.filename, file.size_bytes, file.sha256)
        # How Bedrock says so is unverified [U]; 400 is what the caller can mend.
        raise bad_request(f"The S3 object could not be accessed or does not exist: {location.uri}")


def _signed(endpoint: Endpoint) -> Endpoint:
    """Return `endpoint`, for requests that are signed as Bedrock wants them to be."""

    async def checked(request: Request, account: str) -> Response:
        check_signature(request)
        return await endpoint(request, account)

    return checked
