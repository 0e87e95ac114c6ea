"""Every URL on one page. Each OpenAI path also answers under /v1, /openai and /openai/v1 (see app.edge)."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from app import deployments, health, openapi
from app.access import keys, teams
from app.batches import cancel as batches_cancel
from app.batches import create as batches_create
from app.batches import read as batches_read
from app.chat import complete
from app.errors import NotFound
from app.files import content, delete, read, upload
from app.files.backfill import sync

_metrics = health.Metrics()


def _route(verb: str, path: str, endpoint: object) -> Route:
    return Route(path, endpoint, methods=[verb])  # type: ignore[arg-type]


ROUTES: list[BaseRoute] = [
    # chat
    _route("POST", "/chat/completions", complete.Endpoint()),
    # Azure's clients name the model in the path too; the body decides.
    _route("POST", "/deployments/{model:path}/chat/completions", complete.Endpoint()),
    # files
    _route("POST", "/files", upload.endpoint),
    _route("GET", "/files", read.list_endpoint),
    _route("GET", "/files/{file_id}", read.endpoint),
    _route("GET", "/files/{file_id}/content", content.endpoint),
    _route("DELETE", "/files/{file_id}", delete.endpoint),
    # batches
    _route("POST", "/batches", batches_create.endpoint),
    _route("GET", "/batches", batches_read.list_endpoint),
    _route("GET", "/batches/{batch_id}", batches_read.endpoint),
    _route("POST", "/batches/{batch_id}/cancel", batches_cancel.endpoint),
    # models
    _route("GET", "/models", deployments.list_endpoint),
    _route("GET", "/models/{model_name:path}", deployments.endpoint),
    # admin
    _route("POST", "/admin/teams", teams.create_endpoint),
    _route("GET", "/admin/teams", teams.list_endpoint),
    _route("POST", "/admin/teams/{team_id}", teams.update_endpoint),
    _route("POST", "/admin/keys", keys.create_endpoint),
    _route("GET", "/admin/keys", keys.list_endpoint),
    _route("DELETE", "/admin/keys/{key_id}", keys.revoke_endpoint),
    _route("POST", "/admin/keys/{key_id}/rotate", keys.rotate_endpoint),
    _route("POST", "/admin/files/sync", sync.endpoint),
    _route("GET", "/admin/files/sync", sync.progress_endpoint),
    # operation
    _route("GET", "/healthz", health.alive_endpoint),
    _route("GET", "/readyz", health.ready_endpoint),
    _route("GET", "/metrics", _metrics.endpoint),
    _route("GET", "/openapi.json", openapi.endpoint),
]


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """What the router does with every other path."""
    raise NotFound(f"there is no route {scope['method']} {scope['path']}", code="route_not_found")
