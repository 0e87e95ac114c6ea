"""Sync: replicas of all files for a model name, ordered and followed over HTTP and at the command line."""

import asyncio
import contextlib
import json

import pytest
import yaml
from sqlalchemy import text

from app.db import migrations
from app.db.session import Database
from app.files.backfill import queries
from app.providers.protocol import NO_LIMIT
from tests.conftest import Clients, configuration
from tests.support.processes import Gateway, run_cli
from tests.support.sandbox import eventually
from tests.support.uploads import refusal, upload

PATH = "/admin/files/sync"


@pytest.fixture
def place(sandbox, empty_database_url, tmp_path):
    """A gateway's environment, its database its own: a sync concerns all files that there are."""
    migrations.upgrade(empty_database_url)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(configuration(sandbox.url)))
    return {"DATABASE_URL": empty_database_url, "FILEMUX_DATA_DIR": tmp_path, "FILEMUX_CONFIG": config}


@pytest.fixture
def alone(place):
    """Clients of a gateway there."""
    with Gateway(**place) as gateway, contextlib.closing(Clients(gateway.url)) as clients:
        yield clients


def progress(clients, **params):
    return clients.http.get(PATH, params=params).raise_for_status().json()


def figures(files, stored, waiting=0, failed=0, model="azure"):
    return {"model": model, "files": files, "stored": stored, "waiting": waiting, "failed": failed}


def held_by(sandbox, provider):
    return {one["filename"] for one in sandbox.files if one["provider"] == provider}


def test_files_get_the_replicas_that_they_lack(alone, sandbox):
    ours, theirs = alone.member(), alone.member(alone.new_team())
    for number in range(3):
        upload(ours, "mini", filename=f"{number}.pdf")
    upload(ours, "mini,azure", filename="there.pdf")
    # Azure takes no files of this purpose.
    upload(ours, "mini", filename="evaluation.jsonl", purpose="evals")
    upload(theirs, "mini", filename="theirs.pdf")
    gone = upload(ours, "mini", filename="gone.pdf")
    ours.files.delete(gone.id)
    assert progress(alone, model="azure") == figures(1, 1)

    answer = alone.http.post(PATH, json={"model": "azure"}).raise_for_status().json()
    assert (answer["files"], answer["failed"]) == (5, 0)
    assert eventually(lambda: progress(alone, model="azure") == figures(5, 5))
    assert held_by(sandbox, "azure") == {"0.pdf", "1.pdf", "2.pdf", "there.pdf", "theirs.pdf"}
    # Nothing is left to do a second time.
    assert alone.http.post(PATH, json={"model": "azure"}).json() == figures(5, 5)
    assert sandbox.calls("azure.upload_file") == 5


def test_one_teams_files(alone, sandbox):
    team = alone.new_team()
    upload(alone.member(), "mini", filename="theirs.pdf")
    file = upload(alone.member(team), "mini", filename="ours.pdf")
    alone.http.post(PATH, json={"model": "pair", "team": team}).raise_for_status()
    assert eventually(lambda: progress(alone, model="pair", team=team) == figures(1, 1, model="pair"))
    # The other account of `pair` is that of `mini`, which has both.
    assert progress(alone, model="pair") == figures(2, 2, model="pair")
    shown = alone.http.get(f"/files/{file.id}").json()["filemux"]["targets"]
    assert {one["account"]: one["model_names"] for one in shown} == {
        "openai-first": ["mini", "pair"],
        "openai-second": ["pair"],
    }


