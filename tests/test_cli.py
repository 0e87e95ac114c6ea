"""The `filemux` command as a user runs it: real processes, tables for people, JSON for scripts."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import click
import httpx
import pytest
import yaml
from sqlalchemy import text

from app.cli import COMMANDS, commands
from app.db import migrations
from tests.conftest import MASTER_KEY, configuration
from tests.support.processes import Gateway, SandboxProcess, clean_environment, run_cli
from tests.support.sandbox import eventually
from tests.support.uploads import upload

ROOT = Path(__file__).parents[1]


@pytest.fixture
def filemux(database_url, tmp_path):
    """`filemux ARGUMENTS` on the tests' database; its stdout, or the parsed JSON with --json."""

    def run(*arguments, status=0, **environment):
        environment = {"DATABASE_URL": database_url, "FILEMUX_DATA_DIR": tmp_path, **environment}
        done = run_cli(*arguments, **environment)
        assert done.returncode == status, done.stderr
        if status:
            assert "Traceback" not in done.stderr
            return done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    return run


@pytest.fixture
def config(sandbox_process, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(configuration(sandbox_process.url)))
    return path


def new_name():
    return f"team-{uuid.uuid4().hex[:12]}"


def all_commands(group=commands, *names):
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        yield (*names, name), command
        if isinstance(command, click.Group):
            yield from all_commands(command, *names, name)


# --- help -------------------------------------------------------------------------------------------------------


BUILT = dict(all_commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_says_of_a_command_what_it_says_itself(name):
    assert COMMANDS[name][1] == BUILT[name,].help


@pytest.mark.parametrize("names", BUILT, ids="-".join)
def test_every_command_and_option_says_what_it_is_for(names):
    command = BUILT[names]
    assert command.help
    assert command.help.endswith(".")
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in {"host", "workers", "team", "role"}:
            assert option.help, f"{' '.join(names)} {option.opts[0]}"


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("serve", "--help"), ("keys", "create", "-h")])
def test_help_is_shown(filemux, arguments):
    assert "Usage: " in filemux(*arguments)


def test_the_version_is_shown(filemux):
    assert "0.1.0" in filemux("--version")


@pytest.mark.parametrize("arguments", [("nonsense",), ("serve", "--port", "x"), ("keys", "create", "--role", "owner")])
def test_wrong_usage_has_status_2(filemux, arguments):
    assert "Error: " in filemux(*arguments, status=2)


@pytest.mark.parametrize("module", ["app.cli", "app.cli_sql", "app.cli_admin"])
def test_a_command_loads_only_what_it_needs(module):
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert module in loaded
    assert {"aiohttp", "botocore", "google.auth", "alembic"}.isdisjoint(loaded)


# --- teams and keys ---------------------------------------------------------------------------------------------


def test_teams_are_made_listed_and_updated(filemux):
    name, new = new_name(), new_name()
    made = filemux("teams", "create", name, "--target", "mini", "--target", "azure", "--json")
    assert (made["name"], made["default_target_model_names"]) == (name, ["mini", "azure"])
    assert made in filemux("teams", "list", "--json")
    renamed = filemux("teams", "update", name, "--name", new, "--json")
    assert renamed == {**made, "name": new}
    emptied = filemux("teams", "update", new, "--no-targets", "--json")
    assert emptied == {**renamed, "default_target_model_names": []}


def test_a_key_made_at_the_command_line_works_until_it_is_revoked(filemux, gateway):
    name = new_name()
    filemux("teams", "create", name)
    key = filemux("keys", "create", "--team", name, "--role", "viewer", "--model", "mini", "--name", "ci", "--json")
    assert (key["team"], key["role"], key["models"], key["name"]) == (name, "viewer", ["mini"], "ci")

    def status(secret):
        headers = {"authorization": f"Bearer {secret}"}
        return httpx.get(f"{gateway.url}/v1/models", headers=headers).status_code

    assert status(key["key"]) == 200
    (listed,) = filemux("keys", "list", "--team", name, "--json")
    assert listed == {field: value for field, value in key.items() if field != "key"}
    rotated = filemux("keys", "rotate", key["id"], "--json")
    assert (status(key["key"]), status(rotated["key"])) == (401, 200)
    assert filemux("keys", "revoke", key["id"]) == f"{key['id']} is revoked\n"
    assert status(rotated["key"]) == 401


