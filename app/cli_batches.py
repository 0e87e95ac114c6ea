"""`filemux batches`: by the functions that HTTP uses. A batch is a row: whoever runs a gateway, if only for a command,
takes it on, so it goes on when the command ends."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from app.access.authenticate import Caller
from app.batches import queries
from app.batches.body import BatchCreate
from app.batches.cancel import cancel_batch
from app.batches.create import create_batch
from app.batches.plan import Plan, model_names
from app.batches.read import existing_batch, retrieve_batch, shown, with_parts
from app.cli_database import config_option, json_option
from app.cli_gateway import with_gateway
from app.cli_upload import chunks, send_file
from app.files.batch_input import inspected
from app.files.content import open_content
from app.formats.batch_lines import metadata_of
from app.gateway import Gateway
from app.printing import show_object, show_objects
from app.providers.protocol import ENDED

# How often a row is looked at; its providers are asked when it is due.
LOOK_SECONDS = 0.5
FILES = ("input_file_id", "output_file_id", "error_file_id")

_team = click.option("--team", default="default", show_default=True, help="Whose batches.")


@click.group()
def batches() -> None:
    """Batches: files of requests, run at every provider that their lines name."""


@batches.command("create")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", help="The model name that all lines run on, whatever they name.")
@click.option("--target", "targets", multiple=True, help="A model name to upload for; repeatable; default: the lines'.")
@click.option("--metadata", "pairs", multiple=True, metavar="KEY=VALUE", help="What is to be kept with it; repeatable.")
@click.option("--watch", is_flag=True, help="Stay until it has ended; status 1 unless it is completed.")
@_team
@config_option
@json_option
def create(
    file: Path,
    model: str | None,
    targets: tuple[str, ...],
    pairs: tuple[str, ...],
    *,
    watch: bool,
    team: str,
    config: Path | None,
    as_json: bool,
) -> None:
    """Upload a file of requests, and have it run; status 1 if it failed before it ran."""
    metadata = _metadata(pairs)

    async def created(gateway: Gateway, caller: Caller) -> dict[str, Any]:
        with file.open("rb") as source:
            facts = await inspected(chunks(source))
        names = targets or model_names(Plan(gateway.deployments, caller, facts, targets, model).parts())
        sent = await send_file(gateway, caller, file, "batch", names)
        wanted = {"endpoint": facts["endpoint"], "metadata": metadata or None, "model": model}
        batch = await create_batch(gateway, caller, BatchCreate(input_file_id=sent["id"], **wanted))
        if watch:
            return await _watched(gateway, caller, batch["id"], as_json)
        async for found in _changes(gateway, caller, batch["id"]):
            if found["status"] != "validating" or found["filemux"]["last_error"]:
                break
        return found

    found = with_gateway(config, team, created)
    if watch:
        _finish_watching(found, as_json)
    _show(found, as_json)
    sys.exit(1 if found["status"] == "failed" else 0)


@batches.command("show")
@click.argument("batch_id")
@config_option
@json_option
def show_batch(batch_id: str, config: Path | None, as_json: bool) -> None:
    """Show how far a batch is, of whichever team it is."""
    _show(with_gateway(config, "default", lambda gateway, caller: retrieve_batch(gateway, caller, batch_id)), as_json)


@batches.command("list")
@_team
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="At most this many.")
@config_option
@json_option
def list_batches(team: str, limit: int, config: Path | None, as_json: bool) -> None:
    """List the newest batches."""

    async def page(gateway: Gateway, caller: Caller) -> list[dict[str, Any]]:
        async with gateway.database.read() as reader:
            rows = await queries.list_batches(reader, caller.team_id, after=None, limit=limit)
        return [shown(row) for row in rows]

    found = with_gateway(config, team, page)
    show_objects(found if as_json else [_brief(one) for one in found], as_json)


@batches.command("watch")
@click.argument("batch_id")
@config_option
@json_option
def watch_batch(batch_id: str, config: Path | None, as_json: bool) -> None:
    """Watch a batch until it has ended; status 1 unless it is completed. With --json, a line for each change."""
    found = with_gateway(config, "default", lambda gateway, caller: _watched(gateway, caller, batch_id, as_json))
    _finish_watching(found, as_json)


@batches.command("output")
@click.argument("batch_id")
@click.option("--errors", is_flag=True, help="The lines that failed, instead of those that were answered.")
@click.option("--out", type=click.File("wb"), default="-", help="The file to write; default: stdout.")
@config_option
def output(batch_id: str, *, errors: bool, out: BinaryIO, config: Path | None) -> None:
    """Write a batch's results."""

    async def written(gateway: Gateway, caller: Caller) -> None:
        batch = shown(await existing_batch(gateway, caller, batch_id))
        file_id = batch["error_file_id" if errors else "output_file_id"]
        file = file_id and await gateway.mappings.find(caller.reach, file_id)
        if not file:
            what = "lines that failed" if errors else "output"
            raise click.ClickException(f"there is no file of {what}: the batch is {batch['status']}")
        async with open_content(gateway, file) as content:
            async for chunk in content.chunks:
                await asyncio.to_thread(out.write, chunk)

    with_gateway(config, "default", written)


