"""`filemux serve` as processes: the embedded PostgreSQL and the sandbox if wanted, and the workers."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn
from pydantic import SecretStr
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app import deployments, ids, logs, settings
from app.db import migrations, session
from app.db.embedded import EmbeddedPostgres, default_data_dir
from app.errors import BadRequest
from app.files import spool
from app.processes import ended, start_child
from app.settings import Environment, Settings
from app.yaml_file import SettingsError

SANDBOX_PORT = 4010
DRAIN_SECONDS = 30
# A worker that ends sooner than this after its start cannot work at all.
EARLY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line says. Port 0 takes a free one."""

    config: Path | None = None
    host: str = "127.0.0.1"
    port: int = 4000
    workers: int = 1
    sandbox: bool = False


def serve(options: ServeOptions) -> None:
    """Run a gateway until SIGINT or SIGTERM. Raises SettingsError or EmbeddedPostgresError before anything serves."""
    with ExitStack() as stack:
        if options.config:
            os.environ["FILEMUX_CONFIG"] = str(options.config)
        if options.sandbox:
            os.environ["FILEMUX_SANDBOX_URL"] = stack.enter_context(sandbox_process(SANDBOX_PORT))
            say(f"sandbox listening on {os.environ['FILEMUX_SANDBOX_URL']}")
        found = load()
        deployments.check(found)
        if found.database_url:
            session.normalised(found.database_url)
        listeners = [stack.enter_context(one) for one in _listeners(options)]
        found = with_secrets(found)
        if found.database_url is None:
            database_url = stack.enter_context(EmbeddedPostgres(found.data_dir)).url
            migrations.upgrade(database_url)
            found = replace(found, database_url=database_url)
        spool.remove_leftovers(found.data_dir / "spool")
        if not found.models:
            say("no model_list is configured: pass --config FILE, or --sandbox to try filemux out")
        if options.workers == 1:
            _Server(found, _url(listeners[0])).run(listeners)
        else:
            _supervise(found, listeners)


def load(config: Path | None = None) -> Settings:
    """The settings of this process: the configuration file, or the sandbox's where there is only a sandbox."""
    environment = Environment()
    config = config or environment.filemux_config
    sandbox_url = os.environ.get("FILEMUX_SANDBOX_URL")
    if sandbox_url and config is None:
        from app.sandbox.config import sandbox_configuration  # noqa: PLC0415  not part of a real gateway

        return settings.from_mapping(sandbox_configuration(sandbox_url), environment, default_data_dir())
    return settings.load(config, environment, default_data_dir())


def say(line: str) -> None:
    """Tell the person at the terminal; logs go to stderr."""
    print(line, flush=True)  # noqa: T201


def with_secrets(found: Settings, tell: Callable[[str], None] = say) -> Settings:
    """Make and keep what was not configured; a new master key is told once."""
    master_key, secret_key = found.master_key, found.secret_key
    if master_key is None:
        path = found.data_dir / "master_key"
        secret, new = settings.kept_secret(path)
        master_key = SecretStr(secret)
        if new:
            tell(f"new master key, kept in {path}: {secret}")
    if secret_key is None:
        secret_key = SecretStr(settings.kept_secret(found.data_dir / "secret_key")[0])
    return replace(found, master_key=master_key, secret_key=secret_key)


class _Protocol(HttpToolsProtocol):
    """Refuses what is no HTTP in the same envelope as everything else."""

    def send_400_response(self, msg: str) -> None:
        refusal = BadRequest("this is no valid HTTP request", code="invalid_http")
        body = refusal.body()
        facts = {"x-request-id": ids.new_request_id(), "content-length": len(body), "connection": "close"}
        lines = [f"{name}: {value}" for name, value in (refusal.headers() | facts).items()]
        self.transport.write("\r\n".join(["HTTP/1.1 400 Bad Request", *lines, "", ""]).encode() + body)
        self.transport.close()


