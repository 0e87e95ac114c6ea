"""One file to 1, 2 and 4 targets that each take 50 MB/s, and to all six providers, beside one direct upload."""

from collections.abc import Iterator

from benchmarks.client import upload
from benchmarks.processes import Bench, gateway, limited, model_names, sandbox, six_providers
from benchmarks.report import Row, Target

LIMIT = 50_000_000
TARGET, TARGET_OF_SIX = Target("of_direct", 1.10), Target("of_direct", 1.15)


def rows(bench: Bench) -> Iterator[Row]:
    """Direct first: everything else is a ratio to it."""
    megabytes = 64 if bench.quick else 256
    what, size_bytes = f"{megabytes} MB at 50 MB/s", megabytes * 1_000_000
    _, direct = upload(limited(bench.provider, LIMIT), size_bytes)
    yield Row("upload", f"{what}, direct", {"seconds": direct})
    with gateway(bench.provider, limits=(LIMIT,) * 4) as server:
        for count in (1, 2, 4):
            _, seconds = upload(server.url, size_bytes, model_names(count))
            figures = {"seconds": seconds, "of_direct": seconds / direct}
            yield Row("upload", f"{what}, targets {count}", figures, (TARGET,))
    yield from _six(bench, what, size_bytes)


def _six(bench: Bench, what: str, size_bytes: int) -> Iterator[Row]:
    """The sandbox stores and hashes what it is sent, so the direct upload goes there too."""
    with sandbox(LIMIT) as simulated:
        entries = six_providers(simulated)
        _, direct = upload(simulated.url.replace("/v1", "/openai/v1"), size_bytes)
        yield Row("upload", f"{what}, direct to the sandbox", {"seconds": direct})
        with gateway(bench.provider, entries=entries) as server:
            _, seconds = upload(server.url, size_bytes, entries)
            figures = {"seconds": seconds, "of_direct": seconds / direct}
            yield Row("upload", f"{what}, all six providers", figures, (TARGET_OF_SIX,))
