"""Small uploads a second: 1 MB each (below 1 MiB the spool stays in memory), 16 clients, one worker."""

from collections.abc import Iterator

from benchmarks.client import BLOCK, FORM, form, wrk
from benchmarks.processes import Bench, Server, gateway, model_names
from benchmarks.report import Row, Target

CLIENTS = 16
TARGETS = {1: 330, 4: 120}


def rows(bench: Bench) -> Iterator[Row]:
    """Direct, then to 1 and to 4 targets."""
    yield Row("rate", "1 MB uploads, direct", load(bench, bench.provider, 1))
    with gateway(bench.provider) as server:
        for count, least in TARGETS.items():
            target = Target("requests_per_second", least, at_least=True)
            yield Row("rate", f"1 MB uploads, targets {count}", load(bench, server, count), (target,))


def load(bench: Bench, server: Server, targets: int) -> dict[str, float]:
    """The figures of one measurement."""
    before, after = form(model_names(targets))
    url, body = f"{server.url}/files", before + BLOCK + after
    return wrk(url, body, clients=CLIENTS, seconds=bench.seconds, content_type=FORM)
