"""Replicas that their provider deletes by itself: made anew ahead of time while they are in use, else on demand."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.chats import answer_of, ask, file_part, seen
from tests.support.replicas import Replicas
from tests.support.sandbox import eventually
from tests.support.uploads import sha256, upload

FOREVER = -1
GONE = {"expires_at": "now() - interval '1 second'"}
SOON = {"expires_at": "now() + interval '1 hour'"}
SOON_AND_USED = {**SOON, "used_at": "now()"}


@pytest.fixture
def stored(member, database, filename):
    """A file with one replica: its id, its bytes, its replicas' rows."""
    content = filename.encode()
    file = upload(member, "mini", content, filename=filename)
    return file.id, content, Replicas(database, file.id)


def held(sandbox, content):
    return [one["id"] for one in sandbox.files if one["sha256"] == sha256(content)]


def is_new(rows):
    """Whether there is one that its provider does not delete."""
    return [(row["state"], row["expires_at"]) for row in rows] == [("stored", None)]


def chats(client, file_id, filename, content):
    return answer_of(ask(client, "mini", file_part(file_id))) == seen(filename, content)


async def test_what_has_expired_is_forgotten_and_made_again_on_demand(member, sandbox, stored, filename):
    file_id, content, replicas = stored
    [before] = await replicas.all()
    await replicas.set(**GONE)
    assert await replicas.become() == []
    assert eventually(lambda: not held(sandbox, content))
    assert sandbox.calls("openai.upload_file") == 1
    assert chats(member, file_id, filename, content)
    [after] = await replicas.become("stored")
    assert after["id"] != before["id"] and after["expires_at"] is None
    assert held(sandbox, content) == [after["provider_file_id"]]


async def test_what_expires_this_moment_is_made_again(member, sandbox, stored, filename):
    """Before the worker has seen that it is gone."""
    file_id, content, replicas = stored

    def is_made_again(rows):
        # A chat that has not heard of it yet uses the one that is there.
        assert chats(member, file_id, filename, content)
        return [(row["state"], row["expires_at"]) for row in rows] == [("stored", None)]

    for _ in range(5):
        await replicas.set(**GONE)
        await replicas.until(is_made_again)
    assert sandbox.calls("openai.upload_file") == 6


async def test_what_is_in_use_is_made_anew_and_serves_at_every_moment(member, sandbox, stored, filename):
    file_id, content, replicas = stored
    assert chats(member, file_id, filename, content)
    [before] = await replicas.all()
    sandbox.fault("openai", "upload_file", delay_seconds=0.3)
    sandbox.fault("openai", "delete_file", delay_seconds=0.1)
    await replicas.set(**SOON_AND_USED)

    def has_changed_places(rows):
        assert chats(member, file_id, filename, content)
        return is_new(rows)

    [after] = await replicas.until(has_changed_places)
    assert (after["replaces"], after["due_at"]) == (None, None) and after["id"] != before["id"]
    assert held(sandbox, content) == [after["provider_file_id"]]
    assert chats(member, file_id, filename, content)
    assert sandbox.calls("openai.upload_file") == 2


async def test_a_chat_is_a_use(member, sandbox, stored, filename):
    file_id, content, replicas = stored
    await replicas.set(**SOON)
    assert chats(member, file_id, filename, content)
    await replicas.until(is_new)
    assert len(held(sandbox, content)) == 1


async def test_what_nobody_uses_is_not_made_anew(member, sandbox, stored, database):
    _, content, replicas = stored
    used = Replicas(database, upload(member, "mini", content, filename="used.pdf").id)
    await replicas.set(**SOON)
    await used.set(**SOON_AND_USED)
    await used.until(is_new)
    [unused] = await replicas.all()
    assert (unused["state"], unused["replaces"]) == ("stored", None) and unused["expires_at"]


async def test_on_demand_means_that_nothing_is_made_ahead(make_gateway, clients_of, sandbox, database, filename):
    with make_gateway(filemux={"refresh": "on_demand"}) as gateway:
        client = clients_of(gateway).member()
        content = filename.encode()
        replicas = Replicas(database, (file_id := upload(client, "mini", content, filename=filename).id))
        # The worker writes down the use and looks for what is to be made anew in the same round: two are more than one.
        for _ in range(2):
            await replicas.set(**SOON, used_at="now() - interval '2 minutes'")
            [before] = await replicas.all()
            assert chats(client, file_id, filename, content)
            await replicas.until(lambda rows, before=before: rows[0]["used_at"] > before["used_at"])
        await replicas.set(**GONE)
        await replicas.become()
        assert sandbox.calls("openai.upload_file") == 1
        assert chats(client, file_id, filename, content)


@pytest.mark.parametrize("status", [500, 400])
async def test_when_it_cannot_be_made_anew_the_old_one_serves(member, sandbox, stored, filename, status):
    file_id, content, replicas = stored
    sandbox.fault("openai", "upload_file", status=status, times=FOREVER)
    await replicas.set(**SOON_AND_USED)
    before, failed = await replicas.become("stored", "failed")
    assert failed["replaces"] == before["id"] and failed["last_error"]
    assert chats(member, file_id, filename, content)
    sandbox.heal()
    if status == 500:
        [after] = await replicas.become("stored")
        assert after["id"] != before["id"]
    else:
        # A refusal is not asked for again; when the time has come, a chat asks for a new one.
        assert failed["due_at"] is None
        await replicas.set("state = 'stored'", **GONE)
        await replicas.become("failed")
    assert chats(member, file_id, filename, content)
    assert len(held(sandbox, content)) == 1
    member.files.delete(file_id)
    assert await replicas.become() == []
    assert not held(sandbox, content)


async def test_a_file_that_is_deleted_while_it_is_made_anew(member, sandbox, stored):
    file_id, content, replicas = stored
    sandbox.fault("openai", "upload_file", delay_seconds=600)
    await replicas.set(**SOON_AND_USED)
    assert eventually(lambda: sandbox.calls("openai.upload_file") == 2)
    member.files.delete(file_id)
    sandbox.release()
    assert await replicas.become() == []
    assert not held(sandbox, content)


async def test_a_file_that_its_provider_loses_while_it_is_made_anew(member, sandbox, stored, filename):
    """A chat makes a third one; the one that was to be the second is not needed."""
    file_id, content, replicas = stored
    sandbox.fault("openai", "upload_file", delay_seconds=600)
    await replicas.set(**SOON_AND_USED)
    assert eventually(lambda: sandbox.calls("openai.upload_file") == 2)
    sandbox.fault("openai", "chat", status=404)
    sandbox.fault("openai", "retrieve_file", status=404)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(chats, member, file_id, filename, content).result()
    sandbox.release()
    [after] = await replicas.become("stored")
    assert held(sandbox, content) == [after["provider_file_id"]]
