"""`python -m benchmarks [WORK …] [--quick]`, or `python -m benchmarks profile chat`."""

import sys

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import batches, chat, memory, profile, providers, rate, report, sse, start, upload
from benchmarks.processes import Bench, fake_provider

WORKS = {
    "chat": chat,
    "providers": providers,
    "sse": sse,
    "upload": upload,
    "memory": memory,
    "rate": rate,
    "batches": batches,
    "start": start,
}
PROFILE = "profile"


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([PROFILE, *WORKS]))
@click.option("--quick", is_flag=True, help="Shorter and smaller, to see that it works.")
def main(names: tuple[str, ...], quick: bool) -> None:
    """Measure what is named, or everything; `profile NAME` shows where one worker's time goes (chat, sse, rate)."""
    with fake_provider() as provider:
        bench = Bench(provider, quick)
        if PROFILE in names:
            for name in profile.LOADS.keys() & names or ("chat",):
                profile.show(bench, name)
        else:
            _measure(bench, names or tuple(WORKS))


def _measure(bench: Bench, names: tuple[str, ...]) -> None:
    # A pipe has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else 140)
    rows: list[report.Row] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(names))
        for name in names:
            progress.update(bar, description=name)
            for row in WORKS[name].rows(bench):
                rows.append(row)
                progress.update(bar, description=f"{name}: measured {row.case}")
            progress.advance(bar)
    console.print(report.table(rows))
    parts = [*(names if len(names) < len(WORKS) else ()), *(["quick"] if bench.quick else ())]
    console.print(f"written to {report.write(rows, parts)}")


if __name__ == "__main__":
    main()
