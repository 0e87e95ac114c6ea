"""How much a large upload makes the gateway grow above idle.

The spool is written and read, not mapped: its page cache is no part of the process's resident memory.
"""

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.client import upload
from benchmarks.processes import UNLIMITED, Bench, Server, gateway, model_names, sandbox, six_providers
from benchmarks.report import Row, Target

SAMPLE_SECONDS = 0.02
SLOW = 100_000_000
TARGET = Target("peak_mb", 64)


def rows(bench: Bench) -> Iterator[Row]:
    """Four fast targets; two, of which one is slow; all six providers."""
    gigabyte = 1_000_000_000 // (8 if bench.quick else 1)
    for case, size_bytes, limits in (
        ("targets 4, unlimited", 2 * gigabyte, UNLIMITED),
        ("targets 2, one at 100 MB/s", gigabyte, (None, SLOW)),
    ):
        with gateway(bench.provider, limits=limits) as server:
            yield _measured(server, case, size_bytes, model_names(len(limits)))
    with sandbox() as simulated:
        entries = six_providers(simulated)
        with gateway(bench.provider, entries=entries) as server:
            yield _measured(server, "all six providers", gigabyte, entries)


def _measured(server: Server, case: str, size_bytes: int, targets: Iterable[str]) -> Row:
    figures: dict[str, float] = {}
    with growth(server.pid, figures):
        # Its size untold: a file over OpenAI's 512 MiB is refused as soon as that is known.
        _, figures["seconds"] = upload(server.url, size_bytes, targets, chunked=True)
    return Row("memory", f"{size_bytes / 1e9:g} GB, {case}", figures, (TARGET,))


@contextmanager
def growth(pid: int, figures: dict[str, float]) -> Iterator[None]:
    """Add how far resident and anonymous memory rise above the beginning while the block runs."""
    process = Path("/proc", str(pid))
    # Sets the kernel's high-water mark back to the present (proc(5), clear_refs).
    (process / "clear_refs").write_text("5")
    idle_mb, anonymous_mb = _megabytes(process, "VmRSS"), [_megabytes(process, "RssAnon")]
    done = threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_SECONDS):
            anonymous_mb.append(_megabytes(process, "RssAnon"))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield
    finally:
        done.set()
        sampler.join()
    figures["peak_mb"] = _megabytes(process, "VmHWM") - idle_mb
    figures["peak_anonymous_mb"] = max(anonymous_mb) - anonymous_mb[0]


def _megabytes(process: Path, name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", (process / "status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6