@batches.command("cancel")
@click.argument("batch_id")
@config_option
@json_option
def cancel(batch_id: str, config: Path | None, as_json: bool) -> None:
    """Have a batch cancelled, of whichever team it is; what has run is kept."""

    async def cancelled(gateway: Gateway, caller: Caller) -> dict[str, Any]:
        return await with_parts(gateway, await cancel_batch(gateway, caller, batch_id))

    _show(with_gateway(config, "default", cancelled), as_json)


def _metadata(pairs: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE, each. Raises BadParameter."""
    try:
        return dict(metadata_of({key: value for key, _, value in (one.partition("=") for one in pairs)}))
    except ValueError as wrong:
        raise click.BadParameter(str(wrong), param_hint="--metadata") from None


# --- watching ---------------------------------------------------------------------------------------------------


async def _changes(gateway: Gateway, caller: Caller, batch_id: str) -> AsyncIterator[dict[str, Any]]:
    """The batch as it is, and each time that it has changed, until it has ended."""
    last = None
    while True:
        found = await with_parts(gateway, await existing_batch(gateway, caller, batch_id))
        if found != last:
            yield found
        if found["status"] in ENDED:
            return
        last = found
        await asyncio.sleep(LOOK_SECONDS)


async def _watched(gateway: Gateway, caller: Caller, batch_id: str, as_json: bool) -> dict[str, Any]:
    """Tell of every change; the batch as it is in the end."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}")
    with Progress(*columns, console=Console(stderr=True), disable=as_json) as progress:
        async for found in _changes(gateway, caller, batch_id):
            if as_json:
                click.echo(json.dumps(found))
            for number, (name, total, completed, status) in enumerate(_bars(found)):
                if number == len(progress.tasks):
                    progress.add_task(name, total=total, status=status)
                progress.update(progress.task_ids[number], completed=completed, status=status)
    return found


def _bars(batch: dict[str, Any]) -> Iterator[tuple[str, int, int, str]]:
    """The batch and each of its parts: what it is called, how many lines it has and are done, its status."""
    counts = batch["request_counts"]
    yield batch["id"], counts["total"], counts["completed"] + counts["failed"], batch["status"]
    for part in batch["filemux"]["parts"]:
        name = f"  {part['model_name']}, {part['provider']}"
        yield name, part["lines"], part["completed"] + part["failed"], part["status"] or part["state"]


def _finish_watching(batch: dict[str, Any], as_json: bool) -> NoReturn:
    if not as_json:
        _show(batch, as_json)
    sys.exit(0 if batch["status"] == "completed" else 1)


# --- printing ---------------------------------------------------------------------------------------------------


def _show(batch: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_object(batch, as_json)
        return
    show_object({**_brief(batch), "last_error": batch["filemux"]["last_error"]}, as_json)
    show_objects(batch["filemux"]["parts"], as_json)
    if batch["errors"]:
        show_objects(batch["errors"]["data"], as_json)


def _brief(batch: dict[str, Any]) -> dict[str, Any]:
    counts = {name: batch["request_counts"][name] for name in ("total", "completed", "failed")}
    return {"id": batch["id"], "status": batch["status"], **counts, **{name: batch[name] for name in FILES}}