class _Server(uvicorn.Server):
    """One worker. Says where it listens once it does."""

    def __init__(self, found: Settings, url: str) -> None:
        logs.configure()
        from app.main import create_app  # noqa: PLC0415  its metrics read PROMETHEUS_MULTIPROC_DIR when imported

        config = uvicorn.Config(
            create_app(found),
            loop="uvloop",
            http=_Protocol,
            ws="none",
            lifespan="on",
            access_log=False,
            log_level="warning",
            server_header=False,
            # Longer than the balancers' and clients' minute: who closes first must not be us.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            say(f"filemux listening on {self._url}")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own version raises the signal again at the end, which makes an orderly end look like a crash.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


# --- several workers --------------------------------------------------------------------------------------------


def _listeners(options: ServeOptions) -> list[socket.socket]:
    """A socket for each worker on the same port: the kernel spreads connections evenly over them, which it does not
    over processes that accept from one socket."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listeners: list[socket.socket] = []
    port = options.port
    try:
        if port:
            # Sockets that share a port would also join another gateway's.
            socket.create_server((options.host, port), family=family).close()
        for _ in range(options.workers):
            shared = options.workers > 1
            listeners.append(socket.create_server((options.host, port), family=family, backlog=2048, reuse_port=shared))
            port = listeners[0].getsockname()[1]
    except OSError as failure:
        reason = f"cannot listen on {options.host}:{port}: {failure.strerror}"
        raise SettingsError(reason, file="--host and --port") from None
    return listeners


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _supervise(found: Settings, listeners: list[socket.socket]) -> None:
    """Keep one worker on each socket until a signal comes. A worker that dies is replaced; its socket, which we hold
    too, meanwhile keeps its callers waiting instead of refusing them."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    environment = _handed_down(found)
    workers = [_Worker(listener, environment) for listener in listeners]
    try:
        for worker in workers:
            worker.wait_ready()
        say(f"filemux listening on {_url(listeners[0])}")
        while not stop.wait(0.2):
            for worker in workers:
                worker.replace_if_dead()
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            ended(worker.process, DRAIN_SECONDS + 5)


class _Worker:
    """One worker's process, and the socket that outlives it."""

    def __init__(self, listener: socket.socket, environment: dict[str, str]) -> None:
        self._listener, self._environment = listener, environment
        self._start()

    def _start(self) -> None:
        self._started = time.monotonic()
        descriptor = self._listener.fileno()
        command = [sys.executable, "-m", "app.serve", str(descriptor)]
        # A group of its own: Ctrl-C is for the parent alone, which then ends the workers in order.
        options = {"env": self._environment, "pass_fds": [descriptor], "process_group": 0}
        self.process = start_child(command, signal.SIGTERM, **options)

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise SettingsError("a worker did not start; its log is above", file="--workers")

    def replace_if_dead(self) -> None:
        if self.process.poll() is None:
            return
        if time.monotonic() - self._started < EARLY_SECONDS:
            raise SettingsError(f"a worker ended at once with status {self.process.returncode}", file="--workers")
        self._start()


def _handed_down(found: Settings) -> dict[str, str]:
    """The environment in which a worker finds what the parent has found."""
    assert found.database_url and found.master_key and found.secret_key
    metrics = found.data_dir / "metrics"
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir(parents=True)
    return {
        **os.environ,
        "DATABASE_URL": found.database_url,
        "FILEMUX_DATA_DIR": str(found.data_dir),
        "FILEMUX_MASTER_KEY": found.master_key.get_secret_value(),
        "FILEMUX_SECRET_KEY": found.secret_key.get_secret_value(),
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
    }


def _work(descriptor: int) -> None:
    listener = socket.socket(fileno=descriptor)
    _Server(load(), _url(listener)).run([listener])


# --- the sandbox ------------------------------------------------------------------------------------------------


@contextmanager
def sandbox_process(port: int) -> Iterator[str]:
    """The sandbox as a child that dies with us; its URL. Where the port is taken it takes a free one."""
    command = [sys.executable, "-m", "app.sandbox", "--port", str(port if _is_free(port) else 0)]
    with start_child(command, signal.SIGTERM) as process:
        assert process.stdout is not None
        match = re.search(r"http://\S+", process.stdout.readline().decode())
        if match is None:
            raise SettingsError("the sandbox did not start", file="--sandbox")
        try:
            yield match[0]
        finally:
            ended(process, 5)


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    _work(int(sys.argv[1]))
