"""The `filemux` command: thin calls into the functions that HTTP uses."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import yaml
from pydantic import ValidationError

from app import cli_admin, cli_files
from app import serve as processes
from app.cli_database import config_option, database_url_of, json_option, settings_of, with_database
from app.db import migrations, readonly
from app.db.binaries import EmbeddedPostgresError
from app.errors import GatewayError
from app.printing import show
from app.settings import explain
from app.yaml_file import SettingsError


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
@config_option
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
@config_option
@json_option
def doctor(config: Path | None, as_json: bool) -> None:
    """Check the configuration, the database and each account with a cheap call."""
    from app.doctor import examine  # noqa: PLC0415

    found = settings_of(config)
    with database_url_of(found) as url:
        findings = asyncio.run(examine(found, url))
    show(["what", "ok", "detail"], [[one.what, one.ok, one.detail] for one in findings], as_json)
    sys.exit(0 if all(one.ok for one in findings) else 1)


# --- database ---------------------------------------------------------------------------------------------------


@commands.command()
@config_option
def migrate(config: Path | None) -> None:
    """Bring the database to this version's schema."""
    with database_url_of(settings_of(config)) as url:
        migrations.upgrade(url)
    click.echo(f"the database is at revision {migrations.head()}")


@commands.command()
@click.argument("statement")
@config_option
@json_option
def sql(statement: str, config: Path | None, as_json: bool) -> None:
    """Run one SELECT on the views, as the role that may read them and nothing else."""
    columns, rows = with_database(config, lambda database: readonly.select(database, statement))
    show(columns, rows, as_json)


@commands.command()
@config_option
@json_option
def backlog(config: Path | None, as_json: bool) -> None:
    """Show the replicas that something is still to be done for, and why it was not done yet."""
    statement = "SELECT * FROM replica_backlog ORDER BY due_at"
    columns, rows = with_database(config, lambda database: readonly.select(database, statement))
    show(columns, rows, as_json)


for _group in (cli_admin.teams, cli_admin.keys, cli_files.files, cli_admin.accounts):
    commands.add_command(_group)


if __name__ == "__main__":
    main()
