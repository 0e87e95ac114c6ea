"""From spawning `filemux serve` on an existing data directory to its first healthy answer."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from benchmarks.processes import Bench, data_dir, serve
from benchmarks.report import Row, Target

TARGET = Target("seconds", 2.0)
TIMES = 5


def rows(bench: Bench) -> Iterator[Row]:
    """The first start makes the data directory; the median of the next ones counts."""
    with data_dir() as directory:
        taken = [_seconds(bench, directory) for _ in range(1 + TIMES)]
    yield Row("start", "a new data directory", {"seconds": taken[0]})
    yield Row("start", f"an existing one, median of {TIMES}", {"seconds": statistics.median(taken[1:])}, (TARGET,))


def _seconds(bench: Bench, directory: Path) -> float:
    begun = time.perf_counter()
    with serve(directory, bench.provider) as server, urlopen(f"{server.url}/healthz"):
        return time.perf_counter() - begun
