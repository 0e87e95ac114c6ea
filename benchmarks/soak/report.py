"""What a run was like: the tables, and JSON with the machine beside them."""

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app.db.session import Rows
from benchmarks.report import PACKAGES, machine
from benchmarks.soak.ledger import Ledger
from benchmarks.soak.tally import Tally

DETAILS = 20


def promises(ledger: Ledger, undrained: Rows) -> dict[str, list[str]]:
    """What must not be, by the name of its figure; all empty in a good run."""
    return {
        "files lost": ledger.lost,
        "orphans after drain": ledger.orphans,
        "wrong bytes": ledger.wrong_bytes,
        "rows not drained": [str(dict(row)) for row in undrained],
    }


def figures(ledger: Ledger, tally: Tally, leftovers: Mapping[str, int]) -> dict[str, int]:
    """What happened."""
    return {
        "operations": tally.operations.total(),
        "provider faults": tally.faults.total() - tally.faults_not_met,
        "gateways killed": tally.kills,
        "PostgreSQL restarts": tally.restarts,
        "files told to clients": len(ledger.live) + len(ledger.doubted) + len(ledger.deleted),
        "files at the end": len(ledger.live),
        "uploads that nobody answered": len(ledger.unanswered),
        "deletes that nobody answered": len(ledger.doubted),
        **leftovers,
    }


def show(console: Console, tally: Tally, numbers: Mapping[str, int], broken: Mapping[str, list[str]]) -> None:
    """Operations, errors by kind, figures, and the promises with what broke them."""
    console.print(_operations(tally), _errors(tally))
    shown = Table("figure", "", box=None)
    for name, number in numbers.items():
        shown.add_row(name, f"{number:,}")
    for name, sentences in broken.items():
        shown.add_row(name, f"[red]{len(sentences)}[/]" if sentences else "[green]0[/]")
    console.print(shown)
    for name, sentences in broken.items():
        for sentence in sentences[:DETAILS]:
            console.print(f"[red]{name}:[/]", sentence, markup=True, highlight=False)
        if len(sentences) > DETAILS:
            console.print(f"[red]{name}:[/] and {len(sentences) - DETAILS} more")


def _operations(tally: Tally) -> Table:
    shown = Table("operation", "times", "errors", "p50 ms", "p99 ms")
    for name, times in sorted(tally.operations.items()):
        median, last = tally.milliseconds(name)
        shown.add_row(name, f"{times:,}", f"{tally.errors[name].total():,}", f"{median:,.0f}", f"{last:,.0f}")
    return shown


def _errors(tally: Tally) -> Table:
    shown = Table("operation", "error", "times")
    for name, errors in sorted(tally.errors.items()):
        for error, times in errors.most_common():
            shown.add_row(name, error, f"{times:,}")
    return shown


def write(
    path: Path, options: Mapping[str, Any], tally: Tally, numbers: Mapping[str, int], broken: Mapping[str, list[str]]
) -> None:
    """The same as data."""
    operations = {}
    for name, times in sorted(tally.operations.items()):
        median, last = tally.milliseconds(name)
        errors = dict(tally.errors[name].most_common())
        operations[name] = {"times": times, "p50_ms": round(median, 1), "p99_ms": round(last, 1), "errors": errors}
    content = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "options": dict(options),
        "figures": {**numbers, **{name: len(sentences) for name, sentences in broken.items()}},
        "faults": dict(tally.faults.most_common()),
        "operations": operations,
        "broken": {name: sentences for name, sentences in broken.items() if sentences},
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
