"""The switchboard itself: what it shows, and which nonsense it refuses."""

import hashlib
import os

import httpx
import pytest

from tests.sandbox.conftest import Switchboard

_PID = os.getpid()
# Above the largest that Linux gives.
_NO_PID = 2**22 + 1


async def test_state_shows_every_file_and_no_key(openai_client, azure_client, http: httpx.AsyncClient):
    created = await openai_client.files.create(file=("a.pdf", b"x"), purpose="user_data")
    await azure_client.files.create(file=("b.pdf", b"yz"), purpose="assistants")
    await openai_client.files.retrieve(created.id)
    state = (await http.get("/_sandbox/state")).json()
    assert state.keys() == {"files", "uploads", "batches", "requests"}
    assert state["requests"] == {"openai.upload_file": 1, "azure.upload_file": 1, "openai.retrieve_file": 1}
    assert [(file["provider"], file["filename"]) for file in state["files"]] == [
        ("openai", "a.pdf"),
        ("azure", "b.pdf"),
    ]
    assert state["files"][0] == {
        "provider": "openai",
        "account": hashlib.sha256(b"sk-one").hexdigest()[:8],
        "id": created.id,
        "filename": "a.pdf",
        "bytes": 1,
        "sha256": hashlib.sha256(b"x").hexdigest(),
        "purpose": "user_data",
        "created_at": created.created_at,
    }


async def test_forgetting_the_state(openai_client, switchboard: Switchboard):
    now = (await openai_client.files.create(file=("a.pdf", b"x"), purpose="user_data")).created_at
    await switchboard.advance(100_000)
    await switchboard.forget()
    assert await switchboard.files() == []
    assert await switchboard.requests() == {}
    again = await openai_client.files.create(file=("a.pdf", b"x"), purpose="user_data")
    assert now <= again.created_at < now + 100_000


async def test_the_clock_dates_what_is_made(openai_client, switchboard: Switchboard):
    first = await openai_client.files.create(file=("a.pdf", b"x"), purpose="user_data")
    await switchboard.advance(5000)
    second = await openai_client.files.create(file=("a.pdf", b"x"), purpose="user_data")
    assert second.created_at >= first.created_at + 5000


async def test_faults_are_shown_until_they_are_spent(openai_client, http: httpx.AsyncClient, switchboard: Switchboard):
    fault = {"provider": "openai", "operation": "list_models", "delay_seconds": 0.01, "times": 2}
    assert (await http.post("/_sandbox/faults", json=fault)).json() == fault
    await openai_client.models.list()
    assert (await http.get("/_sandbox/faults")).json() == {"faults": [fault | {"times": 1}]}
    await openai_client.models.list()
    assert (await http.get("/_sandbox/faults")).json() == {"faults": []}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"provider": "opanai", "status": 500}, "provider: no such provider"),
        ({"operation": "upload", "status": 500}, "operation: no such operation"),
        ({"operation": "upload_file"}, "needs an effect"),
        ({"status": 200}, "status: "),
        ({"statsu": 500}, "statsu: "),
        ({"status": 500, "times": 0}, "times"),
        ({"status": 500, "times": -2}, "times"),
        ({"status": 500, "lose_answer": True}, "exclude each other"),
        ({"retry_after_seconds": 5, "delay_seconds": 1}, "needs a status"),
        ({"delay_seconds": -1}, "delay_seconds: "),
        ({"bytes_per_second": 0}, "bytes_per_second: "),
        ({"reset_after_bytes": "many"}, "reset_after_bytes: "),
        ({"corrupt": True}, "corrupt needs the operation upload_file"),
        ({"operation": "delete_file", "corrupt": True}, "corrupt needs the operation upload_file"),
        ({"operation": "upload_file", "corrupt": True, "status": 500}, "and no status"),
        ({"kill_pid": _PID}, "kill_pid goes with either kill_at or kill_after_bytes"),
        ({"kill_pid": _PID, "kill_at": "start", "kill_after_bytes": 1}, "kill_pid goes with either"),
        ({"kill_at": "start", "delay_seconds": 1}, "kill_pid goes with either"),
        ({"kill_after_bytes": 5, "status": 500}, "kill_pid goes with either"),
        ({"kill_pid": _PID, "kill_at": "end"}, "kill_at: "),
        ({"kill_pid": _PID, "kill_after_bytes": 0}, "kill_after_bytes: "),
        ({"kill_pid": 1, "kill_at": "start"}, "kill_pid: "),
        ({"kill_pid": _NO_PID, "kill_at": "start"}, f"process {_NO_PID} cannot be killed: No such process"),
        ({"kill_pid": _PID, "kill_at": "start", "status": 500}, "a status comes after the kill"),
        ({"kill_pid": _PID, "kill_after_bytes": 1, "status": 500}, "a status comes after the kill"),
        ({"kill_pid": _PID, "kill_at": "before_answer", "lose_answer": True}, "the kill ends the request"),
        ({"kill_pid": _PID, "kill_at": "start", "reset_after_bytes": 1}, "the kill ends the request"),
        ([], "should be an object"),
    ],
)
async def test_nonsense_is_refused(http: httpx.AsyncClient, fault, message):
    answer = await http.post("/_sandbox/faults", json=fault)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert (await http.get("/_sandbox/faults")).json() == {"faults": []}


@pytest.mark.parametrize("body", [{"advance_seconds": -1}, {"advance_seconds": "1"}, {"advance": 1}, {}])
async def test_the_clock_goes_only_forward(http: httpx.AsyncClient, body):
    assert (await http.post("/_sandbox/clock", json=body)).status_code == 400
