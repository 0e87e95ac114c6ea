"""What was measured, beside what design §9 asks for: a table, and JSON with the machine beside it."""

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
from rich.table import Table

RESULTS = Path(__file__).with_name("results")
PACKAGES = ("filemux", "uvicorn", "uvloop", "httptools", "starlette", "aiohttp", "orjson", "asyncpg", "sqlalchemy")

# Every figure that a row can have, and how a person reads it.
FIGURES = {
    "requests_per_second": "{:,.0f}/s",
    "p50_ms": "p50 {:,.2f} ms",
    "p99_ms": "p99 {:,.2f} ms",
    "added_p50_ms": "p50 {:+.2f} ms",
    "translation_ms": "{:.2f} ms",
    "mb_per_cpu_second": "{:.0f} MB/s of one core",
    "seconds": "{:.2f} s",
    "cpu_seconds": "{:.2f} s of CPU",
    "of_direct": "{:.3f} of direct",
    "of_ideal": "{:.3f} of ideal",
    "of_gateway": "{:.0f} times the gateway",
    "cpu_percent": "{:.0f} % CPU",
    "peak_mb": "{:+.0f} MB resident",
    "peak_anonymous_mb": "{:+.0f} MB anonymous",
}


@dataclass(frozen=True)
class Target:
    """A limit on one of a row's figures."""

    figure: str
    limit: float
    at_least: bool = False

    def __str__(self) -> str:
        return ("≥ " if self.at_least else "≤ ") + FIGURES[self.figure].format(self.limit)

    def met(self, figures: Mapping[str, float]) -> bool:
        """Whether the figure is within the limit."""
        found = figures[self.figure]
        return found >= self.limit if self.at_least else found <= self.limit


@dataclass(frozen=True)
class Row:
    """One case of one work."""

    work: str
    case: str
    figures: Mapping[str, float]
    targets: tuple[Target, ...] = ()


def table(rows: list[Row]) -> Table:
    """All rows, their targets and whether they are met."""
    shown = Table("work", "case", "measured", "target", "")
    for index, row in enumerate(rows):
        if index and rows[index - 1].work != row.work:
            shown.add_section()
        measured = "  ".join(FIGURES[name].format(value) for name, value in row.figures.items())
        verdicts = ["[green]ok[/]" if target.met(row.figures) else "[red]miss[/]" for target in row.targets]
        shown.add_row(row.work, row.case, measured, "\n".join(map(str, row.targets)), "\n".join(verdicts))
    return shown


def write(rows: list[Row], parts: Sequence[str] = ()) -> Path:
    """results/DATE-CPU-CORES.json, with what was not the whole run named behind it."""
    now = datetime.now(UTC)
    name = re.sub(r"[^a-z0-9]+", "-", f"{cpu_model()} {os.cpu_count()} cores {' '.join(parts)}".lower()).strip("-")
    content = {
        "measured_at": now.isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "rows": [
            {
                "work": row.work,
                "case": row.case,
                "figures": {figure: round(value, 4) for figure, value in row.figures.items()},
                "targets": [{"target": str(target), "met": target.met(row.figures)} for target in row.targets],
            }
            for row in rows
        ],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y-%m-%d}-{name}.json"
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return path


def machine() -> dict[str, str | int | float]:
    """What the figures depend on, and nothing that says whose machine it is."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "load_average_5_minutes": round(os.getloadavg()[1], 2),
    }


def cpu_model() -> str:
    """Such as `AMD EPYC`; the architecture where /proc does not say."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1] if found else platform.machine()