def test_a_table_on_a_pipe_holds_whole_cells(filemux):
    name = new_name()
    filemux("teams", "create", name)
    key = filemux("keys", "create", "--team", name, "--provider-files", "--json")
    table = filemux("keys", "list", "--team", name)
    assert all(cell in table for cell in (key["id"], name, key["hint"], "provider_files", "revoked_at"))


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (("teams", "create", "default"), 1, "there is already a team named 'default'"),
        (("teams", "create", " "), 2, "name"),
        (("teams", "update", "no-such", "--name", "x"), 1, "there is no team 'no-such'"),
        (("keys", "create", "--team", "no-such"), 1, "there is no team 'no-such'"),
        (("keys", "create", "--expires-at", "tomorrow"), 2, "expires_at"),
        (("keys", "create", "--expires-at", "2001-01-01T00:00:00Z"), 1, "expires_at is in the past"),
        (("keys", "revoke", "no-such"), 1, "there is no key 'no-such'"),
        (("keys", "rotate", "no-such"), 1, "there is no key 'no-such'"),
    ],
)
def test_what_goes_wrong_is_one_line(filemux, arguments, status, reason):
    said = filemux(*arguments, status=status)
    assert said.startswith("filemux: ")
    assert reason in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("url", ["mysql://h/d", "nonsense", "postgresql://nobody@127.0.0.1:1/d"])
def test_a_database_that_is_none_is_one_line(filemux, url):
    said = filemux("teams", "list", DATABASE_URL=url, status=1 if url.startswith("postgresql") else 2)
    assert said.startswith("filemux: ")
    assert said.count("\n") == 1


# --- accounts and the backlog -----------------------------------------------------------------------------------


def test_accounts_are_listed_and_a_renamed_one_keeps_its_rows(filemux, config, clients, member):
    # The team's own file at the shared account: the rename is taken back below.
    file = upload(member, "other")

    def replicas():
        found = filemux("accounts", "list", "--config", config, "--json")
        return {row["account"]: (row["provider"], row["replicas"]) for row in found}

    before = replicas()
    assert before["openai-second"] == ("openai", before["openai-second"][1])
    assert before["azure-v1"][0] == "azure"
    moved = before["openai-second"][1]
    assert moved >= 1
    renamed = f"renamed-{uuid.uuid4().hex[:8]}"
    assert f"{moved} replicas moved" in filemux("accounts", "rename", "openai-second", renamed)
    try:
        assert replicas()[renamed] == (None, moved)
        assert replicas()["openai-second"] == ("openai", 0)
        statement = f"SELECT account FROM file_mappings WHERE file_id = '{file.id}'"
        assert filemux("sql", statement, "--json") == [{"account": renamed}]
    finally:
        filemux("accounts", "rename", renamed, "openai-second")
    assert member.files.delete(file.id).deleted
    assert clients.admin.models.list()


async def test_a_file_may_be_wanted_under_both_names_of_a_renamed_account(filemux, member, database):
    file = upload(member, "mini")
    old, new = (f"renamed-{uuid.uuid4().hex[:8]}" for _ in range(2))
    async with database.write() as writer:
        for account in (old, new):
            statement = "INSERT INTO file_targets (file_id, model_name, account) VALUES (:id, 'mini', :account)"
            await writer.execute(text(statement), {"id": file.id, "account": account})
    assert "0 replicas moved" in filemux("accounts", "rename", old, new)
    statement = f"SELECT account FROM file_targets WHERE file_id = '{file.id}'"
    async with database.read() as reader:
        assert {row["account"] for row in await reader.all(text(statement))} == {"openai-first", new}


