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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from app import deployments
from app.configuration import load, with_secrets
from app.db import migrations, session
from app.db.embedded import EmbeddedPostgres
from app.files import spool
from app.processes import ended, start_child
from app.server import Server
from app.settings import Settings
from app.yaml_file import SettingsError

SANDBOX_PORT = 4010
# A worker that ends sooner than this after its start cannot work at all.
EARLY_SECONDS = 2.0
# Room for some 7,000 values of each kind.
METRICS_BYTES = 1024 * 1024
# What a worker may take to end after its grace period.
END_SECONDS = 5.0


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
        found = with_secrets(found, tell=say)
        if found.database_url is None:
            database_url = stack.enter_context(EmbeddedPostgres(found.data_dir)).url
            migrations.upgrade(database_url)
            found = replace(found, database_url=database_url)
        spool.remove_leftovers(found.data_dir / "spool")
        if not found.models:
            say("no model_list is configured: pass --config FILE, or --sandbox to try filemux out")
        if options.workers == 1:
            _run(found, listeners[0], at_once=signal.SIGTERM)
        else:
            _supervise(found, listeners)


def say(line: str) -> None:
    """Tell the person at the terminal; logs go to stderr."""
    print(line, flush=True)  # noqa: T201


def _run(found: Settings, listener: socket.socket, at_once: signal.Signals) -> None:
    Server(found, lambda: say(f"filemux listening on {_url(listener)}"), at_once).run([listener])


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
        for listener in listeners:
            # From here on callers are better off at another gateway than waiting for this one.
            listener.close()
        _end(workers, found.options.drain_seconds + END_SECONDS)


def _end(workers: list[_Worker], wait_seconds: float) -> None:
    """Let the workers finish what they do; another signal to us cuts them off."""

    def at_once(*_: object) -> None:
        for worker in workers:
            worker.process.send_signal(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, at_once)
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + wait_seconds
    for worker in workers:
        ended(worker.process, max(0.0, deadline - time.monotonic()))


class _Worker:
    """One worker's process, and the socket that outlives it."""

    def __init__(self, listener: socket.socket, environment: dict[str, str]) -> None:
        self._listener, self._environment = listener, environment
        self._start()

    def _start(self) -> None:
        self._started, self._ready = time.monotonic(), False
        descriptor = self._listener.fileno()
        command = [sys.executable, "-m", "app.serve", str(descriptor)]
        # A group of its own: Ctrl-C is for the parent alone, which then ends the workers in order.
        options = {"env": self._environment, "pass_fds": [descriptor], "process_group": 0}
        self.process = start_child(command, signal.SIGTERM, **options)

    def wait_ready(self) -> None:
        if not self._was_ready():
            raise SettingsError("a worker did not start; its log is above", file="--workers")

    def replace_if_dead(self) -> None:
        if self.process.poll() is None:
            return
        # How long a broken one takes to fail says only how fast the machine is.
        if not self._was_ready() or time.monotonic() - self._started < EARLY_SECONDS:
            raise SettingsError(f"a worker ended at once with status {self.process.returncode}", file="--workers")
        # Else its gauges would stay as it left them.
        mark_process_dead(self.process.pid, self._environment["PROMETHEUS_MULTIPROC_DIR"])  # type: ignore[no-untyped-call]
        self._start()

    def _was_ready(self) -> bool:
        """Whether it has said that it listens; that of one that lives is waited for."""
        assert self.process.stdout is not None
        self._ready = self._ready or bool(self.process.stdout.readline())
        return self._ready


def _handed_down(found: Settings) -> dict[str, str]:
    """The environment in which a worker finds what the parent has found."""
    assert found.database_url and found.master_key and found.secret_keys
    metrics = found.data_dir / "metrics"
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir(parents=True)
    return {
        **os.environ,
        "DATABASE_URL": found.database_url,
        "FILEMUX_DATA_DIR": str(found.data_dir),
        "FILEMUX_MASTER_KEY": found.master_key.get_secret_value(),
        "FILEMUX_SECRET_KEY": ",".join(key.get_secret_value() for key in found.secret_keys),
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
    }


def _reserve_metrics(directory: Path) -> None:
    """Give this worker's metrics their place on the disk. prometheus_client maps files that are holes, and the kernel
    kills whoever writes to a hole when the disk is full."""
    for kind in ("counter", "gauge_livemax", "histogram"):
        (directory / f"{kind}_{os.getpid()}.db").write_bytes(bytes(METRICS_BYTES))


def _work(descriptor: int) -> None:
    _reserve_metrics(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    listener = socket.socket(fileno=descriptor)
    # SIGTERM may come from systemd and from the parent, each for itself: only SIGINT says that it is urgent.
    _run(load(), listener, at_once=signal.SIGINT)


# --- the sandbox ------------------------------------------------------------------------------------------------


@contextmanager
def sandbox_process(port: int) -> Iterator[str]:
    """The sandbox as a child that dies with us; its URL. Where the port is taken it takes a free one."""
    command = [sys.executable, "-m", "app.sandbox", "--port", str(port), "--or-free-port"]
    with start_child(command, signal.SIGTERM) as process:
        assert process.stdout is not None
        match = re.search(r"http://\S+", process.stdout.readline().decode())
        if match is None:
            raise SettingsError("the sandbox did not start", file="--sandbox")
        try:
            yield match[0]
        finally:
            ended(process, 5)


if __name__ == "__main__":
    _work(int(sys.argv[1]))
