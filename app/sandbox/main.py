"""The sandbox as one ASGI app, and as a process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from app.sandbox.anthropic import Anthropic
from app.sandbox.azure import Azure
from app.sandbox.bedrock import Bedrock
from app.sandbox.faults import Faults
from app.sandbox.gcs import GCS
from app.sandbox.gemini import Gemini
from app.sandbox.openai import OpenAI
from app.sandbox.provider import Provider
from app.sandbox.s3 import S3
from app.sandbox.server import serve
from app.sandbox.store import Store
from app.sandbox.switchboard import Switchboard
from app.sandbox.vertex import Vertex

PROVIDERS: tuple[type[Provider], ...] = (OpenAI, Azure, Anthropic, Gemini, Vertex, GCS, Bedrock, S3)


def create_sandbox(max_file_bytes: int | None = None) -> ASGIApp:
    """Return a fresh sandbox with every provider below its own prefix, and the switchboard.

    `max_file_bytes` replaces every provider's own limit.
    """
    store, faults = Store(max_file_bytes), Faults()
    providers = [provider(store, faults) for provider in PROVIDERS]
    # A provider of chat and its bucket are two here that have one name.
    names = [*dict.fromkeys(provider.name for provider in providers)]
    switchboard = Switchboard(store, faults, names)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            store.close()

    return Starlette(
        routes=[
            Mount("/_sandbox", routes=switchboard.routes()),
            *(Mount(provider.prefix, app=provider.app()) for provider in providers),
        ],
        lifespan=lifespan,
    )


def run(host: str, port: int, max_file_bytes: int | None = None) -> None:
    """Serve a fresh sandbox until SIGINT or SIGTERM; its first line on stdout says where it listens."""
    serve(create_sandbox(max_file_bytes), host, port)