def test_the_backlog_says_what_was_not_done_and_why(filemux, member, sandbox):
    file = upload(member, "mini")
    sandbox.fault("openai", "delete_file", status=503, times=-1)
    member.files.delete(file.id)

    def told():
        (row,) = [row for row in filemux("backlog", "--json") if row["file_id"] == file.id]
        assert (row["state"], row["provider"], row["account"]) == ("deleting", "openai", "openai-first")
        return row["attempts"] >= 1 and row["last_error"]

    assert eventually(told)
    assert file.id in filemux("backlog")


async def test_the_backlog_tells_what_is_blocked_and_why(filemux, member, sandbox, database):
    """A deleted file lies at an account that was taken out of the configuration, and comes back."""
    file = upload(member, "mini")

    async def moves(account):
        async with database.write() as writer:
            statement = text("UPDATE replicas SET account = :account WHERE file_id = :id")
            await writer.execute(statement, {"account": account, "id": file.id})

    await moves("gone")
    assert member.files.delete(file.id).deleted
    rows = filemux("backlog", "--json")
    assert sorted(rows, key=lambda row: not row["blocked"]) == rows
    [row] = [row for row in rows if row["file_id"] == file.id]
    reason = "blocked: the account gone is not in the configuration"
    assert (row["blocked"], row["due_at"], row["last_error"]) == (True, None, reason)
    await moves("openai-first")
    assert eventually(lambda: not sandbox.files)


# --- migrate ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package as pip installs it, without its dependencies, which are here already."""
    built, installed = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("installed")
    for command in (
        ["build", "--wheel", "--no-isolation", "--outdir", built, ROOT],
        [
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--find-links",
            built,
            "--target",
            installed,
            "filemux",
        ],
    ):
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return installed


def test_an_installed_wheel_carries_the_migrations(wheel, empty_database_url, tmp_path):
    def run(*command):
        environment = clean_environment(
            PYTHONPATH=wheel, DATABASE_URL=empty_database_url, FILEMUX_DATA_DIR=tmp_path, PYTHONSAFEPATH=1
        )
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("-c", "import app.db.migrations as found; print(found._config().get_main_option('script_location'))")
    assert Path(where.strip()) == wheel / "app" / "_migrations"
    assert run("-m", "app.cli", "migrate") == f"the database is at revision {migrations.head()}\n"
    assert json.loads(run("-m", "app.cli", "sql", "SELECT * FROM file_mappings", "--json")) == []
    assert (wheel / "bin" / "filemux").stat().st_mode & os.X_OK


def test_commands_work_on_the_embedded_database_of_a_data_directory(data_dir):
    """Without a server running each command starts one for itself; the rows are there for the next one."""
    name, environment = new_name(), {"FILEMUX_DATA_DIR": data_dir / "embedded"}
    assert run_cli("teams", "create", name, **environment).returncode == 0
    assert name in run_cli("teams", "list", **environment).stdout


# --- the sandbox ------------------------------------------------------------------------------------------------


def test_the_printed_configuration_serves_against_a_sandbox_on_that_port(filemux, database_url, tmp_path):
    with SandboxProcess() as sandbox:
        port = sandbox.url.rpartition(":")[2]
        config = tmp_path / "sandbox.yaml"
        config.write_text(filemux("sandbox", "--port", port, "--print-config"))
        environment = {
            "DATABASE_URL": database_url,
            "FILEMUX_DATA_DIR": tmp_path / "data",
            "FILEMUX_MASTER_KEY": MASTER_KEY,
        }
        with Gateway("--config", config, **environment) as gateway:
            headers = {"authorization": f"Bearer {MASTER_KEY}"}
            models = httpx.get(f"{gateway.url}/v1/models", headers=headers).json()["data"]
            names = [model["id"] for model in models]
            assert names[:2] == ["gpt-4o-mini-openai", "gpt-4o-azure"]
            form = {"purpose": "user_data", "target_model_names": ",".join(names)}
            answer = httpx.post(f"{gateway.url}/v1/files", headers=headers, data=form, files={"file": b"a"})
            assert answer.status_code == 200, answer.text
