"""`python -m benchmarks.soak [--minutes 10] [--sources disk|s3|none] …`: exit status 1 if a promise was broken."""

import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import click
import httpx
from rich.console import Console

from app.db import migrations
from app.db.embedded import EmbeddedPostgres
from app.db.session import Rows
from benchmarks.soak import report, trouble
from benchmarks.soak.clients import ANSWER_SECONDS, Client
from benchmarks.soak.fleet import Fleet, running
from benchmarks.soak.ledger import Ledger
from benchmarks.soak.tally import Tally
from benchmarks.soak.trouble import Switchboard
from benchmarks.soak.verdict import Judge

SHOW_SECONDS = 1.0


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    minutes: float
    clients: int
    operations: int
    sources: str
    kill_seconds: float
    end_leases: bool
    seed: int


@click.command()
@click.option("--minutes", default=10.0, help="How long the clients work.")
@click.option("--clients", default=32, help="How many of them.")
@click.option("--operations", default=200_000, help="They stop after so many, at the latest.")
@click.option("--sources", type=click.Choice(["disk", "s3", "none"]), default="disk", help="Where bytes are kept.")
@click.option("--kill-seconds", default=20.0, help="How often a gateway is killed.")
@click.option("--end-leases", is_flag=True, help="Do not wait for what the dead have leased.")
@click.option("--seed", type=int, help="Repeats the choices of an earlier run, as far as timing lets it.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures there too.")
def main(path: Path | None, seed: int | None, **given: float) -> None:
    """Work, break, heal, and see whether anything was lost or left."""
    options = Options(seed=secrets.randbelow(10**6) if seed is None else seed, **given)
    # A pipe has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else 140)
    directory = Path(tempfile.mkdtemp(prefix="filemux-soak-"))
    # The embedded PostgreSQL's own user has to pass through.
    directory.chmod(0o711)
    console.print(f"seed {options.seed}, logs in {directory}")
    with EmbeddedPostgres(directory / "postgres") as postgres, console.status("starting") as status:
        migrations.upgrade(postgres.url)
        soak = Soak(options, status.update)
        asyncio.run(soak.run(directory, postgres))
    numbers, broken = report.figures(soak.ledger, soak.tally, soak.leftovers), report.promises(soak.ledger, soak.due)
    report.show(console, soak.tally, numbers, broken)
    if path:
        report.write(path, asdict(options), soak.tally, numbers, broken)
    if any(broken.values()) or soak.tally.has_bugs:
        console.print(f"[red]something is wrong; the gateways' logs stay in {directory}[/]")
    else:
        shutil.rmtree(directory)
    if any(broken.values()):
        raise SystemExit(1)


class Soak:
    """One run. Afterwards `due` is what was not drained, `leftovers` what the killed could not clear away."""

    def __init__(self, options: Options, show: Callable[[str], None]) -> None:
        self._options, self._show = options, show
        self.ledger, self.tally = Ledger(), Tally()
        self.due: Rows = ()
        self.leftovers: dict[str, int] = {}

    async def run(self, directory: Path, postgres: EmbeddedPostgres) -> None:
        """Work while things break; heal; drain; judge."""
        options = self._options
        async with AsyncExitStack() as stack:
            fleet = await stack.enter_async_context(running(directory, postgres, options.sources))
            switchboard = await stack.enter_async_context(Switchboard(fleet.sandbox.url))
            limits = httpx.Limits(max_connections=None)
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=ANSWER_SECONDS, limits=limits))
            judge = await stack.enter_async_context(Judge(fleet, self.ledger, self.tally, http))
            await self._work(fleet, switchboard, http)
            await switchboard.heal(self.tally)
            await judge.forget_unanswered()
            self.due = await judge.drain(end_leases=options.end_leases, show=self._show)
            await judge.compare(await switchboard.files())
            await judge.ask_for_each(options.sources, self._show)
            self.leftovers = fleet.leftovers()

    async def _work(self, fleet: Fleet, switchboard: Switchboard, http: httpx.AsyncClient) -> None:
        """Clients and troubles at once, until the time or the operations are used up."""
        options, tally = self._options, self.tally
        end = time.monotonic() + options.minutes * 60

        def goes_on() -> bool:
            return time.monotonic() < end and tally.operations.total() < options.operations

        def random(name: str) -> Random:
            return Random(f"{options.seed} {name}")

        async with asyncio.TaskGroup() as group:
            for number in range(options.clients):
                client = Client(fleet, self.ledger, tally, http, random(f"client {number}"))
                group.create_task(client.work(goes_on))
            group.create_task(switchboard.inject(goes_on, tally, random("faults")))
            group.create_task(trouble.kill(fleet, goes_on, tally, options.kill_seconds))
            group.create_task(trouble.restart_postgres(fleet, tally, options.minutes * 60))
            while goes_on():
                self._show(f"{end - time.monotonic():.0f} s left: {tally}")
                await asyncio.sleep(SHOW_SECONDS)
            self._show("waiting for the last answers")


if __name__ == "__main__":
    main()
