"""Every kind of fault, as a client meets it."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from time import monotonic

import httpx
import openai
import pytest

from tests.sandbox.conftest import Sandbox, Switchboard

_OPENAI = {"authorization": "Bearer sk-one"}
# A client of its own process: told to, it uploads so many bytes, says what was answered, and waits to be killed.
_CLIENT = """
import sys, openai
url, size_bytes = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key="sk-one", max_retries=0)
sys.stdin.readline()
print(client.files.create(file=("a.jsonl", bytes(int(size_bytes))), purpose="batch").bytes, flush=True)
sys.stdin.read()
"""
_MESSAGES = [{"role": "user", "content": "a few words to be streamed"}]


async def _create(client: openai.AsyncOpenAI, data: bytes = b"hello"):
    return await client.files.create(file=("a.jsonl", data), purpose="batch")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (413, openai.APIStatusError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
async def test_a_status_is_answered_in_the_providers_shape(client, switchboard: Switchboard, status, error):
    await switchboard.fault(operation="list_files", status=status, retry_after_seconds=7)
    with pytest.raises(error) as failed:
        await client.files.list()
    assert failed.value.status_code == status
    assert failed.value.body["message"]
    assert failed.value.response.headers["retry-after"] == "7"
    await client.files.list()


async def test_a_failed_upload_stores_nothing_whatever_its_size(client, switchboard: Switchboard):
    await switchboard.fault(operation="upload_file", status=500)
    with pytest.raises(openai.InternalServerError):
        await _create(client, bytes(5_000_000))
    assert await switchboard.files() == []
    await _create(client)


async def test_times(openai_client, switchboard: Switchboard):
    await switchboard.fault(operation="list_files", status=500, times=2)
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            await openai_client.files.list()
    await openai_client.files.list()

    await switchboard.fault(operation="list_files", status=503, times=-1)
    await switchboard.fault(operation="list_files", status=429)
    with pytest.raises(openai.RateLimitError):
        await openai_client.files.list()
    for _ in range(3):
        with pytest.raises(openai.InternalServerError):
            await openai_client.files.list()
    await switchboard.heal()
    await openai_client.files.list()
    assert await switchboard.requests() == {"openai.list_files": 8}


async def test_a_fault_meets_only_what_it_names(openai_client, azure_client, switchboard: Switchboard):
    created = await _create(openai_client)
    (file,) = await switchboard.files()
    await switchboard.fault(provider="openai", operation="retrieve_file", account=file["account"], status=500, times=-1)
    await _create(azure_client)
    await openai_client.files.list()
    with pytest.raises(openai.NotFoundError):
        await openai_client.with_options(api_key="sk-two").files.retrieve(created.id)
    with pytest.raises(openai.InternalServerError):
        await openai_client.files.retrieve(created.id)


async def test_a_wildcard_meets_everything(openai_client, azure_client, switchboard: Switchboard):
    await switchboard.fault(provider="*", operation="*", status=500, times=-1)
    for call in (openai_client.files.list, azure_client.models.list):
        with pytest.raises(openai.InternalServerError):
            await call()


async def test_chat_and_stream_chat_are_two_operations(client, switchboard: Switchboard):
    await switchboard.fault(operation="stream_chat", status=500)
    await client.chat.completions.create(model="gpt-4o", messages=_MESSAGES)
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model="gpt-4o", messages=_MESSAGES, stream=True)


@pytest.mark.parametrize("slow", [{"delay_seconds": 600}, {"bytes_per_second": 1}], ids=["delayed", "slow"])
async def test_what_is_held_up_is_let_go_and_the_faults_remain(openai_client, switchboard: Switchboard, slow):
    await switchboard.fault(operation="upload_file", **slow, times=2)
    for _ in range(2):
        creating = asyncio.create_task(_create(openai_client, bytes(200_000)))
        while not (await switchboard.requests()).get("openai.upload_file"):
            assert not creating.done()
        await switchboard.release()
        assert (await creating).bytes == 200_000
        await switchboard.forget()


async def test_an_answer_may_come_late(openai_client, switchboard: Switchboard):
    await switchboard.fault(operation="list_files", delay_seconds=0.2)
    began = monotonic()
    await openai_client.files.list()
    assert monotonic() - began >= 0.2


async def test_nothing_is_done_for_a_client_that_does_not_wait(openai_client, switchboard: Switchboard):
    created = await _create(openai_client)
    await switchboard.fault(operation="delete_file", delay_seconds=0.2)
    with pytest.raises(openai.APITimeoutError):
        await openai_client.with_options(timeout=0.05).files.delete(created.id)
    await switchboard.fault(operation="list_files", delay_seconds=0.3)  # outlasts the first delay
    assert [file.id async for file in openai_client.files.list()] == [created.id]


@pytest.mark.parametrize("after_bytes", [0, 1, 1000, 2_000_000])
async def test_an_upload_is_cut(client, switchboard: Switchboard, after_bytes):
    await switchboard.fault(operation="upload_file", reset_after_bytes=after_bytes)
    with pytest.raises(openai.APIConnectionError):
        await _create(client, bytes(3_000_000))
    assert await switchboard.files() == []
    assert (await _create(client)).bytes == 5


async def test_an_upload_that_is_shorter_than_the_cut_passes(openai_client, switchboard: Switchboard):
    await switchboard.fault(operation="upload_file", reset_after_bytes=1_000_000)
    await _create(openai_client)


@pytest.mark.parametrize("after_bytes", [1, 1000, 2_000_000])
async def test_a_download_is_cut_at_the_byte(
    openai_client, http: httpx.AsyncClient, switchboard: Switchboard, after_bytes
):
    created = await _create(openai_client, bytes(3_000_000))
    await switchboard.fault(operation="read_file", reset_after_bytes=after_bytes)
    received = 0
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):  # noqa: PT012
        async with http.stream("GET", f"/openai/v1/files/{created.id}/content", headers=_OPENAI) as answer:
            async for chunk in answer.aiter_raw():
                received += len(chunk)
    assert received == after_bytes


async def test_a_stream_is_cut(client, switchboard: Switchboard):
    await switchboard.fault(operation="stream_chat", reset_after_bytes=600)
    received = []
    with pytest.raises(openai.APIConnectionError):  # noqa: PT012
        async for chunk in await client.chat.completions.create(model="gpt-4o", messages=_MESSAGES, stream=True):
            received.append(chunk)
    assert received


@pytest.mark.parametrize("operation", ["list_files", "chat", "read_file"])
async def test_an_answer_cut_at_its_first_byte_is_no_answer(openai_client, switchboard: Switchboard, operation):
    created = await _create(openai_client)
    await switchboard.fault(operation=operation, reset_after_bytes=0)
    calls = {
        "list_files": openai_client.files.list,
        "chat": lambda: openai_client.chat.completions.create(model="gpt-4o", messages=_MESSAGES),
        "read_file": lambda: openai_client.files.content(created.id),
    }
    with pytest.raises(openai.APIConnectionError):
        await calls[operation]()


async def test_a_lost_answer_leaves_the_work_done(client, switchboard: Switchboard):
    await switchboard.fault(operation="upload_file", lose_answer=True)
    with pytest.raises(openai.APIConnectionError):
        await _create(client, bytes(3_000_000))
    (file,) = await switchboard.files()
    assert file["bytes"] == 3_000_000

    await switchboard.fault(operation="delete_file", lose_answer=True)
    with pytest.raises(openai.APIConnectionError):
        await client.files.delete(file["id"])
    assert await switchboard.files() == []


async def test_a_lost_stream(openai_client, switchboard: Switchboard):
    await switchboard.fault(operation="stream_chat", lose_answer=True)
    with pytest.raises(openai.APIConnectionError):
        await openai_client.chat.completions.create(model="gpt-4o", messages=_MESSAGES, stream=True)


async def _took(awaitable) -> float:
    began = monotonic()
    await awaitable
    return monotonic() - began


async def test_uploads_are_no_faster_than_the_line(openai_client, switchboard: Switchboard):
    await switchboard.fault(operation="upload_file", bytes_per_second=50_000_000, times=-1)
    uploads = (_create(openai_client, bytes(15_000_000)) for _ in range(2))
    took = await asyncio.gather(*map(_took, uploads))
    assert all(seconds >= 0.3 for seconds in took), took


async def test_downloads_are_no_faster_than_the_line(openai_client, switchboard: Switchboard):
    created = await _create(openai_client, bytes(3_000_000))
    await switchboard.fault(operation="read_file", bytes_per_second=10_000_000)
    assert await _took(openai_client.files.content(created.id)) >= 0.29
    assert (await openai_client.files.content(created.id)).read() == bytes(3_000_000)


async def test_one_failure_can_be_laid_over_a_slow_line(openai_client, switchboard: Switchboard):
    await switchboard.fault(operation="upload_file", bytes_per_second=50_000_000, times=-1)
    await switchboard.fault(operation="upload_file", status=429)
    with pytest.raises(openai.RateLimitError):
        await _create(openai_client)
    assert await _took(_create(openai_client, bytes(5_000_000))) >= 0.1


@pytest.fixture
def doomed(sandbox: Sandbox) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", _CLIENT, f"{sandbox.base_url}/openai/v1", "3000000"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        yield client
        client.kill()


async def _upload_until_killed(client: subprocess.Popen) -> str:
    """Return what the client said before."""
    client.stdin.write("go\n")
    client.stdin.flush()
    assert await asyncio.to_thread(client.wait, 120) == -signal.SIGKILL
    return client.stdout.read()


@pytest.mark.parametrize(
    ("moment", "is_stored"),
    [
        ({"kill_at": "start"}, False),
        ({"kill_after_bytes": 1}, False),
        ({"kill_after_bytes": 2_000_000}, False),
        ({"kill_at": "before_answer"}, True),
        ({"kill_at": "before_answer", "status": 503}, False),
        ({"kill_at": "start", "delay_seconds": 0.1}, False),
    ],
)
async def test_a_client_is_killed_before_it_is_answered(doomed, switchboard: Switchboard, moment, is_stored):
    await switchboard.fault(operation="upload_file", kill_pid=doomed.pid, **moment)
    assert await _upload_until_killed(doomed) == ""
    assert len(await switchboard.files()) == is_stored
    assert await switchboard.requests() == {"openai.upload_file": 1}


async def test_a_client_is_killed_after_it_was_answered(doomed, switchboard: Switchboard):
    await switchboard.fault(operation="upload_file", kill_pid=doomed.pid, kill_at="after_answer")
    assert await _upload_until_killed(doomed) in ("", "3000000\n")  # it may be dead before it has read the answer
    (file,) = await switchboard.files()
    assert file["bytes"] == 3_000_000


@pytest.mark.parametrize("moment", [{"kill_at": "start"}, {"kill_after_bytes": 9}, {"kill_at": "before_answer"}])
async def test_a_kill_ends_the_request_of_who_lives_on(doomed, client, switchboard: Switchboard, moment):
    await switchboard.fault(operation="upload_file", kill_pid=doomed.pid, **moment)
    with pytest.raises(openai.APIConnectionError):
        await _create(client)
    assert await asyncio.to_thread(doomed.wait, 120) == -signal.SIGKILL


async def test_an_answer_is_whole_before_the_kill(doomed, client, switchboard: Switchboard):
    await switchboard.fault(operation="stream_chat", kill_pid=doomed.pid, kill_at="after_answer")
    answer = await client.chat.completions.create(model="gpt-4o", messages=_MESSAGES, stream=True)
    assert [chunk async for chunk in answer][-1].choices[0].finish_reason == "stop"
    assert await asyncio.to_thread(doomed.wait, 120) == -signal.SIGKILL
