"""The `filemux` command: thin calls into the functions that HTTP uses."""

from __future__ import annotations

import logging
import sys
from importlib import import_module

import click
from pydantic import ValidationError

from app import logs
from app.db.binaries import EmbeddedPostgresError
from app.errors import GatewayError
from app.settings import explain
from app.yaml_file import SettingsError

# Each command's module and purpose.
COMMANDS = {
    "serve": ("cli_processes", "Run the gateway."),
    "sandbox": ("cli_processes", "Run the simulated providers alone, or print the configuration that uses them."),
    "demo": ("cli_processes", "Show the whole story in one run, on an embedded database and the sandbox."),
    "doctor": ("cli_processes", "Check the configuration, the database and each account with a cheap call."),
    "migrate": ("cli_processes", "Bring the database to this version's schema."),
    "teams": ("cli_admin", "Teams: who shares files and default targets."),
    "keys": ("cli_admin", "Keys: who may call, as what, and for which model names."),
    "files": ("cli_files", "Files: what a team has uploaded."),
    "batches": ("cli_batches", "Batches: files of requests, run at every provider that their lines name."),
    "accounts": ("cli_accounts", "Accounts: the places where provider files live."),
    "import-litellm": ("cli_import", "Take over the managed files of a LiteLLM proxy: a dry run, unless --apply."),
    "suspects": ("cli_suspects", "Suspects: files at a provider that a lost upload may have left."),
    "backlog": ("cli_sql", "Show what is still to be done for replicas and batches, and why it was not done yet."),
    "sql": ("cli_sql", "Run one SELECT on the views, as the role that may read them and nothing else."),
}


class _Commands(click.Group):
    """Imports a command when it is called: a SELECT does not wait for what an upload needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"app.{COMMANDS[cmd_name][0]}"), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, purpose) for name, (_, purpose) in COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="filemux")
def commands() -> None:
    """Upload a file once, use its id with every provider, delete it everywhere."""
    logs.configure(logging.ERROR)  # what a command meets, `main` says in one line


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
    except GatewayError as failure:
        click.echo(f"filemux: {failure}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
