"""Vertex AI: /vertex, generateContent and batches with files from Cloud Storage, and the tokens (wire.md §5)."""

import base64
import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qs

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from app.sandbox.faults import Faults
from app.sandbox.gemini_answers import answer, bad_request, error_info, error_response, plain_failure
from app.sandbox.gemini_chat import GenerateContentRequest, VertexRequest
from app.sandbox.gemini_contents import FileData
from app.sandbox.gemini_generate import GenerativeProvider
from app.sandbox.gemini_pages import page
from app.sandbox.gemini_rules import MODELS
from app.sandbox.model import Attachment
from app.sandbox.provider import Refusal, bearer_token
from app.sandbox.store import Store
from app.sandbox.vertex_batches import VertexBatches

_VERSIONS = ("v1", "v1beta1")
_MODELS_PATH = "/publishers/google/models"
_PROJECT_PATH = "/projects/{project}/locations/{location}"
_TYPES = (
    *("application/pdf", "text/plain", "image/png", "image/jpeg", "image/webp", "image/gif"),
    *("audio/", "video/"),
)
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_SECONDS = 3600


class Vertex(GenerativeProvider):
    """Vertex's inference plane; its files are the objects of the bucket."""

    name: ClassVar[str] = "vertex_ai"
    prefix: ClassVar[str] = "/vertex"
    request_type: ClassVar[type[GenerateContentRequest]] = VertexRequest

    def __init__(self, store: Store, faults: Faults) -> None:
        super().__init__(store, faults)
        self._batches = VertexBatches(self.name, store, self.reply)

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of a project and those of key mode, which name no project."""
        token = Route("/token", self.operation("issue_token", self._issue_token), methods=["POST"])
        return [token, *(route for version in _VERSIONS for route in self._versioned(f"/{version}"))]

    def _versioned(self, version: str) -> list[BaseRoute]:
        models, jobs = version + _MODELS_PATH, f"{version}{_PROJECT_PATH}/batchPredictionJobs"
        batches = (
            ("POST", jobs, "create_batch", self._batches.create),
            ("GET", jobs, "list_batches", self._batches.list_page),
            ("POST", f"{jobs}/{{job}}:cancel", "cancel_batch", self._batches.cancel),
            ("GET", f"{jobs}/{{job}}", "retrieve_batch", self._batches.retrieve),
            ("DELETE", f"{jobs}/{{job}}", "delete_batch", self._batches.delete),
        )
        return [
            *(Route(path, self.operation(name, verb), methods=[method]) for method, path, name, verb in batches),
            *self.chat_routes(version + _PROJECT_PATH + _MODELS_PATH),
            *self.chat_routes(models),
            Route(models, self.operation("list_models", self._list_models), methods=["GET"]),
            Route(f"{models}/{{model}}", self.operation("retrieve_model", self._retrieve_model), methods=["GET"]),
        ]

    def credential(self, request: Request) -> str | None:
        """Return the token; below no project, which is key mode, the API key: only lists take a token there too."""
        if request.url.path == f"{self.prefix}/token":
            return "assertion"  # stands in the body, where it is checked
        token = bearer_token(request)
        if "/projects/" in request.url.path:
            return token
        return request.headers.get("x-goog-api-key") or (token if request.method == "GET" else None)

    def unauthorized(self, credential: str | None) -> Response:
        """Return Google's 401; a wrong API key is answered like a wrong token [U]."""
        if credential is not None:
            return plain_failure(401)
        message = (
            "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or "
            "other valid authentication credential."
        )
        details = [error_info("CREDENTIALS_MISSING", "aiplatform.googleapis.com")]
        return error_response(401, "UNAUTHENTICATED", message, details)

    def unknown_model(self, request: Request) -> Response:
        """Return the answer to a model that does not exist."""
        message = (
            f"Publisher Model `publishers/google/models/{request.path_params['model']}` was not found or your project "
            "does not have access to it. Please ensure you are using a valid model version."
        )
        return error_response(404, "NOT_FOUND", message)

    def check_type(self, mime_type: str) -> None:
        """Refuse what is neither PDF, plain text, image, sound nor film (wire.md §0.3)."""
        if not mime_type.startswith(_TYPES):
            raise bad_request(
                f"Unable to submit request because it has a mimeType parameter with value {mime_type}, which is not "
                "supported. Update the mimeType and try again."
            )

    def resolve(self, data: FileData, account: str) -> Attachment | None:
        """Return the object that `data` refers to, whoever asks: every credential may read the bucket."""
        del account
        if data.file_uri.startswith(("https://", "http://")):
            return None
        for file in self.store.everything():
            if file.provider == self.name and file.id == data.file_uri:
                return Attachment(file.filename, file.size_bytes, file.sha256)
        # Which of Google's codes a missing object has is unverified (wire.md §5c); 400 is what the caller can mend.
        raise bad_request(f"Cannot fetch content from the provided URL: {data.file_uri}")

    async def _list_models(self, request: Request, _account: str) -> Response:
        names = sorted(MODELS)
        wanted, more = page(request, names, default_size=100, max_size=1000)
        return answer({"publisherModels": [*map(_publisher_model, names[wanted])]} | more)

    async def _retrieve_model(self, request: Request, _account: str) -> Response:
        return answer(_publisher_model(self.require_model(request).name))

    async def _issue_token(self, request: Request, _account: str) -> Response:
        """Answer a service account's signed assertion with a token; its signature is not verified."""
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode(errors="replace")).items()}
        if form.get("grant_type") != _JWT_GRANT:
            raise _no_token("unsupported_grant_type", "Invalid grant_type: " + form.get("grant_type", ""))
        try:
            header, claims, _signature = form.get("assertion", "").split(".")
            _Header.model_validate(_decoded(header))
            issuer = _Claims.model_validate(_decoded(claims)).iss
        except ValueError as error:
            raise _no_token("invalid_grant", f"Invalid JWT: {error}") from error
        if issuer.startswith("bad"):
            raise _no_token("invalid_grant", "Invalid grant: account not found")
        return answer({"access_token": f"sandbox-{issuer}", "expires_in": _TOKEN_SECONDS, "token_type": "Bearer"})


class _Header(BaseModel):
    alg: Literal["RS256"]


class _Claims(BaseModel):
    model_config = ConfigDict(strict=True)

    iss: Annotated[str, Field(min_length=1)]
    aud: Annotated[str, Field(min_length=1)]
    exp: int
    scope: Annotated[str, StringConstraints(pattern=re.escape(_SCOPE))]


def _decoded(segment: str) -> Any:
    """Return the JSON of a segment of a JWT; raises ValueError, of which the errors of base64 and JSON are kinds."""
    return orjson.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))


def _no_token(error: str, description: str) -> Refusal:
    """Return the refusal of the token endpoint, which speaks OAuth and not Google's errors."""
    return Refusal(answer({"error": error, "error_description": description}, 400))


def _publisher_model(name: str) -> dict[str, Any]:
    return {"name": f"publishers/google/models/{name}", "versionId": "default", "launchStage": "GA"}
