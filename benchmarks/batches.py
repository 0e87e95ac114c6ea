"""How fast lines of a batch are checked and translated, there and back; and whole batches on three providers at once.

The speeds are those of one core, the lines chats of a few turns (batch_lines.MESSAGES).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import orjson

from benchmarks import batch_lines
from benchmarks.batch_lines import MESSAGES
from benchmarks.client import AUTHORIZATION
from benchmarks.memory import growth
from benchmarks.processes import Bench, Server, gateway, sandbox, six_providers
from benchmarks.providers import ENTRIES, at, provider_of
from benchmarks.report import Row, Target

SPEED = Target("mb_per_cpu_second", 20, at_least=True)
MEMORY = Target("peak_mb", 64)
MODEL_NAMES = ("gpt-4o-mini-openai", "claude-sonnet", "gemini-flash")
MAX_SECONDS, LOOK_SECONDS = 600, 0.05


def rows(bench: Bench) -> Iterator[Row]:
    """One core's speed for each format and length of line; then batches from their upload to their output."""
    size_bytes = 4_000_000 if bench.quick else 16_000_000
    for line_bytes in MESSAGES:
        yield from _speeds(line_bytes, size_bytes // line_bytes)
    with sandbox() as simulated:
        entries = {name: six_providers(simulated)[name] for name in MODEL_NAMES}
        for count, line_bytes in ((10_000, 1_000), (5_000 if bench.quick else 50_000, 4_000)):
            content = batch_lines.file_of(MODEL_NAMES, count, line_bytes)
            with gateway(bench.provider, entries=entries) as server:
                case = f"{count:,} lines, {len(content) / 1e6:.0f} MB, 3 providers"
                yield from _batch(server, simulated, case, content, count)


def _speeds(line_bytes: int, count: int) -> Iterator[Row]:
    """One length of lines: checked at the upload, then translated for each provider and back."""
    content = batch_lines.file_of(["m"], count, line_bytes)
    size = f"lines of {line_bytes // 1000} KB"
    taken = asyncio.run(batch_lines.inspection(content))
    yield Row("batches", f"{size}, checked at their upload", _speed(len(content), taken), (SPEED,))
    for name in batch_lines.RESULTS:
        provider = provider_of(name, at("http://nobody", ENTRIES[name][0]))
        taken = asyncio.run(batch_lines.translation(name, provider, content))
        yield Row("batches", f"{size}, requests for {name}", _speed(len(content), taken), (SPEED,))
        given_bytes, taken = asyncio.run(batch_lines.results(name, provider, line_bytes, count))
        yield Row("batches", f"{size}, results of {name}", _speed(given_bytes, taken), (SPEED,))


def _speed(size_bytes: int, cpu_seconds: float) -> dict[str, float]:
    return {"mb_per_cpu_second": size_bytes / 1e6 / cpu_seconds}


def _batch(server: Server, simulated: Server, case: str, content: bytes, lines: int) -> Iterator[Row]:
    """One batch's three steps, and how far the gateway has grown above idle after them."""
    grown: dict[str, float] = {}
    with httpx.Client(base_url=server.url, headers={"authorization": AUTHORIZATION}, timeout=300) as client:
        with growth(server.pid, grown):
            form = {"purpose": "batch", "target_model_names": ",".join(MODEL_NAMES)}
            with _timed(server) as uploading:
                file = _answer(client.post("/files", data=form, files={"file": ("lines.jsonl", content)}))
            with _timed(server) as sending:
                batch = _answer(client.post("/batches", json=_asked(file)))
                batch = _until(client, batch, "in_progress")
            address = simulated.url.removesuffix("/v1")
            httpx.post(f"{address}/_sandbox/clock", json={"advance_seconds": 60}, timeout=300).raise_for_status()
            with _timed(server) as finishing:
                batch = _until(client, batch, "completed")
        _check(client.get(f"/files/{batch['output_file_id']}/content"), lines)
    yield Row("batches", f"{case}: upload", uploading)
    yield Row("batches", f"{case}: validating → in_progress", sending)
    yield Row("batches", f"{case}: ended there → completed", finishing)
    yield Row("batches", f"{case}: memory", grown, (MEMORY,))


def _asked(file: dict) -> dict[str, str]:
    return {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}


@contextmanager
def _timed(server: Server) -> Iterator[dict[str, float]]:
    """The wall time that the block takes, and the gateway's CPU time."""
    figures: dict[str, float] = {}
    cpu_seconds, started = server.cpu_seconds(), time.perf_counter()
    yield figures
    figures["seconds"] = time.perf_counter() - started
    figures["cpu_seconds"] = server.cpu_seconds() - cpu_seconds


def _until(client: httpx.Client, batch: dict, status: str) -> dict:
    """The batch once it has this status; whoever asks does not wait for the worker's next look."""
    deadline = time.monotonic() + MAX_SECONDS
    while batch["status"] != status:
        if batch["status"] in ("failed", "expired", "cancelled") or time.monotonic() > deadline:
            raise SystemExit(f"a batch was to become {status}: {batch}")
        time.sleep(LOOK_SECONDS)
        batch = _answer(client.get(f"/batches/{batch['id']}"))
    return batch


def _answer(response: httpx.Response) -> dict:
    if not response.is_success:
        raise SystemExit(f"{response.request.method} {response.request.url} was answered {response.text}")
    return response.json()


def _check(output: httpx.Response, lines: int) -> None:
    """Every line has its answer, once."""
    found = Counter(orjson.loads(line)["custom_id"] for line in output.content.splitlines())
    if found != Counter(f"request-{number}" for number in range(lines)):
        raise SystemExit(f"the output has {found.total()} lines for {lines} requests")
