"""`filemux suspects`: lost uploads' files at a provider, and what the gateway then does."""

import json

import pytest
import yaml
from sqlalchemy import text

from tests.conftest import configuration
from tests.support.chats import answer_of, ask, file_part, seen
from tests.support.processes import run_cli
from tests.support.sandbox import eventually
from tests.support.uploads import PDF, upload
from tests.support.world import until

# As if the upload's answer had been lost, and the worker not sure what it has made.
LOSE = text(
    "UPDATE replicas SET state = 'failed', provider_file_id = NULL, suspects = jsonb_build_array(jsonb_build_object("
    " 'provider_file_id', provider_file_id, 'filename', 'a.pdf', 'bytes', 7, 'created_at', 1767225600))"
    " WHERE file_id = :id AND account = 'openai-second' RETURNING suspects"
)


@pytest.fixture
def filemux(sandbox, database_url, tmp_path):
    """`filemux suspects ARGUMENTS` on the tests' database and sandbox; a CompletedProcess."""
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(configuration(sandbox.url)))

    def run(*arguments):
        environment = {"DATABASE_URL": database_url, "FILEMUX_DATA_DIR": tmp_path, "FILEMUX_CONFIG": config}
        return run_cli("suspects", *arguments, **environment)

    return run


@pytest.fixture
async def lost(member, database):
    """A file of `member`, and the provider's id of what its lost upload to `other` has made."""
    file = upload(member, "mini,other")
    async with database.write() as writer:
        row = await writer.first(LOSE, {"id": file.id})
        await writer.notify("filemux_files", file.id)
    return file, row["suspects"][0]["provider_file_id"]


async def acts(database, provider_file_id):
    async with database.read() as reader:
        statement = text("SELECT actor, action, details FROM audit_log WHERE subject = :id")
        return [tuple(row.values()) for row in await reader.all(statement, {"id": provider_file_id})]


def held(sandbox):
    return {one["id"] for one in sandbox.files}


def chats(member, file):
    return seen("a.pdf", PDF) in answer_of(ask(member, "other", file_part(file.id)))


async def test_a_suspect_is_listed_and_adopted(filemux, lost, member, sandbox, database):
    file, suspect = lost
    [shown] = [one for one in json.loads(filemux("list", "--json").stdout) if one["file_id"] == file.id]
    assert (shown["account"], shown["provider_file_id"], shown["bytes"]) == ("openai-second", suspect, 7)
    adopted = filemux("adopt", "openai-second", suspect)
    assert adopted.stdout == f"{suspect} is the replica of {file.id} at openai-second\n", adopted.stderr
    assert chats(member, file)
    assert (len(held(sandbox)), sandbox.calls("openai.upload_file")) == (2, 2)
    assert await acts(database, suspect) == [
        ("command line", "suspect.adopt", {"account": "openai-second", "file": file.id})
    ]


async def test_a_suspect_is_deleted_once_that_is_confirmed(filemux, lost, member, sandbox, database):
    file, suspect = lost
    asked = filemux("delete", "openai-second", suspect)
    assert (asked.returncode, suspect in held(sandbox), await acts(database, suspect)) == (130, True, [])
    question = asked.stdout + asked.stderr
    assert all(fact in question for fact in (suspect, "openai-second", "'a.pdf'", "7 bytes", "2026-01-01T00:00:00"))
    assert filemux("delete", "openai-second", suspect, "--yes").returncode == 0
    assert eventually(lambda: suspect not in held(sandbox))
    # The file is wanted there, so it is made again.
    assert chats(member, file)
    assert await acts(database, suspect) == [("command line", "suspect.delete", {"account": "openai-second"})]


async def test_a_dismissed_suspect_stays_where_it_is(filemux, lost, member, sandbox, database):
    file, suspect = lost
    assert member.files.delete(file.id).deleted
    assert eventually(lambda: held(sandbox) == {suspect})

    async def accounts():
        async with database.read() as reader:
            found = await reader.all(text("SELECT account FROM replicas WHERE file_id = :id"), {"id": file.id})
        return {row["account"] for row in found}

    async def is_settled():
        return await accounts() == {"openai-second"}

    await until(is_settled)
    dismissed = filemux("dismiss", "openai-second", suspect)
    assert dismissed.stdout == f"{suspect} stays at openai-second\n", dismissed.stderr
    async with database.read() as reader:
        assert not await reader.all(text("SELECT id FROM files WHERE id = :id"), {"id": file.id})
    assert held(sandbox) == {suspect}
    assert await acts(database, suspect) == [("command line", "suspect.dismiss", {"account": "openai-second"})]
    unknown = filemux("dismiss", "openai-second", suspect)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
