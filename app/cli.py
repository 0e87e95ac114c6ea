"""The `filemux` command: thin calls into the functions that HTTP uses."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from app import serve as processes
from app.access import keys as access_keys
from app.access import queries as access_queries
from app.access import teams as access_teams
from app.access.audit import COMMAND_LINE, Actor
from app.db import migrations, readonly
from app.db.binaries import EmbeddedPostgresError
from app.db.embedded import attach_or_start
from app.db.session import Database
from app.errors import GatewayError
from app.files import queries as file_queries
from app.settings import Settings, SettingsError, explain

Result = TypeVar("Result")

_ACTOR = Actor(COMMAND_LINE)
_config = click.option("--config", type=click.Path(path_type=Path), help="The YAML file; default: FILEMUX_CONFIG.")
_json = click.option("--json", "as_json", is_flag=True, help="JSON for scripts instead of a table.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="filemux")
def commands() -> None:
    """Upload a file once, use its id with every provider, delete it everywhere."""


def main() -> None:
    """Run the command; what went wrong is one line on stderr and exit status 1 (2 for a wrong setting)."""
    try:
        commands(standalone_mode=False)
    except click.ClickException as failure:
        failure.show()
        sys.exit(failure.exit_code)
    except click.Abort:
        sys.exit(130)
    except (SettingsError, EmbeddedPostgresError) as failure:
        click.echo(f"filemux: {failure}", err=True)
        sys.exit(2)
    except ValidationError as failure:
        first = failure.errors()[0]
        click.echo(f"filemux: {'.'.join(map(str, first['loc']))}: {explain(first)}", err=True)
        sys.exit(2)
    except (GatewayError, readonly.StatementRefused) as failure:
        click.echo(f"filemux: {failure}", err=True)
        sys.exit(1)


# --- processes --------------------------------------------------------------------------------------------------


@commands.command()
@_config
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=4000, show_default=True, help="0 takes a free one.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 256))
@click.option("--sandbox", is_flag=True, help="Start the simulated providers and serve their model list.")
def serve(config: Path | None, host: str, port: int, workers: int, sandbox: bool) -> None:
    """Run the gateway."""
    processes.serve(processes.ServeOptions(config, host, port, workers, sandbox))


@commands.command()
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


@commands.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def demo(file: Path | None) -> None:
    """Show the whole story in one run, on an embedded database and the sandbox."""
    from app.demo import run  # noqa: PLC0415  needs the openai package

    sys.exit(0 if run(file) else 1)


@commands.command()
@_config
@_json
def doctor(config: Path | None, as_json: bool) -> None:
    """Check the configuration, the database and each account with a cheap call."""
    from app.doctor import examine  # noqa: PLC0415

    found = _settings(config)
    with _database_url(found) as url:
        findings = asyncio.run(examine(found, url))
    _show(["what", "ok", "detail"], [[one.what, one.ok, one.detail] for one in findings], as_json)
    sys.exit(0 if all(one.ok for one in findings) else 1)


# --- database ---------------------------------------------------------------------------------------------------


@commands.command()
@_config
def migrate(config: Path | None) -> None:
    """Bring the database to this version's schema."""
    with _database_url(_settings(config)) as url:
        migrations.upgrade(url)
    click.echo(f"the database is at revision {migrations.head()}")


@commands.command()
@click.argument("statement")
@_config
@_json
def sql(statement: str, config: Path | None, as_json: bool) -> None:
    """Run one SELECT on the views, as the role that may read them and nothing else."""
    columns, rows = _with_database(config, lambda database: readonly.select(database, statement))
    _show(columns, rows, as_json)


@commands.command()
@_config
@_json
def backlog(config: Path | None, as_json: bool) -> None:
    """Show the replicas that something is still to be done for, and why it was not done yet."""
    statement = "SELECT * FROM replica_backlog ORDER BY due_at"
    columns, rows = _with_database(config, lambda database: readonly.select(database, statement))
    _show(columns, rows, as_json)


# --- access -----------------------------------------------------------------------------------------------------


@commands.group()
def teams() -> None:
    """Teams: who shares files and default targets."""


@teams.command("create")
@click.argument("name")
@click.option("--target", "targets", multiple=True, help="A default target model name; repeatable.")
@_config
@_json
def create_team(name: str, targets: tuple[str, ...], config: Path | None, as_json: bool) -> None:
    """Make a team."""
    wanted = access_teams.TeamCreate(name=name, default_target_model_names=list(targets))
    row = _with_database(
        config,
        lambda database: access_teams.create_team(database, _ACTOR, wanted.name, wanted.default_target_model_names),
    )
    _show_objects([access_teams.shown(row)], as_json)


@teams.command("list")
@_config
@_json
def list_teams(config: Path | None, as_json: bool) -> None:
    """List all teams."""

    async def rows(database: Database) -> list[dict[str, Any]]:
        async with database.read() as reader:
            return [access_teams.shown(row) for row in await access_queries.list_teams(reader)]

    _show_objects(_with_database(config, rows), as_json)


