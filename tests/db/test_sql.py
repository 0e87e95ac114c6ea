"""`filemux sql`: one SELECT on the five views, as a role that may do nothing else, by whatever trick."""

import json

import pytest

from app.db import readonly
from app.errors import GatewayError
from tests.support.processes import run_cli

VIEWS = ("file_mappings", "replica_backlog", "orphan_suspects", "team_usage")
HIDDEN = ("keys", "teams", "files", "replicas", "file_targets", "batches", "audit_log", "alembic_version")


@pytest.fixture
def asked(database_url, tmp_path):
    """`filemux sql STATEMENT` to its end."""

    def run(statement, as_json=True):
        options = ["--json"] if as_json else []
        return run_cli("sql", *options, "--", statement, DATABASE_URL=database_url, FILEMUX_DATA_DIR=tmp_path)

    return run


@pytest.mark.parametrize("view", VIEWS)
def test_it_reads_the_views(asked, view):
    assert isinstance(json.loads(asked(f"SELECT * FROM {view} LIMIT 3").stdout), list)


def test_it_shows_what_was_asked(asked):
    found = json.loads(asked("SELECT 1 AS one, NULL AS none, ':a' AS text, '%s' AS mark;").stdout)
    assert found == [{"one": 1, "none": None, "text": ":a", "mark": "%s"}]


def test_a_table_has_its_columns_even_without_rows(asked):
    assert "one" in asked("SELECT 1 AS one WHERE false", as_json=False).stdout


@pytest.mark.parametrize(
    "statement",
    [
        *(f"SELECT * FROM {table}" for table in HIDDEN),
        "DELETE FROM file_mappings",
        "UPDATE keys SET role = 'admin'",
        "INSERT INTO teams VALUES ('a', 'b')",
        "CREATE TABLE mine (a int)",
        "CREATE TEMP TABLE mine (a int)",
        "DROP VIEW file_mappings",
        "WITH gone AS (DELETE FROM keys RETURNING 1) SELECT * FROM gone",
        "SELECT 1; DELETE FROM keys",
        "COMMIT; DELETE FROM keys",
        "RESET ROLE; SELECT * FROM keys",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT set_config('role', 'none', true), * FROM keys",
        "SELECT set_config('transaction_read_only', 'off', true)",
        "not sql",
        "",
    ],
)
async def test_it_does_nothing_else(database, statement):
    with pytest.raises(GatewayError, match=r"\Athe statement was refused: ") as refused:
        await readonly.select(database, statement)
    assert "Traceback" not in str(refused.value)


def test_a_refusal_is_told(asked):
    done = asked("DELETE FROM keys")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("filemux: the statement was refused: ")
    assert "Traceback" not in done.stderr


# Each gives the role up inside the one statement, and then has PostgreSQL run another one.
ESCAPES = {
    "query_to_xml": """SELECT set_config('role', 'none', true),
        query_to_xml('SELECT id FROM teams', true, true, '')::text""",
    "ts_stat": """SELECT set_config('role', 'none', true),
        (SELECT string_agg(word, ' ') FROM ts_stat($$SELECT to_tsvector('simple', id) FROM teams$$))""",
    "do": """DO $$ BEGIN
        RESET ROLE; RAISE EXCEPTION '%', (SELECT string_agg(id, ' ') FROM teams); END $$""",
}


@pytest.mark.parametrize("statement", ESCAPES.values(), ids=ESCAPES)
async def test_it_cannot_escape_the_role(database, statement):
    try:
        told = str(await readonly.select(database, statement))
    except GatewayError as refused:
        told = str(refused)
    assert "team-default" not in told, "a table's rows came through"
