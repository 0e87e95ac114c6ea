"""`filemux suspects`: what an operator decides about files that lost uploads may have left at providers."""

from __future__ import annotations

from pathlib import Path

import click

from app.access.audit import COMMAND_LINE, Actor
from app.cli_database import config_option, json_option, with_database
from app.cli_gateway import with_gateway
from app.db import readonly
from app.files.suspects import settle
from app.printing import show

_ACTOR = Actor(COMMAND_LINE)


@click.group()
def suspects() -> None:
    """Suspects: files at a provider that a lost upload may have left."""


@suspects.command("list")
@config_option
@json_option
def list_suspects(config: Path | None, as_json: bool) -> None:
    """List them with the uploads that may have left them; filemux touches none by itself."""
    show(*_found(config), as_json)


@suspects.command("adopt")
@click.argument("account")
@click.argument("provider_file_id")
@click.option("--file", "file_id", help="The file whose upload it is, where it may be that of several.")
@config_option
def adopt_suspect(account: str, provider_file_id: str, file_id: str | None, config: Path | None) -> None:
    """It is what the upload has made: the file's replica from now on, if its provider says that it is whole."""
    adopted = with_gateway(
        config,
        "default",
        lambda gateway, _: settle.adopt_suspect(gateway, _ACTOR, account, provider_file_id, file_id),
    )
    click.echo(f"{provider_file_id} is the replica of {adopted} at {account}")


@suspects.command("delete")
@click.argument("account")
@click.argument("provider_file_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
def delete_suspect(account: str, provider_file_id: str, yes: bool, config: Path | None) -> None:
    """It is ours and unwanted: deleted at its provider by a running gateway, which retries until it is gone."""
    if not yes:
        columns, rows = _found(config)
        for one in (dict(zip(columns, row, strict=True)) for row in rows):
            if (one["account"], one["provider_file_id"]) == (account, provider_file_id):
                shown = f"{one['filename']!r}, {one['bytes']} bytes, made {one['created_at']}"
                click.confirm(f"Delete {provider_file_id} ({shown}) at {account}?", abort=True)
                break
    with_database(config, lambda database: settle.delete_suspect(database, _ACTOR, account, provider_file_id))
    click.echo(f"{provider_file_id} is being deleted at {account}; `filemux backlog` shows it until it is gone")


@suspects.command("dismiss")
@click.argument("account")
@click.argument("provider_file_id")
@config_option
def dismiss_suspect(account: str, provider_file_id: str, config: Path | None) -> None:
    """It is not ours: it stays where it is, and is listed no more."""
    with_database(config, lambda database: settle.dismiss_suspect(database, _ACTOR, account, provider_file_id))
    click.echo(f"{provider_file_id} stays at {account}")


def _found(config: Path | None) -> tuple[list[str], list[list[object]]]:
    statement = "SELECT * FROM orphan_suspects ORDER BY account, created_at, provider_file_id, file_id"
    return with_database(config, lambda database: readonly.select(database, statement))
