"""Where one worker's time goes under load: the gateway as it is, started under cProfile."""

import pstats
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import chat, rate, sse
from benchmarks.client import upload
from benchmarks.processes import Bench, Server, gateway, model_names

LINES = 40
LOADS: dict[str, Callable[[Bench, Server, str], object]] = {
    "chat": lambda bench, server, file_id: chat.load(bench, server, file_id, clients=64),
    "sse": sse.load,
    "rate": lambda bench, server, _: rate.load(bench, server, targets=4),
}


def show(bench: Bench, name: str) -> None:
    """Print what took the most time in itself. cProfile slows Python down, and calls more than it slows C."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "profile"
        with gateway(bench.provider, profile=path) as server:
            file_id, _ = upload(server.url, 100_000, model_names(4))
            print(f"{name}, under the profiler: {LOADS[name](bench, server, file_id)}")
        pstats.Stats(str(path)).sort_stats("tottime").print_stats(LINES)
