"""SIGKILL at every transaction edge: before the commit, and after it, when the gateway does not know of it yet.

Triggers of the test's own hold a transaction up in its commit, the n-th that touches a file. Then the gateway is
killed, and the transaction either rolled back or let through. How many there are the test finds out: each n is tried,
up to one that the operation ends without.
"""

import asyncio

import httpx
import openai
import pytest

from tests.support.gates import Crossing
from tests.support.killable import GEMINI, OPENAI
from tests.support.world import until

# More than any of these operations has.
EDGES = range(1, 8)


def crossings(operation, model_name=OPENAI):
    return [Crossing(operation, edge, commits, model_name) for edge in EDGES for commits in (False, True)]


async def killed_during(gateway, ask, files):
    """Do it with every file at once, kill the gateway when each has come to its edge or is answered, and start it
    again; the files whose request was answered."""
    await gateway.gates.close(*files)
    requests = {one.filename: asyncio.create_task(ask(one)) for one in files}

    async def all_stand_still():
        waiting = (await gateway.gates.look()).values()
        return all(requests[one.filename].done() or one in waiting for one in files)

    await until(all_stand_still)
    answered = [one for one in files if requests[one.filename].done() and await requests[one.filename] is None]
    await gateway.kill()
    await asyncio.gather(*requests.values(), return_exceptions=True)
    gateway.world.sandbox.heal()
    await gateway.take_up()
    # Every request came to its first edge, and none has as many as were tried.
    assert all(one.reached for one in files if one.edge == EDGES[0])
    assert not any(one.reached for one in files if one.edge == EDGES[-1])
    return answered


def names(files):
    return sorted(one.filename for one in files)


async def test_an_upload(gateway):
    """Who was not answered asks again, with the same key, and there is one file."""
    files = crossings("upload")
    told = {one.filename: one.file_id for one in await killed_during(gateway, gateway.upload, files)}
    await gateway.world.come_to_rest()
    last = max(one.edge for one in files if one.reached)
    recorded = [one for one in files if one.edge == last and one.commits]
    assert await gateway.listed() == sorted([*told, *names(recorded)])
    for one in files:
        await gateway.upload(one)
        assert one.file_id == told.get(one.filename, one.file_id)
        await gateway.chat(one)
    assert await gateway.listed() == names(files)


async def test_an_upload_that_one_provider_refuses(gateway):
    async def refused(one):
        with pytest.raises(openai.BadRequestError):
            await gateway.upload(one)

    gateway.world.sandbox.fault("openai", "upload_file", status=400, times=-1)
    await killed_during(gateway, refused, crossings("refused upload"))
    await gateway.world.come_to_rest()
    assert await gateway.listed() == []
    assert gateway.world.sandbox.files == []


async def test_a_delete(gateway):
    async def delete(one):
        await gateway.client.files.delete(one.file_id)

    files = crossings("delete")
    for one in files:
        await gateway.upload(one)
    await killed_during(gateway, delete, files)
    await gateway.world.come_to_rest()
    kept = files[0]
    assert await gateway.listed() == [kept.filename]
    await gateway.chat(kept)


async def test_a_chat_with_a_model_name_that_the_file_was_not_uploaded_for(gateway):
    files = crossings("chosen name", GEMINI) + crossings("provider's name", OPENAI)
    for one in files:
        await gateway.upload(one, ["nova-lite"])
    await killed_during(gateway, gateway.chat, files)
    await gateway.world.come_to_rest()
    for one in files:
        await gateway.read(one)
        await gateway.chat(one)


async def test_a_chat_about_a_file_that_its_provider_has_lost(gateway):
    sandbox = gateway.world.sandbox
    files = crossings("lost")
    for one in files:
        await gateway.upload(one, [OPENAI])
    for file in sandbox.files:
        if file["provider"] == "openai":
            lost = f"{sandbox.url}/openai/v1/files/{file['id']}"
            httpx.delete(lost, headers={"authorization": "Bearer sk-sandbox-openai"}).raise_for_status()
    await killed_during(gateway, gateway.chat, files)
    for one in files:
        await gateway.chat(one)
        await gateway.read(one)
    await gateway.world.come_to_rest()


# --- what the worker does by itself -----------------------------------------------------------------------------


async def killed_while(gateway, operation, arrange, is_over):
    """Have the worker find what is arranged for one file after the other, killed one edge later each time, until it is
    over without; the files that it found, and the others."""
    files = crossings(operation)
    for one in files:
        await gateway.upload(one, [OPENAI])
    await gateway.stop()
    found = []
    for one in files:
        found.append(one)

        async def has_come(one=one):
            return await gateway.gates.look() or await is_over(one)

        await arrange(one)
        await gateway.gates.close(one)
        gateway.start()
        await until(has_come)
        over = await is_over(one)
        await gateway.kill()
        if over:
            break
    assert over and len(found) > 2
    await gateway.take_up()
    for one in found:
        await until(lambda one=one: is_over(one))
    await gateway.world.come_to_rest()
    return found, files[len(found) :]


async def test_an_expiry(gateway):
    connection = gateway.world.connection

    async def arrange(one):
        await connection.execute("UPDATE files SET expires_at = now() WHERE id = $1", one.file_id)

    async def is_over(one):
        return not await connection.fetchval("SELECT count(*) FROM files WHERE id = $1", one.file_id)

    expired, others = await killed_while(gateway, "expiry", arrange, is_over)
    assert await gateway.listed() == names(others)
    assert not {one["filename"] for one in gateway.world.sandbox.files} & {*names(expired)}


async def test_a_refresh(gateway):
    connection = gateway.world.connection
    soon = "UPDATE replicas SET expires_at = now() + interval '1 hour', used_at = now() WHERE file_id = $1"
    anew = "state = 'stored' AND replaces IS NULL AND expires_at IS NULL"

    async def arrange(one):
        await connection.execute(soon, one.file_id)

    async def is_over(one):
        return await connection.fetchval(f"SELECT count(*) FROM replicas WHERE file_id = $1 AND {anew}", one.file_id)

    refreshed, _ = await killed_while(gateway, "refresh", arrange, is_over)
    for one in refreshed:
        await gateway.chat(one)
        await gateway.read(one)
