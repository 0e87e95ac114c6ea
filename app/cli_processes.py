"""`filemux serve`, `sandbox`, `demo`, `doctor` and `migrate`: what runs, shows, checks and prepares the whole."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import yaml

from app import serve as processes
from app.cli_database import config_option, database_url_of, json_option
from app.configuration import load
from app.db import migrations
from app.doctor import examine
from app.printing import show


@click.command()
@config_option
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=4000, show_default=True, help="0 takes a free one.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 256))
@click.option("--sandbox", is_flag=True, help="Start the simulated providers and serve their model list.")
def serve(config: Path | None, host: str, port: int, workers: int, sandbox: bool) -> None:
    """Run the gateway."""
    processes.serve(processes.ServeOptions(config, host, port, workers, sandbox))


@click.command()
@click.option("--port", default=processes.SANDBOX_PORT, show_default=True, help="0 takes a free one.")
@click.option("--print-config", is_flag=True, help="Print the configuration that uses the sandbox, and end.")
def sandbox(port: int, print_config: bool) -> None:
    """Run the simulated providers alone, or print the configuration that uses them."""
    from app.sandbox.config import sandbox_configuration  # noqa: PLC0415  not part of a real gateway
    from app.sandbox.main import run  # noqa: PLC0415

    if print_config:
        click.echo(yaml.safe_dump(sandbox_configuration(f"http://127.0.0.1:{port}"), sort_keys=False), nl=False)
    else:
        run("127.0.0.1", port)


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def demo(file: Path | None) -> None:
    """Show the whole story in one run, on an embedded database and the sandbox."""
    from app.demo import run  # noqa: PLC0415  needs the openai package

    sys.exit(0 if run(file) else 1)


@click.command()
@config_option
@json_option
def doctor(config: Path | None, as_json: bool) -> None:
    """Check the configuration, the database and each account with a cheap call."""
    found = load(config)
    with database_url_of(found) as url:
        findings = asyncio.run(examine(found, url))
    show(["what", "ok", "detail"], [[one.what, one.ok, one.detail] for one in findings], as_json)
    sys.exit(0 if all(one.ok for one in findings) else 1)


@click.command()
@config_option
def migrate(config: Path | None) -> None:
    """Bring the database to this version's schema."""
    with database_url_of(load(config)) as url:
        migrations.upgrade(url)
    click.echo(f"the database is at revision {migrations.head()}")