async def test_the_command_makes_them_and_tells_what_failed_for_good(place, sandbox):
    """Without a running gateway; what failed is tried again when it is asked for again."""
    with Gateway(**place) as gateway, contextlib.closing(Clients(gateway.url)) as clients:
        files = [upload(clients.member(), "mini", filename=f"{number}.pdf") for number in range(12)]
    sandbox.fault("azure", "upload_file", status=400)
    told = run_cli("files", "sync", "--model", "azure", **place)
    assert (told.returncode, len(held_by(sandbox, "azure"))) == (1, 11)
    [failed] = [file for file in files if file.filename not in held_by(sandbox, "azure")]
    [row] = [line for line in told.stdout.splitlines() if failed.id in line]
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells == [failed.id, failed.filename, "azure", "The request was refused."]
    done = run_cli("files", "sync", "--model", "azure", "--json", **place)
    assert (done.returncode, json.loads(done.stdout)) == (0, figures(12, 12)), done.stderr
    async with opened(place) as database, database.read() as reader:
        rows = await reader.all(text("SELECT actor, subject, details FROM audit_log WHERE action = 'files.sync'"))
    assert [tuple(row.values()) for row in rows] == [("command line", "azure", {"team": None})] * 2


@contextlib.asynccontextmanager
async def opened(place):
    database = Database(place["DATABASE_URL"])
    yield database
    await database.close()


SCOPE = {"account": "azure", "provider": "azure", "model_name": "azure", "team_id": None, "stores": ["here"]}
SCOPE |= {"purposes": ["user_data"], "max_bytes": NO_LIMIT}
INSERT = text(
    "INSERT INTO files (id, team_id, filename, purpose, mime_type, bytes, source, state)"
    " VALUES (:id, 'team-default', 'a.pdf', 'user_data', 'application/pdf', 1, :source, 'ready')"
)


async def replicas(database):
    async with database.read() as reader:
        return await reader.all(
            text("SELECT file_id FROM replicas WHERE state = 'pending' AND attempts = 0 ORDER BY 1")
        )


async def test_many_files_are_ordered_page_by_page(place):
    async with opened(place) as database:
        async with database.write() as writer:
            for number in range(5):
                await writer.execute(INSERT, {"id": f"file-{number}", "source": "here" if number else None})
            await writer.execute(INSERT, {"id": "file-on-another-disk", "source": "there"})
        last, pages = "", []
        while last is not None:
            async with database.write() as writer:
                last = await queries.want_synced(writer, SCOPE, last, 2)
            pages.append(last)
        assert pages == ["file-1", "file-3", "file-4", None]
        assert [row["file_id"] for row in await replicas(database)] == [f"file-{number}" for number in range(5)]


async def test_a_file_that_is_deleted_meanwhile_gets_no_replica(place):
    async with opened(place) as database:
        async with database.write() as writer:
            await writer.execute(INSERT, {"id": "file-1", "source": "here"})

        async def order():
            async with database.write() as writer:
                return await queries.want_synced(writer, SCOPE, "", 2)

        async with database.write() as deleting:
            await deleting.execute(text("UPDATE files SET state = 'deleting'"))
            ordering = asyncio.create_task(order())
            assert not (await asyncio.wait([ordering], timeout=0.2))[0]
        assert (await ordering, await replicas(database)) == (None, [])


@pytest.mark.parametrize(
    ("wanted", "status", "code", "param"),
    [
        ({"model": "nobody"}, 400, "unknown_model_name", "model"),
        ({"model": "vllm"}, 400, "target_without_files", "model"),
        ({"model": "mini", "team": "nobody"}, 404, "not_found", "team"),
        ({}, 400, None, "model"),
        ({"model": "mini", "tema": "default"}, 400, None, "tema"),
    ],
    ids=str,
)
def test_what_cannot_be_synced_is_refused(clients, wanted, status, code, param):
    refusal(clients.http.post(PATH, json=wanted), status, code, param)
    refusal(clients.http.get(PATH, params=wanted), status, code, param)


def test_only_admins_sync(clients):
    key = clients.new_key()["key"]
    headers = {"authorization": f"Bearer {key}"}
    refusal(clients.http.post(PATH, json={"model": "mini"}, headers=headers), 403, "permission_denied")
    refusal(clients.http.get(PATH, params={"model": "mini"}, headers=headers), 403, "permission_denied")
