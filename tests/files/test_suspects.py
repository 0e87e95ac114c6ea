"""What becomes of the rows of a lost upload when an operator has said what its suspects are."""

import json
import uuid
from dataclasses import replace
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from app import ids
from app.access.audit import Actor
from app.deployments import Account, Deployments
from app.errors import BadRequest, NotFound
from app.files.suspects.settle import adopt_suspect, delete_suspect, dismiss_suspect
from tests.support.providers import MemoryProvider
from tests.support.uploads import PDF, sha256

ACTOR = Actor("a test")
FILE = text(
    "INSERT INTO files (id, team_id, filename, purpose, mime_type, bytes, sha256, state)"
    " VALUES (:id, 'team-default', :filename, 'user_data', 'application/pdf', :bytes, :sha256, :state)"
)
REPLICA = text(
    "INSERT INTO replicas (id, file_id, account, provider, provider_file_id, state, suspects, replaces, attempts)"
    " VALUES (:id, :file_id, :account, 'openai', :provider_file_id, :state, CAST(:suspects AS jsonb), :replaces, 1)"
)


class Place:
    """An account that no gateway has, and the rows of what lies there."""

    def __init__(self, database):
        self.database, self.name, self.provider = database, f"place-{uuid.uuid4().hex[:8]}", MemoryProvider()
        self.filename = f"{self.name}.pdf"
        self.a, self.b = f"file-a-{self.name}", f"file-b-{self.name}"
        deployments = Deployments([], {self.name: Account(self.name, "openai", self.provider)})
        self.gateway = SimpleNamespace(database=database, deployments=deployments)

    async def lost(self, *suspects, file_state="ready", **replica):
        """A file whose upload was lost; its id."""
        file_id = ids.new_file_id()
        file = {"id": file_id, "filename": self.filename, "bytes": len(PDF), "sha256": sha256(PDF), "state": file_state}
        row = {"id": ids.new_replica_id(), "file_id": file_id, "account": self.name, "provider_file_id": None}
        shown = json.dumps([{"provider_file_id": one} for one in suspects]) if suspects else None
        row |= {"state": "failed", "suspects": shown, "replaces": None, **replica}
        async with self.database.write() as writer:
            await writer.execute(FILE, file)
            await writer.execute(REPLICA, row)
        return file_id

    async def rows(self):
        """(file, state, provider's id, suspects, whether it is due) of each replica."""
        query = "SELECT * FROM replicas WHERE account = :account ORDER BY file_id, id"
        async with self.database.read() as reader:
            rows = await reader.all(text(query), {"account": self.name})
        return [
            (
                row["file_id"],
                row["state"],
                row["provider_file_id"],
                row["suspects"] and [one["provider_file_id"] for one in row["suspects"]],
                row["due_at"] is not None,
            )
            for row in rows
        ]

    async def file_ids(self):
        async with self.database.read() as reader:
            rows = await reader.all(text("SELECT id FROM files WHERE filename = :name"), {"name": self.filename})
        return {row["id"] for row in rows}

    async def forget(self):
        async with self.database.write() as writer:
            left = "DELETE FROM replicas USING files WHERE files.id = file_id AND filename = :name"
            await writer.execute(text(left), {"name": self.filename})
            await writer.execute(text("DELETE FROM files WHERE filename = :name"), {"name": self.filename})


@pytest.fixture
async def place(database):
    made = Place(database)
    yield made
    await made.forget()


async def test_a_suspect_is_deleted_once_and_is_nobodys_suspect_any_more(place):
    first, second = await place.lost(place.a, place.b), await place.lost(place.a)
    await delete_suspect(place.database, ACTOR, place.name, place.a)
    assert await place.rows() == [
        (first, "failed", None, [place.b], False),
        (first, "deleting", place.a, None, True),
        # Settled, and wanted: it is made again.
        (second, "failed", None, None, True),
    ]


