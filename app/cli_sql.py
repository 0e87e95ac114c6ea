"""`filemux sql` and `backlog`: the views, from the command line."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli_database import config_option, json_option, with_database
from app.db import readonly
from app.printing import show


@click.command()
@click.argument("statement")
@config_option
@json_option
def sql(statement: str, config: Path | None, as_json: bool) -> None:
    """Run one SELECT on the views, as the role that may read them and nothing else."""
    columns, rows = with_database(config, lambda database: readonly.select(database, statement))
    show(columns, rows, as_json)


@click.command()
@config_option
@json_option
def backlog(config: Path | None, as_json: bool) -> None:
    """Show the replicas that something is still to be done for, and why it was not done yet."""
    statement = "SELECT * FROM replica_backlog ORDER BY blocked DESC, due_at"
    columns, rows = with_database(config, lambda database: readonly.select(database, statement))
    show(columns, rows, as_json)
