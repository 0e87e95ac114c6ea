"""docs/sql.md: its columns are the database's columns, and each of its questions is answered by its query."""

import contextlib
import json

import openai
import pytest
from sqlalchemy import text

from app.db import readonly
from tests.conftest import MASTER_KEY, connected
from tests.readme.markdown import ROOT, blocks, tables
from tests.support.batches import create, ended, line, upload_lines
from tests.support.sandbox import Switchboard
from tests.support.world import until

PAGE = ROOT / "docs" / "sql.md"
QUERIES = blocks(PAGE, "sql")
VIEWS = ["file_mappings", "replica_backlog", "source_backlog", "orphan_suspects", "batch_mappings", "team_usage"]
SAMPLE_FILE_ID = "file-mux-0199f5c0a1b27c3d8e4f5a6b7c8d9e0f"
SAMPLE_PROVIDER_FILE_ID = "file-AbCdEf123456"
REASON = "the provider answered 503"


async def columns_of(connection, relation):
    """The names and types of a view's or a table's columns, in order, as the page writes them."""
    statement = (
        "SELECT attname, format_type(atttypid, NULL) AS type FROM pg_attribute"
        " WHERE attrelid = $1::regclass AND attnum > 0 ORDER BY attnum"
    )
    rows = await connection.fetch(statement, relation)
    return [[name, kind.replace("timestamp with time zone", "timestamptz")] for name, kind in rows]


@pytest.mark.parametrize("view", VIEWS)
async def test_the_columns_are_those_of_the_view(view, database_url):
    async with connected(database_url) as connection:
        assert [row[:2] for row in tables(PAGE, view)[0][1:]] == await columns_of(connection, view)


@pytest.fixture(scope="module")
def sdk(make_gateway):
    """The SDK with the master key of a gateway that asks for one target at least."""
    with (
        make_gateway(filemux={"upload_policy": "any"}) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=MASTER_KEY, max_retries=0) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def switchboard(sandbox_process):
    with contextlib.closing(Switchboard(sandbox_process.url)) as opened:
        opened.reset()
        yield opened
        opened.heal()


@pytest.fixture(scope="module")
async def file_id(sdk, switchboard, database_url):
    """A file to ask for, besides one that Azure refused, one that OpenAI does not delete, one with a suspect, one
    whose account and store no gateway has any more, and a batch."""
    wanted = _upload(sdk)
    ended(sdk, create(sdk, upload_lines(sdk, [line("one", "mini", "Hello")])))
    switchboard.fault("azure", "upload_file", status=400)
    refused = _upload(sdk)
    switchboard.fault("openai", "delete_file", status=503, times=-1)
    waiting, left = _upload(sdk), _upload(sdk)
    assert sdk.files.delete(waiting).deleted
    assert sdk.files.delete(left).deleted
    suspects = [{"provider_file_id": "file-1", "filename": "report.pdf", "bytes": 8, "created_at": 1767225600}]
    async with connected(database_url) as connection:

        async def are_refused():
            rows = await connection.fetch(
                "SELECT last_error FROM replica_backlog WHERE file_id = ANY($1)", [waiting, left]
            )
            return [row["last_error"] for row in rows] == [REASON] * 2

        await until(are_refused)
        suspected = "UPDATE replicas SET suspects = $2 WHERE file_id = $1 AND state = 'failed'"
        assert await connection.execute(suspected, refused, json.dumps(suspects)) == "UPDATE 1"
        blocked = "UPDATE replicas SET account = 'gone', blocked = true, due_at = NULL WHERE file_id = $1"
        assert await connection.execute(blocked, left) == "UPDATE 1"
        assert await connection.execute("UPDATE files SET source = 'disk:gone' WHERE id = $1", left) == "UPDATE 1"
    return wanted


def _upload(sdk):
    expiry = {"anchor": "created_at", "seconds": 3600}
    targets = {"target_model_names": "mini,azure"}
    created = sdk.files.create(
        file=("report.pdf", b"%PDF-1.4"), purpose="user_data", expires_after=expiry, extra_body=targets
    )
    return created.id


def test_there_are_thirteen_questions():
    assert len(QUERIES) == 13


async def test_the_readonly_role_reads_the_views_and_nothing_else(database):
    granted = "SELECT table_name FROM information_schema.role_table_grants WHERE grantee = 'filemux_readonly'"
    async with database.read() as reader:
        assert {row["table_name"] for row in await reader.all(text(granted))} == set(VIEWS)


@pytest.mark.parametrize("query", QUERIES, ids=range(1, len(QUERIES) + 1))
async def test_each_question_has_an_answer(query, file_id, database):
    own = f"SELECT provider_file_id FROM file_mappings WHERE file_id = '{file_id}' LIMIT 1"
    _, [[provider_file_id]] = await readonly.select(database, own)
    query = query.replace(SAMPLE_FILE_ID, file_id).replace(SAMPLE_PROVIDER_FILE_ID, provider_file_id)
    _, rows = await readonly.select(database, query)
    assert rows


async def test_the_reason_of_a_delay_is_told(file_id, database):
    _, rows = await readonly.select(database, "SELECT last_error FROM replica_backlog WHERE state = 'deleting'")
    assert [REASON] in rows
