"""SIGTERM: what runs is finished within the grace period, nothing new is taken, and what is cut off is taken back."""

import asyncio
import concurrent.futures
import contextlib
import signal
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import MASTER_KEY, Clients
from tests.support.chats import ask, streamed_answer, text_part
from tests.support.rest import Traces
from tests.support.sandbox import eventually
from tests.support.uploads import PDF

HEADERS = {"authorization": f"Bearer {MASTER_KEY}"}
# Streamed word by word.
LONG = " ".join(["hello"] * 300)
each_number_of_workers = pytest.mark.parametrize("workers", [1, 2])


@contextlib.contextmanager
def in_background():
    """A pool of threads for requests that take their time."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        yield pool


def refuses_connections(gateway):
    parts = urlsplit(gateway.url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()
    except ConnectionError:
        return True
    return False


def post_file(gateway, content, name):
    """An upload's whole answer; None when its connection was cut."""
    form = {"purpose": "user_data", "target_model_names": "mini,azure"}
    with contextlib.suppress(httpx.TransportError):
        return httpx.post(
            f"{gateway.url}/v1/files", data=form, files={"file": (name, content)}, headers=HEADERS, timeout=60
        )


@each_number_of_workers
def test_uploads_and_streams_are_finished_and_nothing_new_is_taken(make_gateway, sandbox, workers):
    sandbox.fault("openai", "upload_file", delay_seconds=600)
    sandbox.fault("openai", "stream_chat", bytes_per_second=400)
    with (
        make_gateway(filemux={"drain_seconds": 600}, workers=workers) as gateway,
        contextlib.closing(Clients(gateway.url)) as clients,
        in_background() as pool,
    ):
        uploading = pool.submit(post_file, gateway, bytes(1_500_000), "drained.bin")
        stream = ask(clients.admin, "mini", text_part(LONG), stream=True)
        assert eventually(lambda: sandbox.calls("openai.upload_file"))
        gateway.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: refuses_connections(gateway))
        assert not uploading.done()
        sandbox.release()
        assert streamed_answer(stream) == LONG
        answer = uploading.result()
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert gateway.process.wait(120) == 0
    assert sorted(file["provider"] for file in sandbox.files) == ["azure", "openai"]


@pytest.fixture
def taken_back(gateway, database, rows, sandbox):
    """Whether nothing is left at the providers, once the shared gateway's worker is done with a file."""

    async def taken_back(name):
        traces = Traces(database, sandbox, name, b"")
        await traces.end_leases()
        async with asyncio.timeout(120):
            while await rows.backlog(name):
                await traces.end_waits()
                await asyncio.sleep(0.02)
        return not sandbox.files

    return taken_back


@each_number_of_workers
async def test_a_second_signal_cuts_off_what_runs(make_gateway, sandbox, taken_back, workers):
    sandbox.fault("openai", "upload_file", delay_seconds=600)
    with make_gateway(filemux={"drain_seconds": 600}, workers=workers) as gateway, in_background() as pool:
        uploading = pool.submit(post_file, gateway, PDF, f"urgent {workers}.pdf")
        assert eventually(lambda: sandbox.files)
        gateway.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: refuses_connections(gateway))
        assert gateway.process.poll() is None
        assert gateway.stop(signal.SIGTERM) == 0
        assert uploading.result().status_code == 503
        assert not any("Traceback" in line for line in gateway.log)
    assert await taken_back(f"urgent {workers}.pdf")


async def test_the_grace_period_ends(make_gateway, sandbox, taken_back):
    name = "too slow.bin"
    sandbox.fault("openai", "upload_file", bytes_per_second=1000, times=1)
    with make_gateway(filemux={"drain_seconds": 1}, workers=2) as gateway, in_background() as pool:
        uploading = pool.submit(post_file, gateway, bytes(8_000_000), name)
        assert eventually(lambda: sandbox.files)
        started = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - started > 1
        answer = uploading.result()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"]["message"] == "the gateway is being stopped"
        assert not any("Traceback" in line for line in gateway.log)
    assert await taken_back(name)
