"""`filemux teams` and `keys`: what admins do, by the functions that HTTP uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from app.access import keys as access_keys
from app.access import queries as access_queries
from app.access import teams as access_teams
from app.access.audit import COMMAND_LINE, Actor
from app.cli_database import config_option, json_option, with_database
from app.db.session import Database
from app.printing import show_object, show_objects

_ACTOR = Actor(COMMAND_LINE)


@click.group()
def teams() -> None:
    """Teams: who shares files and default targets."""


@teams.command("create")
@click.argument("name")
@click.option("--target", "targets", multiple=True, help="A default target model name; repeatable.")
@config_option
@json_option
def create_team(name: str, targets: tuple[str, ...], config: Path | None, as_json: bool) -> None:
    """Make a team."""
    wanted = access_teams.TeamCreate(name=name, default_target_model_names=list(targets))
    row = with_database(
        config,
        lambda database: access_teams.create_team(database, _ACTOR, wanted.name, wanted.default_target_model_names),
    )
    show_object(access_teams.shown(row), as_json)


@teams.command("list")
@config_option
@json_option
def list_teams(config: Path | None, as_json: bool) -> None:
    """List all teams."""

    async def rows(database: Database) -> list[dict[str, Any]]:
        async with database.read() as reader:
            return [access_teams.shown(row) for row in await access_queries.list_teams(reader)]

    show_objects(with_database(config, rows), as_json)


@teams.command("update")
@click.argument("team")
@click.option("--name", help="A new name.")
@click.option("--target", "targets", multiple=True, help="The new default targets; repeatable.")
@click.option("--no-targets", is_flag=True, help="Take the default targets away.")
@config_option
@json_option
def update_team(
    team: str, name: str | None, targets: tuple[str, ...], no_targets: bool, config: Path | None, as_json: bool
) -> None:
    """Rename a team, or change its default targets."""
    new_targets = list(targets) if targets or no_targets else None
    changes = access_teams.TeamUpdate(name=name, default_target_model_names=new_targets).model_dump(exclude_none=True)
    row = with_database(config, lambda database: access_teams.update_team(database, _ACTOR, team, changes))
    show_object(access_teams.shown(row), as_json)


@click.group()
def keys() -> None:
    """Keys: who may call, as what, and for which model names."""


@keys.command("create")
@click.option("--team", default="default", show_default=True)
@click.option("--role", type=click.Choice(["viewer", "member", "admin"]), default="member", show_default=True)
@click.option("--name", default="", help="What people call it.")
@click.option("--model", "models", multiple=True, help="A model name it may use; repeatable; default: all.")
@click.option("--provider-files", is_flag=True, help="May use raw provider ids.")
@click.option("--expires-at", help="RFC 3339, such as 2027-01-01T00:00:00Z.")
@config_option
@json_option
def create_key(config: Path | None, as_json: bool, provider_files: bool, **options: Any) -> None:
    """Make a key; its secret is shown this once."""
    options["models"] = list(options["models"]) or None
    options["permissions"] = ["provider_files"] if provider_files else []
    wanted = access_keys.KeyCreate.model_validate(options)
    row, secret = with_database(config, lambda database: access_keys.create_key(database, _ACTOR, wanted))
    show_object({**access_keys.shown(row), "key": secret}, as_json)


@keys.command("list")
@click.option("--team", help="Only this team's.")
@config_option
@json_option
def list_keys(team: str | None, config: Path | None, as_json: bool) -> None:
    """List keys; never their secrets."""
    rows = with_database(config, lambda database: access_keys.list_keys(database, team))
    show_objects([access_keys.shown(row) for row in rows], as_json)


@keys.command("revoke")
@click.argument("key_id")
@config_option
def revoke_key(key_id: str, config: Path | None) -> None:
    """Revoke a key; every worker refuses it within a second."""
    with_database(config, lambda database: access_keys.revoke_key(database, _ACTOR, key_id))
    click.echo(f"{key_id} is revoked")


@keys.command("rotate")
@click.argument("key_id")
@config_option
@json_option
def rotate_key(key_id: str, config: Path | None, as_json: bool) -> None:
    """Give a key a new secret, shown this once; the old one stops."""
    row, secret = with_database(config, lambda database: access_keys.rotate_key(database, _ACTOR, key_id))
    show_object({**access_keys.shown(row), "key": secret}, as_json)
