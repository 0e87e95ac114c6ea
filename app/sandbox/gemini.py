"""Gemini: /gemini, the Files, Models, generateContent and batch APIs of AI Studio (wire.md §4)."""

from collections.abc import Sequence
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from app.sandbox.faults import Faults
from app.sandbox.gemini_answers import answer, bad_request, error_response, invalid_key
from app.sandbox.gemini_batches import GeminiBatches
from app.sandbox.gemini_chat import GeminiRequest, GenerateContentRequest
from app.sandbox.gemini_contents import FileData
from app.sandbox.gemini_files import GeminiFiles
from app.sandbox.gemini_generate import GenerativeProvider, api_key
from app.sandbox.gemini_pages import page
from app.sandbox.gemini_rules import MODELS, Model
from app.sandbox.gemini_uploads import GeminiUploads
from app.sandbox.model import Attachment
from app.sandbox.store import Store

_VERSIONS = ("v1", "v1beta")
_TYPES = (
    *("application/pdf", "application/json", "application/x-javascript", "application/x-python", "text/"),
    # gif is unverified (wire.md §0.3).
    *("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif", "image/gif", "audio/", "video/"),
)


class Gemini(GenerativeProvider):
    """The Gemini API."""

    name: ClassVar[str] = "gemini"
    prefix: ClassVar[str] = "/gemini"
    request_type: ClassVar[type[GenerateContentRequest]] = GeminiRequest

    def __init__(self, store: Store, faults: Faults) -> None:
        super().__init__(store, faults)
        self._files = GeminiFiles(self.name, store)
        self._uploads = GeminiUploads(self.name, store, self._files)
        self._batches = GeminiBatches(self.name, store, self._files, self.reply)

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of both versions, whose files are the same."""
        return [route for version in _VERSIONS for route in self._versioned(version)]

    def _versioned(self, version: str) -> list[BaseRoute]:
        files, uploads, batches = self._files, self._uploads, self._batches
        table = (
            ("POST", f"/upload/{version}/files", uploads.operation_name, uploads.serve),
            ("GET", f"/{version}/files", "list_files", files.list_page),
            ("GET", f"/{version}/files/{{file_id}}:download", "read_file", files.read),
            ("GET", f"/download/{version}/files/{{file_id}}:download", "read_file", files.read),
            ("GET", f"/{version}/files/{{file_id}}", "retrieve_file", files.retrieve),
            ("DELETE", f"/{version}/files/{{file_id}}", "delete_file", files.delete),
            ("POST", f"/{version}/models/{{model}}:batchGenerateContent", "create_batch", self._create_batch),
            ("GET", f"/{version}/batches", "list_batches", batches.list_page),
            ("POST", f"/{version}/batches/{{batch_id}}:cancel", "cancel_batch", batches.cancel),
            ("GET", f"/{version}/batches/{{batch_id}}", "retrieve_batch", batches.retrieve),
            ("DELETE", f"/{version}/batches/{{batch_id}}", "delete_batch", batches.delete),
            ("GET", f"/{version}/models", "list_models", self._list_models),
            ("GET", f"/{version}/models/{{model}}", "retrieve_model", self._retrieve_model),
        )
        others = [Route(path, self.operation(name, verb), methods=[method]) for method, path, name, verb in table]
        return [*self.chat_routes(f"/{version}/models"), *others]

    def credential(self, request: Request) -> str | None:
        """Return the API key; a session's address stands for the key that it was made with."""
        upload_id = request.query_params.get("upload_id")
        return api_key(request) if upload_id is None else self._uploads.key_of(upload_id)

    def unauthorized(self, credential: str | None) -> Response:
        """Return Google's 403 for a missing key, its 400 for a wrong one."""
        if credential is not None:
            return invalid_key("generativelanguage.googleapis.com")
        message = (
            "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or "
            "other form of API consumer identity to call this API."
        )
        return error_response(403, "PERMISSION_DENIED", message)

    def unknown_model(self, request: Request) -> Response:
        """Return the answer to a model that does not exist."""
        message = (
            f"models/{request.path_params['model']} is not found, or is not supported for generateContent. Call "
            "ListModels to see the list of available models and their supported methods."
        )
        return error_response(404, "NOT_FOUND", message)

    def check_type(self, mime_type: str) -> None:
        """Refuse what is neither text, PDF, image, sound nor film."""
        if not mime_type.startswith(_TYPES):
            raise bad_request(f"Unsupported MIME type: {mime_type}")

    def resolve(self, data: FileData, account: str) -> Attachment | None:
        """Return the uploaded file that `data` refers to."""
        return self._files.attachment(data, account)

    async def _create_batch(self, request: Request, account: str) -> Response:
        return await self._batches.create(request, self.require_model(request), account)

    async def _list_models(self, request: Request, _account: str) -> Response:
        names = sorted(MODELS)
        wanted, more = page(request, names, default_size=50, max_size=1000)
        return answer({"models": [_model_object(MODELS[name]) for name in names[wanted]]} | more)

    async def _retrieve_model(self, request: Request, _account: str) -> Response:
        return answer(_model_object(self.require_model(request)))


def _model_object(model: Model) -> dict[str, Any]:
    return {
        "name": f"models/{model.name}",
        "version": "001",
        "displayName": model.name,
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "batchGenerateContent"],
        "thinking": model.can_think,
    }
