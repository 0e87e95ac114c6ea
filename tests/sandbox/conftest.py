"""The sandbox as a real process on a real port, and the official SDKs pointed at it."""

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest


@dataclass(frozen=True)
class Sandbox:
    base_url: str
    # The parent of its private directory, so that tests see what it leaves on disk.
    temporary: Path

    def blobs(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file()]


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with (
        tempfile.TemporaryDirectory() as temporary,
        subprocess.Popen(
            [sys.executable, "-m", "app.sandbox", "--port", "0", "--die-with-parent"],
            stdout=subprocess.PIPE,
            text=True,
            env={"TMPDIR": temporary},
        ) as process,
    ):
        yield Sandbox(process.stdout.readline().split()[-1], Path(temporary))
        process.terminate()
        assert process.wait(120) == 0
        assert [*Path(temporary).iterdir()] == []


@pytest.fixture(scope="session")
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.base_url) as client:
        yield client


@dataclass(frozen=True)
class Switchboard:
    http: httpx.AsyncClient

    async def fault(self, **fault: object) -> None:
        (await self.http.post("/_sandbox/faults", json=fault)).raise_for_status()

    async def heal(self) -> None:
        (await self.http.delete("/_sandbox/faults")).raise_for_status()

    async def release(self) -> None:
        (await self.http.delete("/_sandbox/delays")).raise_for_status()

    async def advance(self, seconds: int) -> None:
        (await self.http.post("/_sandbox/clock", json={"advance_seconds": seconds})).raise_for_status()

    async def files(self) -> list[dict]:
        return (await self.http.get("/_sandbox/state")).json()["files"]

    async def requests(self) -> dict[str, int]:
        return (await self.http.get("/_sandbox/state")).json()["requests"]

    async def uploads(self) -> int:
        return (await self.http.get("/_sandbox/state")).json()["uploads"]

    async def forget(self) -> None:
        (await self.http.delete("/_sandbox/state")).raise_for_status()


@pytest.fixture(autouse=True)
async def switchboard(http: httpx.AsyncClient) -> Switchboard:
    """A healthy and empty sandbox, before each test."""
    board = Switchboard(http)
    await board.heal()
    await board.forget()
    return board


@pytest.fixture
async def openai_client(sandbox: Sandbox) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{sandbox.base_url}/openai/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="sk-one", max_retries=0) as client:
        yield client


@pytest.fixture
async def azure_client(sandbox: Sandbox) -> AsyncIterator[openai.AsyncAzureOpenAI]:
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=f"{sandbox.base_url}/azure", api_version="2024-10-21", api_key="one", max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def azure_v1_client(sandbox: Sandbox) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{sandbox.base_url}/azure/openai/v1/"
    async with openai.AsyncOpenAI(base_url=url, api_key="one", max_retries=0) as client:
        yield client


@pytest.fixture(params=["openai_client", "azure_client", "azure_v1_client"])
def client(request: pytest.FixtureRequest) -> openai.AsyncOpenAI:
    """Each official client in turn, for what holds at every one of them."""
    return request.getfixturevalue(request.param)
