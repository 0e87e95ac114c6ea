"""64 streamed chats at once, each of 30 events 20 ms apart: how late they end, and what they cost."""

import statistics
import time
from collections.abc import Iterator

from benchmarks.chat import body
from benchmarks.client import streams, upload
from benchmarks.fake_provider import EVENT_SECONDS, EVENTS
from benchmarks.processes import Bench, Server, gateway, model_names
from benchmarks.report import Row, Target

CLIENTS = 64
IDEAL_SECONDS = EVENTS * EVENT_SECONDS
TARGETS = (Target("of_ideal", 1.15), Target("cpu_percent", 25))


def rows(bench: Bench) -> Iterator[Row]:
    """Direct, then through one worker."""
    yield Row("sse", f"{CLIENTS} streams, direct", load(bench, bench.provider, "file-fake"))
    with gateway(bench.provider) as server:
        file_id, _ = upload(server.url, 100_000, model_names(4))
        yield Row("sse", f"{CLIENTS} streams, workers 1", load(bench, server, file_id), TARGETS)


def load(bench: Bench, server: Server, file_id: str) -> dict[str, float]:
    """The figures of one measurement: the streams' times, p99 against the ideal, and the CPU of the server."""
    rounds = round(bench.seconds / IDEAL_SECONDS)
    cpu_seconds, started = server.cpu_seconds(), time.perf_counter()
    payload = body(file_id, stream=True)
    taken = streams(server.url, payload, CLIENTS, rounds, spread_seconds=IDEAL_SECONDS, events=EVENTS)
    cpu = (server.cpu_seconds() - cpu_seconds) / (time.perf_counter() - started)
    p99 = statistics.quantiles(taken, n=100)[98]
    return {
        "p50_ms": statistics.median(taken) * 1000,
        "p99_ms": p99 * 1000,
        "of_ideal": p99 / IDEAL_SECONDS,
        "cpu_percent": cpu * 100,
    }
