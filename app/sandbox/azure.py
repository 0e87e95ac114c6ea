"""Azure OpenAI: /azure, OpenAI's wire with Azure's paths, keys, file ids, purposes and errors (wire.md §2)."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from app.sandbox.openai import OpenAI
from app.sandbox.openai_answers import answer, plain_failure
from app.sandbox.openai_batches import BatchRules
from app.sandbox.openai_completion import Completion
from app.sandbox.openai_files import FileRules, mint_file_id
from app.sandbox.provider import bearer_token

_API_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
# What the front of Azure answers itself, before any model's server sees the request [U but for 401 and 404].
_FRONT: dict[int, str] = {
    401: "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key "
    "for an active subscription and use a correct regional API endpoint for your resource.",
    403: "Access denied due to Virtual Network/Firewall rules.",
    404: "Resource not found",
    429: "Requests have exceeded the call rate limit of your current pricing tier. Please retry later.",
    503: "The service is temporarily unable to process your request. Please try again later.",
}
_FILTERS: dict[str, Any] = {
    category: {"filtered": False, "severity": "safe"} for category in ("hate", "self_harm", "sexual", "violence")
}
_PROMPT_FILTERS: dict[str, Any] = {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _FILTERS}]}


def _mint_file_id(purpose: str) -> str:
    # wire.md §2b: ids of assistants uploads begin with assistant-, those of batch uploads with file-.
    file_id = mint_file_id()
    return file_id.replace("file-", "assistant-", 1) if purpose == "assistants" else file_id


class Azure(OpenAI):
    """Azure OpenAI, in the dated form (`?api-version=`) and in the v1 form."""

    name: ClassVar[str] = "azure"
    prefix: ClassVar[str] = "/azure"

    # user_data is refused: Azure's documents contradict each other, the stricter one rules (wire.md §2b).
    file_rules: ClassVar[FileRules] = FileRules(
        purposes=frozenset({"assistants", "batch", "fine-tune", "vision"}),
        mint_id=_mint_file_id,
        # The SDK sends brackets, Azure's own curl sample dots.
        expiry_fields=(
            *OpenAI.file_rules.expiry_fields,
            "expires_after.anchor",
            "expires_after.seconds",
        ),
        list_parameters=OpenAI.file_rules.list_parameters | {"api-version"},
    )
    batch_rules: ClassVar[BatchRules] = BatchRules(
        endpoints=frozenset({"/v1/chat/completions", "/chat/completions"}),
        list_parameters=OpenAI.batch_rules.list_parameters | {"api-version"},
        expires=False,
        always_error_file=True,
        ended_status=400,
    )

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of both forms: v1 is OpenAI's, the dated one has chat below its deployment."""
        v1 = [*self.account_routes(), self.chat_route("/chat/completions")]
        dated = [*self.account_routes(), self.chat_route("/deployments/{model}/chat/completions")]
        return [
            Mount("/openai/v1", routes=v1),
            Mount("/openai", app=_Dated(Mount("", routes=dated), lambda: self.failure(404))),
        ]

    def credential(self, request: Request) -> str | None:
        """Return the `api-key`, else the bearer token."""
        return request.headers.get("api-key") or bearer_token(request)

    def unauthorized(self, credential: str | None) -> Response:
        """Return Azure's 401, the same for a missing key as for a wrong one."""
        del credential
        return self.failure(401)

    def failure(self, status: int) -> Response:
        """Return the error of Azure's front where it has one, else the model server's, which is OpenAI's."""
        if status not in _FRONT:
            return plain_failure(status)
        return answer({"error": {"code": str(status), "message": _FRONT[status]}}, status)

    def unknown_model(self, model: str) -> Response:
        """Return the answer to a deployment that does not exist."""
        message = f"The API deployment {model} does not exist for this resource."
        return answer({"error": {"code": "DeploymentNotFound", "message": message}}, 404)

    def dress(self, body: dict[str, Any]) -> dict[str, Any]:
        """Add the results of the content filters [U, wire.md §2d]."""
        choices = [choice | {"content_filter_results": _FILTERS} for choice in body["choices"]]
        return body | _PROMPT_FILTERS | {"choices": choices}

    def dress_chunks(self, completion: Completion) -> Iterator[dict[str, Any]]:
        """Yield a chunk without choices first, which tells of the prompt's filters [U, wire.md §2d]."""
        first, *others = completion.chunks()
        yield first | _PROMPT_FILTERS | {"choices": []}
        for chunk in (first, *others):
            choices = [choice | {"content_filter_results": _FILTERS} for choice in chunk["choices"]]
            yield chunk | {"choices": choices}


class _Dated:
    """The dated form: without a well-formed api-version no path exists."""

    def __init__(self, app: ASGIApp, not_found: Callable[[], Response]) -> None:
        self._app = app
        self._not_found = not_found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        versions = parse_qs(scope["query_string"].decode()).get("api-version", [])
        dated = len(versions) == 1 and _API_VERSION.fullmatch(versions[0])
        await (self._app if dated else self._not_found())(scope, receive, send)
