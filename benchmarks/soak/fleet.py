"""The processes: PostgreSQL, the sandbox, a bucket if sources are kept there, and two gateways that can be killed."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from app.db.embedded import EmbeddedPostgres
from app.processes import dies_with_us
from app.sandbox.config import sandbox_configuration
from benchmarks.processes import FOREIGN
from benchmarks.soak import bucket

MASTER_KEY = "sk-master-of-the-soak"
GATEWAYS, TEAMS = 2, 3


@dataclass(frozen=True)
class Team:
    """A team, and the key with which its clients call."""

    name: str
    key: str


class Process:
    """A Python program that says where it listens, started again as often as wanted; its log goes to a file."""

    def __init__(self, log: Path, *arguments: str, **environment: str) -> None:
        self._arguments, self._log = arguments, log
        ours = {name: value for name, value in os.environ.items() if name.lower() not in FOREIGN}
        self._environment = ours | environment
        self.url = ""

    async def start(self) -> None:
        """Return once it listens, each time on a port of its own."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, *self._arguments),
                env=self._environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                preexec_fn=dies_with_us(signal.SIGTERM),
            )
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if match := re.search(rb"listening on (\S+)", line):
                self.url = match[1].decode()
                return
        raise SystemExit(f"{' '.join(self._arguments)} did not start; its log: {self._log}")

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal and wait for the end."""
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self._process.wait()


@dataclass
class Fleet:
    """Everything that runs. Each gateway has a directory of its own, so that one cannot read what the other keeps on
    its disk."""

    postgres: EmbeddedPostgres
    sandbox: Process
    bucket: Process | None
    directories: list[Path]
    gateways: list[Process]
    teams: list[Team]

    def kept_files(self) -> set[str]:
        """The ids of the files whose bytes are kept, on a disk or in the bucket."""
        on_disk = (path.name for one in self.directories for path in one.glob("sources/*/*"))
        return {*on_disk, *(key.rpartition("/")[2] for key in (bucket.keys(self.bucket.url) if self.bucket else ()))}

    def leftovers(self) -> dict[str, int]:
        """What killed gateways could not clear away, and nobody can mistake for a file."""
        spools = sum(1 for directory in self.directories for _ in directory.glob("spool/*"))
        in_parts = bucket.unfinished_uploads(self.bucket.url) if self.bucket else 0
        return {"spool files of killed gateways": spools, "unfinished uploads in the bucket": in_parts}


@asynccontextmanager
async def running(directory: Path, postgres: EmbeddedPostgres, sources: str) -> AsyncIterator[Fleet]:
    """Start everything on a database that is migrated; end it all afterwards."""
    async with AsyncExitStack() as stack:

        async def started(process: Process) -> Process:
            await process.start()
            stack.push_async_callback(process.end)
            return process

        sandbox = await started(Process(directory / "sandbox.log", "-m", "app.sandbox", "--port", "0"))
        moto = None
        if sources == "s3":
            moto = await started(Process(directory / "bucket.log", "-m", "benchmarks.soak.bucket"))
        config = directory / "config.yaml"
        config.write_text(yaml.safe_dump(_configuration(sandbox.url, _sources(sources, moto))))
        directories = [directory / f"gateway-{number}" for number in range(1, GATEWAYS + 1)]
        gateways = await asyncio.gather(*(started(_gateway(one, config, postgres.url)) for one in directories))
        yield Fleet(postgres, sandbox, moto, directories, gateways, await _new_teams(gateways[0].url))


def _gateway(directory: Path, config: Path, database_url: str) -> Process:
    directory.mkdir()
    arguments = ("-m", "app.cli", "serve", "--config", str(config), "--port", "0")
    environment = {"DATABASE_URL": database_url, "FILEMUX_DATA_DIR": str(directory), "FILEMUX_SECRET_KEY": MASTER_KEY}
    return Process(directory / "log", *arguments, **environment, **bucket.CREDENTIALS)


def _sources(store: str, moto: Process | None) -> dict[str, str]:
    if moto is None:
        return {"store": store}
    return {"store": store, "bucket": bucket.NAME, "region": bucket.REGION, "endpoint_url": moto.url}


def _configuration(sandbox_url: str, sources: dict[str, str]) -> dict[str, Any]:
    return {
        **sandbox_configuration(sandbox_url),
        "general_settings": {"master_key": MASTER_KEY},
        "filemux": {"sources": sources},
    }


async def _new_teams(url: str) -> list[Team]:
    teams = []
    async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {MASTER_KEY}"}) as http:
        for name in (f"team {number}" for number in range(1, TEAMS + 1)):
            (await http.post("/admin/teams", json={"name": name})).raise_for_status()
            answer = await http.post("/admin/keys", json={"team": name, "role": "member"})
            teams.append(Team(name, answer.raise_for_status().json()["key"]))
    return teams
