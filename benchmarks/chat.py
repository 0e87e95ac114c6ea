"""Chat completions with a file id, and without: the gateway with one and two workers beside the provider itself."""

import json
from collections.abc import Iterator, Mapping

from benchmarks.client import upload, wrk
from benchmarks.processes import Bench, Server, gateway, model_names
from benchmarks.report import Row, Target

CLIENTS = (1, 16, 64)
PLAIN, WITH_FILE = "no file", "a file id"
# Kind, clients, workers: latency is judged with one client, throughput with two workers (design §9).
TARGETS = {
    (WITH_FILE, 1, 1): (Target("added_p50_ms", 1.0),),
    (WITH_FILE, 64, 2): (Target("requests_per_second", 4_900, at_least=True),),
}
TIMES_FASTER = Target("of_gateway", 5, at_least=True)


def rows(bench: Bench) -> Iterator[Row]:
    """Each number of clients, direct and through the gateway."""
    direct = {}
    for kind, file_id in ((WITH_FILE, "file-fake"), (PLAIN, None)):
        for clients in CLIENTS:
            direct[kind, clients] = load(bench, bench.provider, file_id, clients)
            yield Row("chat", f"{kind}, clients {clients}, direct", direct[kind, clients])
    fastest = 0.0
    for workers in (1, 2):
        with gateway(bench.provider, workers=workers) as server:
            uploaded, _ = upload(server.url, 100_000, model_names(4))
            for (kind, clients), beside in direct.items():
                seen = load(bench, server, uploaded if kind == WITH_FILE else None, clients)
                fastest = max(fastest, seen["requests_per_second"])
                case = f"{kind}, clients {clients}, workers {workers}"
                yield Row("chat", case, _compared(seen, beside, clients), TARGETS.get((kind, clients, workers), ()))
    times = direct[WITH_FILE, CLIENTS[-1]]["requests_per_second"] / fastest
    yield Row("chat", "the fake provider is not the limit", {"of_gateway": times}, (TIMES_FASTER,))


def load(bench: Bench, server: Server, file_id: str | None, clients: int) -> dict[str, float]:
    """The figures of one measurement, a warm-up before it."""
    url, payload = f"{server.url}/chat/completions", body(file_id)
    wrk(url, payload, clients=clients, seconds=1)
    return wrk(url, payload, clients=clients, seconds=bench.seconds)


def body(file_id: str | None, **more: object) -> bytes:
    """A small question, about a file if there is one."""
    parts: list[dict] = [{"type": "text", "text": "Who signed this contract, and until when does it bind them?"}]
    if file_id:
        parts.insert(0, {"type": "file", "file": {"file_id": file_id}})
    messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": parts}]
    payload = {"model": "m1", "messages": messages, "temperature": 0.2, "max_tokens": 200, **more}
    return json.dumps(payload, separators=(",", ":")).encode()


def _compared(seen: Mapping[str, float], direct: Mapping[str, float], clients: int) -> dict[str, float]:
    figures = {**seen, "of_direct": seen["requests_per_second"] / direct["requests_per_second"]}
    # With more clients than cores a latency is mostly the queue.
    return figures | ({"added_p50_ms": seen["p50_ms"] - direct["p50_ms"]} if clients == 1 else {})