@teams.command("update")
@click.argument("team")
@click.option("--name", help="A new name.")
@click.option("--target", "targets", multiple=True, help="The new default targets; repeatable.")
@click.option("--no-targets", is_flag=True, help="Take the default targets away.")
@_config
@_json
def update_team(
    team: str, name: str | None, targets: tuple[str, ...], no_targets: bool, config: Path | None, as_json: bool
) -> None:
    """Rename a team, or change its default targets."""
    new_targets = list(targets) if targets or no_targets else None
    changes = access_teams.TeamUpdate(name=name, default_target_model_names=new_targets).model_dump(exclude_none=True)
    row = _with_database(config, lambda database: access_teams.update_team(database, _ACTOR, team, changes))
    _show_objects([access_teams.shown(row)], as_json)


@commands.group()
def keys() -> None:
    """Keys: who may call, as what, and for which model names."""


@keys.command("create")
@click.option("--team", default="default", show_default=True)
@click.option("--role", type=click.Choice(["viewer", "member", "admin"]), default="member", show_default=True)
@click.option("--name", default="", help="What people call it.")
@click.option("--model", "models", multiple=True, help="A model name it may use; repeatable; default: all.")
@click.option("--provider-files", is_flag=True, help="May use raw provider ids.")
@click.option("--expires-at", help="RFC 3339, such as 2027-01-01T00:00:00Z.")
@_config
@_json
def create_key(config: Path | None, as_json: bool, provider_files: bool, **options: Any) -> None:
    """Make a key; its secret is shown this once."""
    options["models"] = list(options["models"]) or None
    options["permissions"] = ["provider_files"] if provider_files else []
    wanted = access_keys.KeyCreate.model_validate(options)
    row, secret = _with_database(config, lambda database: access_keys.create_key(database, _ACTOR, wanted))
    _show_objects([{**access_keys.shown(row), "key": secret}], as_json)


@keys.command("list")
@click.option("--team", help="Only this team's.")
@_config
@_json
def list_keys(team: str | None, config: Path | None, as_json: bool) -> None:
    """List keys; never their secrets."""
    rows = _with_database(config, lambda database: access_keys.list_keys(database, team))
    _show_objects([access_keys.shown(row) for row in rows], as_json)


@keys.command("revoke")
@click.argument("key_id")
@_config
def revoke_key(key_id: str, config: Path | None) -> None:
    """Revoke a key; every worker refuses it within a second."""
    _with_database(config, lambda database: access_keys.revoke_key(database, _ACTOR, key_id))
    click.echo(f"{key_id} is revoked")


@keys.command("rotate")
@click.argument("key_id")
@_config
@_json
def rotate_key(key_id: str, config: Path | None, as_json: bool) -> None:
    """Give a key a new secret, shown this once; the old one stops."""
    row, secret = _with_database(config, lambda database: access_keys.rotate_key(database, _ACTOR, key_id))
    _show_objects([{**access_keys.shown(row), "key": secret}], as_json)


# --- accounts ---------------------------------------------------------------------------------------------------


@commands.group()
def accounts() -> None:
    """Accounts: the places where provider files live."""


@accounts.command("list")
@_config
@_json
def list_accounts(config: Path | None, as_json: bool) -> None:
    """List the accounts that the configuration or the rows name, with their replicas."""
    found = _settings(config)
    from app import deployments  # noqa: PLC0415  after the settings were read

    configured = deployments.account_names(found)
    rows = _with_database(config, file_queries.replicas_by_account)
    named = {row["account"]: row["replicas"] for row in rows}
    table = [
        {"account": name, "provider": configured.get(name), "replicas": named.get(name, 0)}
        for name in sorted({*configured, *named})
    ]
    _show_objects(table, as_json)


@accounts.command("rename")
@click.argument("old")
@click.argument("new")
@_config
def rename_account(old: str, new: str, config: Path | None) -> None:
    """Move the rows of an account whose name in the configuration has changed."""
    moved = _with_database(config, lambda database: file_queries.rename_account(database, old, new))
    click.echo(f"{moved} replicas moved from {old} to {new}")


# --- how commands work ------------------------------------------------------------------------------------------


def _settings(config: Path | None) -> Settings:
    return processes.load(config)


def _database_url(found: Settings) -> AbstractContextManager[str]:
    """The configured database, or the embedded one: the running gateway's, or one for just this command."""
    return nullcontext(found.database_url) if found.database_url else attach_or_start(found.data_dir)


def _with_database(config: Path | None, work: Callable[[Database], Awaitable[Result]]) -> Result:
    async def run(url: str) -> Result:
        database = Database(url)
        try:
            return await work(database)
        finally:
            await database.close()

    found = _settings(config)
    with _database_url(found) as url:
        if not found.database_url:
            migrations.upgrade(url)
        return asyncio.run(run(url))


def _show_objects(objects: Sequence[dict[str, Any]], as_json: bool) -> None:
    columns = [name for name in (objects[0] if objects else {}) if name != "object"]
    _show(columns, [[one[name] for name in columns] for one in objects], as_json)


def _show(columns: Sequence[str], rows: Iterable[Sequence[Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=str, indent=2))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console = Console()
    # A pipe has no width: whoever reads it wants whole cells.
    console.print(table, soft_wrap=not console.is_terminal, crop=console.is_terminal)


if __name__ == "__main__":
    main()
