"""Up from empty, down and up again, and the operators' views exactly as design.md §7 has them."""

import asyncio
from functools import partial

import asyncpg
import pytest

from app.db import migrations
from app.db.embedded import EmbeddedPostgres
from app.db.session import Database, normalised
from tests.conftest import connected
from tests.support.processes import run_cli

VIEWS = {
    "file_mappings": "file_id filename purpose bytes mime_type sha256 team created_by model_name provider account "
    "provider_file_id state attempts last_error created_at stored_at expires_at",
    "replica_backlog": "file_id team provider account provider_file_id state due_at attempts last_error created_at "
    "blocked",
    "orphan_suspects": "file_id team provider account provider_file_id filename bytes created_at",
    "source_backlog": "file_id team source state due_at attempts last_error created_at",
    "batch_mappings": "batch_id status team created_by input_file_id output_file_id model_name provider account "
    "provider_batch_id state lines completed failed last_error created_at due_at attempts",
    "team_usage": "team files bytes replicas replica_bytes last_upload_at",
}
TABLES = {
    "teams",
    "keys",
    "files",
    "file_targets",
    "replicas",
    "batches",
    "batch_parts",
    "audit_log",
    "idempotency_keys",
}
COLUMNS = """
SELECT table_name, string_agg(column_name, ' ' ORDER BY ordinal_position) AS columns
FROM information_schema.columns WHERE table_schema = 'public' GROUP BY table_name
"""
ROLE_EXISTS = "SELECT 1 FROM pg_roles WHERE rolname = 'filemux_readonly'"


async def relations(url):
    """Table or view → its columns in order."""
    async with connected(url) as connection:
        return {row["table_name"]: row["columns"] for row in await connection.fetch(COLUMNS)}


async def revision(url):
    database = Database(url)
    try:
        return await migrations.current(database)
    finally:
        await database.close()


async def test_the_schema_is_what_the_code_says(own_url):
    await asyncio.to_thread(migrations.check, own_url)
    found = await relations(own_url)
    assert set(found) == TABLES | set(VIEWS) | {"alembic_version"}
    assert {name: found[name] for name in VIEWS} == VIEWS


async def test_migrating_twice_changes_nothing(own_url):
    await asyncio.to_thread(migrations.upgrade, own_url)
    assert await revision(own_url) == migrations.head()


async def test_several_may_migrate_at_the_same_time(empty_database_url):
    migrate = partial(run_cli, "migrate", DATABASE_URL=empty_database_url)
    done = await asyncio.gather(*(asyncio.to_thread(migrate) for _ in range(3)))
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 3
    assert await revision(empty_database_url) == migrations.head()


async def test_one_step_down_and_up(own_url):
    before = await relations(own_url)
    await asyncio.to_thread(migrations.downgrade, own_url, "-1")
    assert await revision(own_url) != migrations.head()
    assert await relations(own_url) != before
    await asyncio.to_thread(migrations.upgrade, own_url)
    assert await relations(own_url) == before


async def test_all_the_way_down_leaves_nothing(own_url):
    await asyncio.to_thread(migrations.downgrade, own_url, "base")
    assert set(await relations(own_url)) == {"alembic_version"}
    assert await revision(own_url) is None


async def test_there_is_a_team_to_begin_with(own_url):
    async with connected(own_url) as connection:
        assert [row["name"] for row in await connection.fetch("SELECT name FROM teams")] == ["default"]


# --- filemux_readonly -------------------------------------------------------------------------------------------


@pytest.fixture
async def readonly(own_url):
    """A connection as filemux_readonly."""
    async with connected(own_url) as connection:
        await connection.execute("SET ROLE filemux_readonly")
        yield connection


@pytest.mark.parametrize("view", VIEWS)
async def test_the_readonly_role_reads_the_views(readonly, view):
    await readonly.fetch(f"SELECT * FROM {view}")


@pytest.mark.parametrize(
    "statement",
    [f"SELECT * FROM {table}" for table in sorted(TABLES)]
    + [f"DELETE FROM {view}" for view in VIEWS]
    + ["CREATE TABLE public.mine (a int)", "UPDATE keys SET role = 'admin'", "INSERT INTO teams VALUES ('a', 'b')"],
)
async def test_the_readonly_role_may_do_nothing_else(readonly, statement):
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ObjectNotInPrerequisiteStateError)):
        await readonly.execute(statement)


# --- who migrates -----------------------------------------------------------------------------------------------


@pytest.fixture
def server_url(data_dir):
    """A server that nobody has migrated on yet: roles belong to the whole server."""
    with EmbeddedPostgres(data_dir / "bare") as server:
        yield server.url


async def test_a_user_without_createrole_migrates_all_the_same(server_url):
    async with connected(server_url) as connection:
        await connection.execute("CREATE ROLE plain LOGIN NOCREATEROLE")
        for database in ("before", "after"):
            await connection.execute(f"CREATE DATABASE {database} OWNER plain")
        before, after = (normalised(server_url).set(username="plain", database=one) for one in ("before", "after"))
        await migrated(before)
        assert not await connection.fetchval(ROLE_EXISTS)
        await migrated(server_url)
        assert await connection.fetchval(ROLE_EXISTS)
        await migrated(after)


async def migrated(url):
    """Migrate as the URL's user, who then has the schema and its views."""
    url = normalised(str(url)).render_as_string(hide_password=False)
    await asyncio.to_thread(migrations.upgrade, url)
    assert await revision(url) == migrations.head()
    assert set(VIEWS) <= set(await relations(url))
