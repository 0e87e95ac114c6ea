"""`filemux serve` as processes: the embedded PostgreSQL and the sandbox if wanted, and the workers."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn
from pydantic import SecretStr

from app import deployments, logs, settings
from app.db import migrations
from app.db.embedded import EmbeddedPostgres, default_data_dir
from app.settings import Environment, Settings

SANDBOX_PORT = 4010
DRAIN_SECONDS = 30


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line says. Port 0 takes a free one."""

    config: Path | None
    host: str
    port: int
    workers: int
    sandbox: bool


def serve(options: ServeOptions) -> None:
    """Run a gateway until SIGINT or SIGTERM. Raises SettingsError or EmbeddedPostgresError before anything serves."""
    with ExitStack() as stack:
        if options.sandbox:
            sandbox_url = stack.enter_context(sandbox_process(SANDBOX_PORT))
            say(f"sandbox listening on {sandbox_url}")
            os.environ["FILEMUX_SANDBOX_URL"] = sandbox_url
        if options.config:
            os.environ["FILEMUX_CONFIG"] = str(options.config)
        found = load()
        deployments.check(found)
        found = with_secrets(found)
        if found.database_url is None:
            url = stack.enter_context(EmbeddedPostgres(found.data_dir)).url
            migrations.upgrade(url)
            found = replace(found, database_url=url)
        _run(options, found, stack)


def load() -> Settings:
    """The settings of this process: the configuration file, or the sandbox's where there is only a sandbox."""
    environment = Environment()
    sandbox_url = os.environ.get("FILEMUX_SANDBOX_URL")
    if sandbox_url and environment.filemux_config is None:
        from app.sandbox.config import sandbox_configuration  # noqa: PLC0415  not part of a real gateway

        return settings.from_mapping(sandbox_configuration(sandbox_url), environment, default_data_dir())
    return settings.load(None, environment, default_data_dir())


def with_secrets(found: Settings) -> Settings:
    """Make and keep what was not configured; a new master key is printed once."""
    secrets = {}
    for name in ("master_key", "secret_key"):
        if getattr(found, name) is None:
            secret, new = settings.kept_secret(found.data_dir / name)
            secrets[name] = SecretStr(secret)
            if new and name == "master_key":
                say(f"new master key, kept in {found.data_dir / name}: {secret}")
    return replace(found, **secrets)


def worker_app() -> object:
    """What each of several workers serves; the parent hands its findings down in the environment."""
    logs.configure()
    from app.main import create_app  # noqa: PLC0415  after the parent has set PROMETHEUS_MULTIPROC_DIR

    return create_app(load())


def say(line: str) -> None:
    """Tell the person at the terminal; logs go to stderr."""
    print(line, flush=True)  # noqa: T201


def _run(options: ServeOptions, found: Settings, stack: ExitStack) -> None:
    logs.configure()
    if not found.models:
        say("no model_list is configured: pass --config FILE, or --sandbox to try filemux out")
    common = {
        "loop": "uvloop",
        "http": "httptools",
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "log_level": "warning",
        "server_header": False,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": DRAIN_SECONDS,
    }
    listener = stack.enter_context(_listener(options.host, options.port))
    host, port = listener.getsockname()[:2]
    url = f"http://{host}:{port}"
    if options.workers == 1:
        from app.main import create_app  # noqa: PLC0415  imports the metrics, which read the environment

        server = _Server(uvicorn.Config(create_app(found), **common), url)  # type: ignore[arg-type]
        server.run(sockets=[listener])
    else:
        raise NotImplementedError


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            say(f"filemux listening on {self._url}")


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as failure:
        raise settings.SettingsError(f"cannot listen on {host}:{port}: {failure.strerror}", file="--port") from None


@contextmanager
def sandbox_process(port: int) -> Iterator[str]:
    """The sandbox as a child that dies with us; its URL. A port that is taken makes it take a free one."""
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as free:
        free.close()
        yield from _sandbox(port)
        return
    yield from _sandbox(0)


def _sandbox(port: int) -> Iterator[str]:
    command = [sys.executable, "-m", "app.sandbox", "--port", str(port), "--die-with-parent"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  our own module
        assert process.stdout is not None
        match = re.search(r"http://\S+", process.stdout.readline())
        if match is None:
            raise settings.SettingsError("the sandbox did not start", file="--sandbox")
        try:
            yield match[0]
        finally:
            process.terminate()


def fresh_directory(path: Path) -> Path:
    """An empty directory."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
