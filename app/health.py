"""GET /healthz, /readyz and /metrics: for load balancers and Prometheus; no key needed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.batches import queries as batch_queries
from app.db import migrations
from app.db.session import Row
from app.errors import Overloaded
from app.files.replicas import queries as replica_queries
from app.gateway import Gateway, gateway_of

# Counting all replicas reads the whole table; a scrape more often than this gets the last count again.
COUNT_SECONDS = 15.0


async def alive_endpoint(request: Request) -> Response:
    """GET /healthz: the process answers."""
    return JSONResponse({"status": "ok"})


async def ready_endpoint(request: Request) -> Response:
    """GET /readyz: the database is reachable and migrated. Raises Overloaded otherwise."""
    await check_database(gateway_of(request))
    return JSONResponse({"status": "ready"})


async def check_database(gateway: Gateway) -> None:
    """Raise Overloaded unless the database is reachable and at this code's revision or a newer one.

    Migrations first expand, so the replicas of a rolling upgrade go on serving while the new ones come.
    """
    found = await migrations.current(gateway.database)
    if found is None or found in migrations.older():
        reason = f"the database is at revision {found}, this version needs {migrations.head()}: run `filemux migrate`"
        raise Overloaded(reason, retry_after_seconds=5)


class Metrics:
    """GET /metrics: the counters of every worker of this gateway, and the replicas and batches as the database has
    them."""

    def __init__(self) -> None:
        self._counted_at = float("-inf")
        self._rows: Iterable[Row] = ()
        self._parts: Iterable[Row] = ()

    async def endpoint(self, request: Request) -> Response:
        """GET /metrics. Without a database the counters still come."""
        if time.monotonic() - self._counted_at > COUNT_SECONDS:
            try:
                async with gateway_of(request).database.read() as reader:
                    self._rows = await replica_queries.replica_counts(reader)
                    self._parts = await batch_queries.part_counts(reader)
                self._counted_at = time.monotonic()
            except Overloaded:
                self._rows = self._parts = ()
        registry = CollectorRegistry()
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry.register(REGISTRY)
        registry.register(_Counted(self._rows, self._parts))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Counted:
    def __init__(self, rows: Iterable[Row], parts: Iterable[Row]) -> None:
        self._rows, self._parts = rows, parts

    def collect(self) -> Iterator[Metric]:
        """Gauges of what the rows tell."""
        replicas = GaugeMetricFamily(
            "filemux_replicas", "Replicas, by provider and state", labels=["provider", "state"]
        )
        for row in self._rows:
            replicas.add_metric([row["provider"], row["state"]], row["replicas"])
        yield replicas
        waiting, blocked = (sum(row[count] for row in self._rows) for count in ("waiting", "blocked"))
        yield GaugeMetricFamily("filemux_backlog", "Replicas that something is still to be done for", value=waiting)
        yield GaugeMetricFamily("filemux_blocked", "Those of them whose account is not configured", value=blocked)
        parts = GaugeMetricFamily(
            "filemux_batch_parts", "Batches at providers that are not done with, by state", labels=["provider", "state"]
        )
        for row in self._parts:
            parts.add_metric([row["provider"], row["state"]], row["parts"])
        yield parts
