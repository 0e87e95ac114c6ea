"""`filemux import-litellm`: what another gateway's database and configuration say, taken over."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from app import deployments
from app.cli_database import config_option, json_option, with_database
from app.configuration import load
from app.files.imported.litellm import model_id
from app.files.imported.take_over import Found, Import, Place
from app.printing import show_objects
from app.settings import PARAMS_SPELLINGS, Environment, Settings
from app.yaml_file import YamlFile


@click.command("import-litellm")
@click.option("--from", "url", required=True, metavar="DATABASE_URL", help="LiteLLM's database, which is only read.")
@click.option(
    "--team", default="default", show_default=True, help="Whose files they are, where LiteLLM names no other."
)
@click.option("--map", "mapped", multiple=True, metavar="MODEL_ID=MODEL_NAME", help="Repeatable; see docs/migrate.md.")
@click.option("--apply/--dry-run", help="Write; without it nothing is changed.")
@config_option
@json_option
def import_litellm(
    url: str, team: str, mapped: tuple[str, ...], *, apply: bool, config: Path | None, as_json: bool
) -> None:
    """Take over the managed files of a LiteLLM proxy: a dry run, unless --apply."""
    found = load(config)
    places = _places(config, found)
    named = dict(_mapping(one, places) for one in mapped)
    run = with_database(config, lambda database: Import(database, {**places, **named}, team, apply=apply).run(url))
    if as_json:
        click.echo(json.dumps(asdict(run), indent=2))
    else:
        _tell(run, apply=apply)


def _places(config: Path | None, found: Settings) -> dict[str, Place]:
    """LiteLLM's model id → the place; LiteLLM makes the ids of its configuration. Raises SettingsError."""
    path = config or Environment().filemux_config
    if path is None:
        raise click.UsageError("it needs LiteLLM's configuration: --config FILE or FILEMUX_CONFIG")
    document = YamlFile.read(path)
    places: dict[str, Place] = {}
    items = document.items("model_list")
    for index, (item, (_, account, provider)) in enumerate(zip(items, deployments.listed(found), strict=False)):
        params = next(item[one] for one in PARAMS_SPELLINGS if one in item)
        given = (item.get("model_info") or {}).get("id")
        made = model_id(item["model_name"], params, document.place(("model_list", index)))
        places[made if given is None else str(given)] = Place(item["model_name"], account, provider)
    return places


def _mapping(text: str, places: dict[str, Place]) -> tuple[str, Place | None]:
    """`--map ID=NAME`; without a name, what has the id is left where it is."""
    one, equals, name = text.partition("=")
    if not (one and equals):
        raise click.BadParameter(f"{text!r} is not MODEL_ID=MODEL_NAME", param_hint="--map")
    if not name:
        return one, None
    found = {place.account: place for place in places.values() if place.model_name == name}
    if len(found) != 1:
        reason = f"is at {len(found)} accounts: {', '.join(found)}" if found else "does not exist"
        raise click.BadParameter(f"the model name {name!r} {reason}", param_hint="--map")
    return one, next(iter(found.values()))


def _tell(run: Found, *, apply: bool) -> None:
    if run.left:
        show_objects(run.left, as_json=False)
    if run.unknown_model_ids:
        click.echo(
            "Model ids of no deployment; --map ID=MODEL_NAME settles one, --map ID= leaves its copies where they are:"
        )
        show_objects([{"model_id": one, "files": files} for one, files in run.unknown_model_ids.items()], as_json=False)
    done = "imported" if apply else "would be imported (--apply does it)"
    click.echo(f"{run.new} files {done}, {run.known} were before, {len(run.left)} stay behind")
    if run.batches:
        click.echo(f"{run.batches} batches are not imported: let them end in LiteLLM")
