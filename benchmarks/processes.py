"""The processes under load: the fake provider and the real `filemux serve`, with the CPU that they use."""

import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import yaml

from app.processes import start_child
from app.sandbox.config import sandbox_configuration
from app.settings import Environment

MASTER_KEY = "sk-master-of-the-benchmarks"
UNLIMITED = (None, None, None, None)
FOREIGN = {*Environment.model_fields, "filemux_sandbox_url", "prometheus_multiproc_dir"}


@dataclass(frozen=True)
class Server:
    """A server that listens. `url` is the base that an OpenAI client takes; `pid` its first process."""

    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """What its processes have used so far, the embedded PostgreSQL apart."""
        first = psutil.Process(self.pid)
        ours = [first, *(child for child in first.children() if child.name() != "postgres")]
        return sum(times.user + times.system for times in (process.cpu_times() for process in ours))


@dataclass(frozen=True)
class Bench:
    """What every measurement is handed: the provider to measure against, and whether to be quick about it."""

    provider: Server
    quick: bool

    @property
    def seconds(self) -> int:
        """The length of a measurement under load."""
        return 2 if self.quick else 10


def model_names(count: int) -> list[str]:
    """m1, m2 …: each an account of its own."""
    return [f"m{number}" for number in range(1, count + 1)]


def limited(provider: Server, bytes_per_second: int | None) -> str:
    """The provider's URL at which it takes each upload at this speed."""
    return provider.url.replace("/v1", f"/{bytes_per_second}/v1") if bytes_per_second else provider.url


@contextmanager
def fake_provider() -> Iterator[Server]:
    """`benchmarks.fake_provider`, at the URL that takes uploads as fast as they come."""
    with _listening(["-m", "benchmarks.fake_provider"]) as server:
        yield server


@contextmanager
def sandbox(bytes_per_second: int | None = None) -> Iterator[Server]:
    """The simulated providers; each request of an upload is taken at that speed."""
    with _listening(["-m", "app.sandbox", "--port", "0", "--max-file-bytes", str(4 * 10**9)]) as server:
        if bytes_per_second:
            fault = {"operation": "upload_file", "bytes_per_second": bytes_per_second, "times": -1}
            address = server.url.removesuffix("/v1")
            httpx.post(f"{address}/_sandbox/faults", json=fault).raise_for_status()
        yield server


def six_providers(simulated: Server) -> dict[str, dict[str, str]]:
    """The sandbox's own model list: an account of every provider."""
    entries = sandbox_configuration(simulated.url.removesuffix("/v1"))["model_list"]
    return {entry["model_name"]: entry["litellm_params"] for entry in entries}


@contextmanager
def data_dir() -> Iterator[Path]:
    """A directory for one gateway's database and spool."""
    with tempfile.TemporaryDirectory(prefix="filemux-bench-") as directory:
        # The embedded PostgreSQL's own user has to pass through.
        Path(directory).chmod(0o711)
        yield Path(directory)


@contextmanager
def gateway(provider: Server, **options) -> Iterator[Server]:
    """`serve` on a data directory of its own."""
    with data_dir() as directory, serve(directory, provider, **options) as server:
        yield server


@contextmanager
def serve(
    directory: Path,
    provider: Server,
    *,
    workers: int = 1,
    limits: Sequence[int | None] = UNLIMITED,
    entries: Mapping[str, Mapping[str, str]] | None = None,
    profile: Path | None = None,
) -> Iterator[Server]:
    """`filemux serve` with one account for each limit (bytes a second, or None), or with the parameters that `entries`
    has for each model name; its log goes to a file.

    With `profile`, under cProfile, which writes there at the end.
    """
    config = directory / "config.yaml"
    config.write_text(yaml.safe_dump(_configuration(entries or _limited_entries(provider, limits))))
    kept = {name: value for name, value in os.environ.items() if name.lower() not in FOREIGN}
    arguments = ["-m", "app.cli", "serve", "--config", str(config), "--port", "0", "--workers", str(workers)]
    if profile:
        arguments = ["-m", "cProfile", "-o", str(profile), *arguments]
    with (
        (directory / "log").open("wb") as log,
        _listening(arguments, env={**kept, "FILEMUX_DATA_DIR": str(directory)}, stderr=log) as server,
    ):
        yield server


def _limited_entries(provider: Server, limits: Sequence[int | None]) -> dict[str, dict[str, str]]:
    return {
        name: {"model": "gpt-4o-mini", "api_base": limited(provider, limit), "api_key": f"sk-{name}"}
        for name, limit in zip(model_names(len(limits)), limits, strict=True)
    }


def _configuration(entries: Mapping[str, Mapping[str, str]]) -> dict:
    return {
        "model_list": [{"model_name": name, "params": dict(params)} for name, params in entries.items()],
        "general_settings": {"master_key": MASTER_KEY},
        "filemux": {"max_file_bytes": 4_000_000_000},
    }


@contextmanager
def _listening(arguments: list[str], **options) -> Iterator[Server]:
    """A Python process, once it has said where it listens."""
    with start_child([sys.executable, *arguments], signal.SIGTERM, **options) as process:
        try:
            said = iter(process.stdout.readline, b"")
            match = next(filter(None, (re.search(rb"listening on (\S+)", line) for line in said)), None)
            if match:
                yield Server(f"{match[1].decode()}/v1", process.pid)
        finally:
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(arguments)} ended by itself with status {process.returncode}")
            # What Ctrl-C does, so that cProfile gets to write.
            process.send_signal(signal.SIGINT)
            process.wait(45)