@pytest.mark.parametrize(
    ("state", "replaces", "kept"), [("ready", None, True), ("ready", "another", False), ("deleting", None, False)]
)
async def test_with_the_last_suspect_an_upload_is_made_again_or_forgotten(place, state, replaces, kept):
    file_id = await place.lost(place.a, place.b, file_state=state, replaces=replaces)
    await dismiss_suspect(place.database, ACTOR, place.name, place.a)
    assert await place.rows() == [(file_id, "failed", None, [place.b], False)]
    await dismiss_suspect(place.database, ACTOR, place.name, place.b)
    assert await place.rows() == ([(file_id, "failed", None, None, True)] if kept else [])
    assert await place.file_ids() == ({file_id} if state == "ready" else set())


async def test_the_file_of_a_deleted_upload_stays_until_its_suspect_is_gone(place):
    file_id = await place.lost(place.a, file_state="failed")
    await delete_suspect(place.database, ACTOR, place.name, place.a)
    assert await place.rows() == [(file_id, "deleting", place.a, None, True)]
    assert await place.file_ids() == {file_id}


async def test_an_adopted_suspect_is_the_replica(place):
    place.provider.files[place.a] = PDF
    first, second = await place.lost(place.a, place.b), await place.lost(place.a, place.b)
    assert await adopt_suspect(place.gateway, ACTOR, place.name, place.a, second) == second
    assert await place.rows() == [(first, "failed", None, [place.b], False), (second, "stored", place.a, None, False)]


@pytest.mark.parametrize("decide", [delete_suspect, dismiss_suspect, adopt_suspect])
async def test_what_is_no_suspect_is_not_found(place, decide):
    await place.lost(place.a)
    first = place.gateway if decide is adopt_suspect else place.database
    with pytest.raises(NotFound, match="there is no suspect 'x'"):
        await decide(first, ACTOR, place.name, "x")


@pytest.mark.parametrize("decide", [delete_suspect, adopt_suspect])
@pytest.mark.parametrize(
    ("another", "reason"),
    [
        ({"state": "stored"}, "is the replica of file-mux-"),
        ({"state": "stored", "account": "of the same organization"}, "is the replica of file-mux-"),
        ({"state": "pending"}, "may be that of another upload"),
    ],
    ids=["stored", "stored at another account", "on its way"],
)
async def test_what_is_or_may_be_another_uploads_is_never_touched(place, decide, another, reason):
    place.provider.files[place.a] = PDF
    await place.lost(place.a)
    await place.lost(**another, provider_file_id=place.a if another["state"] == "stored" else None)
    before = await place.rows()
    with pytest.raises(BadRequest, match=reason):
        await decide(place.gateway if decide is adopt_suspect else place.database, ACTOR, place.name, place.a)
    assert await place.rows() == before


DELETE_OR_DISMISS = "delete the suspect, or dismiss it"


@pytest.mark.parametrize(
    ("lost", "content", "reason"),
    [
        ([{"file_state": "deleting"}], PDF, DELETE_OR_DISMISS),
        ([{"replaces": "another"}], PDF, DELETE_OR_DISMISS),
        ([{}], PDF[:-1], DELETE_OR_DISMISS),
        ([{}], None, "any more: dismiss it"),
        ([{}, {}], PDF, "name the one that it is"),
    ],
    ids=["deleted", "replaced", "another size", "gone", "of two uploads"],
)
async def test_only_what_is_surely_the_uploads_is_adopted(place, lost, content, reason):
    if content is not None:
        place.provider.files[place.a] = content
    for upload in lost:
        await place.lost(place.a, **upload)
    before = await place.rows()
    with pytest.raises(BadRequest, match=reason):
        await adopt_suspect(place.gateway, ACTOR, place.name, place.a)
    assert await place.rows() == before


async def test_a_checksum_that_the_provider_tells_decides(place, monkeypatch):
    await place.lost(place.a)
    place.provider.files[place.a] = PDF[::-1]
    told = replace(await place.provider.retrieve_file(place.a), sha256=sha256(PDF[::-1]))

    async def retrieve_file(_):
        return told

    monkeypatch.setattr(place.provider, "retrieve_file", retrieve_file)
    with pytest.raises(BadRequest, match="its SHA-256 is"):
        await adopt_suspect(place.gateway, ACTOR, place.name, place.a)


async def test_an_account_that_is_not_configured_is_told(place):
    await place.lost(place.a)
    with pytest.raises(BadRequest, match="is not in the configuration"):
        await adopt_suspect(place.gateway, ACTOR, "another place", place.a)
