"""Readers cannot write, a writer is one transaction, and a database that is out of reach is a 503 for the caller."""

import asyncio

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError

from app.db.session import Database, Reader
from app.db.tables import teams
from app.errors import Overloaded


async def names(database):
    async with database.read() as reader:
        return {row["name"] for row in await reader.all(select(teams))}


async def test_a_reader_has_no_way_to_write():
    assert {"execute", "notify"}.isdisjoint(dir(Reader))


async def test_a_transaction_is_all_or_nothing(own, rolled_back):
    await rolled_back(lambda writer: writer.execute(insert(teams).values(id="t", name="lost")))
    async with own.write() as writer:
        await writer.execute(insert(teams).values(id="t", name="kept"))
    assert await names(own) == {"default", "kept"}


async def test_an_unmigrated_database_is_overloaded(empty_database_url):
    database = Database(empty_database_url)
    with pytest.raises(Overloaded, match="not migrated; run `filemux migrate`"):
        await names(database)
    await database.close()


async def test_an_unreachable_database_is_overloaded():
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(Overloaded, match="cannot be reached"):
        await names(database)
    await database.close()


async def test_a_broken_connection_is_overloaded_and_the_next_one_works(own):
    with pytest.raises(Overloaded):
        async with own.write() as writer:
            await writer.all(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert await names(own) == {"default"}


@pytest.mark.parametrize("sqlstate", ["25006", "40001", "40P01", "53100", "53200"])
async def test_what_the_database_cannot_do_now_is_overloaded(own, sqlstate):
    with pytest.raises(Overloaded):
        async with own.read() as reader:
            await reader.table(f"DO $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{sqlstate}'; END $$", 1)


async def test_an_error_does_not_tell_what_it_was_about(own):
    with pytest.raises(DBAPIError) as failed:
        async with own.read() as reader:
            await reader.first(text("SELECT CAST(:name AS text), 1 / 0"), {"name": "layoffs.pdf"})
    assert "layoffs.pdf" not in str(failed.value)


async def test_a_pool_that_is_used_up_is_overloaded(own, monkeypatch):
    monkeypatch.setattr("app.db.session.POOL_CONNECTIONS", 1)
    monkeypatch.setattr("app.db.session.POOL_WAIT_SECONDS", 1)
    database = Database(own.url.render_as_string(hide_password=False))
    async with database.read(), database.read():
        with pytest.raises(Overloaded):
            await asyncio.wait_for(names(database), 60)
    await database.close()
