"""Whatever ends an upload, once the worker is idle the providers hold exactly what the rows say."""

import signal
import threading

import httpx
import pytest
from sqlalchemy import text

from app.db import readonly
from tests.conftest import MASTER_KEY
from tests.support.sandbox import eventually

PDF = b"%PDF-1.4 lost and found\n" * 100


def upload(url, name, targets="mini,azure"):
    form = {"purpose": "user_data", "target_model_names": targets}
    headers = {"authorization": f"Bearer {MASTER_KEY}"}
    return httpx.post(f"{url}/v1/files", data=form, files={"file": (name, PDF)}, headers=headers, timeout=60)


def cut_off(url, name):
    with pytest.raises(httpx.HTTPError):
        upload(url, name)


async def rows_of(database, name):
    async with database.read() as reader:
        query = "SELECT r.* FROM replicas r JOIN files f ON f.id = r.file_id WHERE f.filename = :name"
        return await reader.all(text(query), {"name": name})


async def lease_ends(database, name):
    async with database.write() as writer:
        query = "UPDATE replicas SET due_at = now() WHERE file_id IN (SELECT id FROM files WHERE filename = :name)"
        await writer.execute(text(query), {"name": name})


async def test_a_lost_answer_leaves_no_orphan(clients, sandbox, database):
    sandbox.fault("azure", "upload_file", lose_answer=True)
    answer = upload(clients.url, "lost-answer.pdf")
    assert answer.status_code == 503
    assert "azure" in answer.json()["error"]["message"]
    assert eventually(lambda: not sandbox.files)
    while await rows_of(database, "lost-answer.pdf"):
        await lease_ends(database, "lost-answer.pdf")


@pytest.mark.parametrize("moment", ["before the provider's answer", "in the middle of the body"])
async def test_a_killed_gateway_leaves_no_orphan(make_gateway, gateway, sandbox, database, moment):
    name = f"killed {moment}.pdf"
    if moment == "in the middle of the body":
        sandbox.fault("openai", "upload_file", bytes_per_second=1000)
    else:
        # Azure has stored the file and will say so much later; OpenAI has answered.
        sandbox.fault("azure", "upload_file", delay_seconds=60)
    with make_gateway() as victim:
        uploading = threading.Thread(target=cut_off, args=(victim.url, name))
        uploading.start()
        assert eventually(
            lambda: any(one["provider"] == ("azure" if "middle" in moment else "openai") for one in sandbox.files)
        )
        victim.stop(signal.SIGKILL)
        uploading.join()
    sandbox.heal()
    assert {row["state"] for row in await rows_of(database, name)} <= {"pending"}
    # The shared gateway is the one that repairs.
    while await rows_of(database, name):
        await lease_ends(database, name)
    assert not sandbox.files


async def test_what_may_be_another_clients_file_is_not_touched(clients, sandbox, database):
    key = {"authorization": "Bearer sk-first"}
    form = {"data": {"purpose": "user_data"}, "files": {"file": ("twin.pdf", PDF)}, "headers": key}
    httpx.post(f"{sandbox.url}/openai/v1/files", **form).raise_for_status()
    sandbox.fault("openai", "upload_file", lose_answer=True)
    assert upload(clients.url, "twin.pdf", "mini").status_code == 503
    suspects = "SELECT provider_file_id FROM orphan_suspects WHERE filename = 'twin.pdf'"
    while not (found := (await readonly.select(database, suspects))[1]):
        await lease_ends(database, "twin.pdf")
    assert {row[0] for row in found} == {one["id"] for one in sandbox.files if one["filename"] == "twin.pdf"}
    assert len(found) == 2
