"""`filemux accounts`: what the configuration and the rows say of accounts."""

from __future__ import annotations

from pathlib import Path

import click

from app import deployments
from app.cli_database import config_option, json_option, with_database
from app.configuration import load
from app.files.accounts import queries
from app.printing import show_objects


@click.group()
def accounts() -> None:
    """Accounts: the places where provider files live."""


@accounts.command("list")
@config_option
@json_option
def list_accounts(config: Path | None, as_json: bool) -> None:
    """List the accounts that the configuration or the rows name, with what is there."""
    found = load(config)
    configured = deployments.account_names(found)
    rows = with_database(config, queries.held_by_account)
    named = {row["account"]: {"replicas": row["replicas"], "batches": row["batches"]} for row in rows}
    nothing = {"replicas": 0, "batches": 0}
    table = [
        {"account": name, "provider": configured.get(name), **named.get(name, nothing)}
        for name in sorted({*configured, *named})
    ]
    show_objects(table, as_json)


@accounts.command("rename")
@click.argument("old")
@click.argument("new")
@config_option
def rename_account(old: str, new: str, config: Path | None) -> None:
    """Move the rows of an account whose name in the configuration has changed."""
    moved = with_database(config, lambda database: queries.rename_account(database, old, new))
    click.echo(f"{moved} replicas moved from {old} to {new}")
