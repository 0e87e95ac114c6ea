"""`filemux files`: a team's files, by the functions that HTTP uses."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from app.access.audit import COMMAND_LINE, Actor
from app.access.authenticate import Caller
from app.cli_database import config_option, json_option
from app.cli_gateway import with_gateway
from app.cli_upload import send_file
from app.db.session import Rows
from app.files import delete, queries, read
from app.files.backfill import sync
from app.files.replicas import queries as replica_queries
from app.gateway import Gateway
from app.printing import show_object, show_objects

# How often a sync is asked how far it is, and how many of its failures are listed.
LOOK_SECONDS = 0.5
SHOWN_FAILURES = 100

_team = click.option("--team", default="default", show_default=True, help="Whose files.")


@click.group()
def files() -> None:
    """Files: what a team has uploaded."""


@files.command("list")
@_team
@click.option("--purpose", help="Only files of this purpose, such as batch.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000), help="At most this many.")
@config_option
@json_option
def list_files(team: str, purpose: str | None, limit: int, config: Path | None, as_json: bool) -> None:
    """List the newest files."""

    async def page(gateway: Gateway, caller: Caller) -> list[dict[str, Any]]:
        async with gateway.database.read() as reader:
            rows = await queries.list_files(
                reader, caller.team_id, after=None, limit=limit, descending=True, purpose=purpose
            )
        return [_flat(read.shown(row)) for row in rows]

    show_objects(with_gateway(config, team, page), as_json)


@files.command("show")
@click.argument("file_id")
@config_option
@json_option
def show_file(file_id: str, config: Path | None, as_json: bool) -> None:
    """Show a file's replicas, of whichever team it is."""

    async def replicas(gateway: Gateway, caller: Caller) -> list[dict[str, Any]]:
        row = await read.existing_file(gateway, caller, file_id)
        async with gateway.database.read() as reader:
            return [read.target(replica) for replica in await replica_queries.file_replicas(reader, [row["id"]])]

    show_objects(with_gateway(config, "default", replicas), as_json)


@files.command("upload")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--target", "targets", multiple=True, help="A model name; repeatable; default: the configured ones.")
@click.option("--purpose", default="user_data", show_default=True, help="What the file is for.")
@_team
@config_option
@json_option
def upload_file(
    file: Path, targets: tuple[str, ...], purpose: str, team: str, config: Path | None, as_json: bool
) -> None:
    """Upload a file to every target."""

    async def uploaded(gateway: Gateway, caller: Caller) -> dict[str, Any]:
        return _flat(read.shown(await send_file(gateway, caller, file, purpose, targets)))

    show_object(with_gateway(config, team, uploaded), as_json)


@files.command("delete")
@click.argument("file_id")
@config_option
def delete_file(file_id: str, config: Path | None) -> None:
    """Delete a file everywhere, of whichever team it is; a running gateway retries what a provider did not confirm."""
    with_gateway(config, "default", lambda gateway, caller: delete.delete_file(gateway, caller, file_id))
    click.echo(f"{file_id} is deleted")


@files.command("sync")
@click.option("--model", required=True, help="The model name whose accounts are to have the files.")
@click.option("--team", help="Only this team's files; default: every team's.")
@config_option
@json_option
def sync_files(model: str, team: str | None, config: Path | None, as_json: bool) -> None:
    """Have replicas made of all files for a model name, and wait for them; status 1 if some could not be made."""
    wanted = sync.Sync(model=model, team=team)

    async def synced(gateway: Gateway, _: Caller) -> tuple[dict[str, Any], Rows]:
        await sync.order(gateway, Actor(COMMAND_LINE), wanted)
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task(model, total=None)
            while (figures := await sync.progress(gateway, wanted))["waiting"]:
                bar.update(task, total=figures["files"], completed=figures["files"] - figures["waiting"])
                await asyncio.sleep(LOOK_SECONDS)
        return figures, await sync.failures(gateway, wanted, SHOWN_FAILURES)

    figures, failures = with_gateway(config, "default", synced)
    show_object(figures, as_json)
    if failures and not as_json:
        show_objects([dict(row) for row in failures], as_json=False)
    sys.exit(1 if figures["failed"] else 0)


def _flat(shown: dict[str, Any]) -> dict[str, Any]:
    facts = shown.pop("filemux")
    del shown["status"], shown["status_details"]
    return {**shown, **facts}
