"""`filemux demo`: the whole story in one run, with real processes, real ports and the official OpenAI SDK."""

from __future__ import annotations

import asyncio
import hashlib
import json
import mimetypes
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
from rich.console import Console
from rich.progress import wrap_file
from rich.table import Table

from app.configuration import with_secrets
from app.db import readonly
from app.db.embedded import attach_or_start
from app.db.session import Database
from app.processes import ended, start_child
from app.providers.protocol import ENDED
from app.sandbox import sample_path
from app.settings import Environment, Settings

# What must be gone is given this long, the worker's retries included.
GONE_SECONDS = 60.0
# A simulated batch runs for three seconds.
BATCH_SECONDS = 120.0
MAPPING_COLUMNS = "model_name, provider, account, provider_file_id, state, bytes"

console = Console()


def run(file: Path | None) -> bool:
    """Show everything; whether every step held."""
    path = file or sample_path()
    with tempfile.TemporaryDirectory(prefix="filemux-demo-") as directory:
        data_dir = Path(directory)
        # The database's own user has to pass through.
        data_dir.chmod(0o711)
        console.rule("filemux demo")
        with _gateway(data_dir) as running, running.client:
            held = _Story(running, path).told()
    console.rule("every step held" if held else "[red]a step failed")
    return held


@dataclass(frozen=True, slots=True)
class _Running:
    """The processes of the demo, as its client sees them."""

    client: openai.OpenAI
    sandbox_url: str
    data_dir: Path


@contextmanager
def _gateway(data_dir: Path) -> Iterator[_Running]:
    """`filemux serve --sandbox` as a user would start it."""
    settings = with_secrets(Settings(data_dir), tell=lambda _: None)
    assert settings.master_key is not None
    ours = set(Environment.model_fields) | {"filemux_sandbox_url"}
    environment = {name: value for name, value in os.environ.items() if name.lower() not in ours}
    command = [sys.executable, "-m", "app.cli", "serve", "--sandbox", "--port", "0"]
    with (data_dir / "log").open("wb") as log:
        process = start_child(
            command, signal.SIGTERM, env={**environment, "FILEMUX_DATA_DIR": str(data_dir)}, stderr=log
        )
    try:
        assert process.stdout is not None
        said = b""
        while b"filemux listening" not in said:
            line = process.stdout.readline()
            if not line:
                console.print((data_dir / "log").read_text(errors="replace"), style="red")
                raise SystemExit("the gateway did not start")
            said += line
        sandbox_url, gateway_url = re.findall(r"listening on (\S+)", said.decode())
        console.print(f"gateway {gateway_url}, sandbox {sandbox_url}, embedded PostgreSQL in {data_dir}")
        client = openai.OpenAI(base_url=f"{gateway_url}/v1", api_key=settings.master_key.get_secret_value())
        yield _Running(client, sandbox_url, data_dir)
    finally:
        ended(process, 15)


class _Story:
    """Upload, chat with each model, ask all of them in a batch, look at the rows, delete, look at the providers."""

    def __init__(self, running: _Running, path: Path) -> None:
        self._running, self._path = running, path
        self._client = running.client
        self._sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    def told(self) -> bool:
        names = [model.id for model in self._client.models.list()]
        console.print(f"model names: {', '.join(names)}")
        file_id = self._step("upload once", lambda: self._upload(names))
        if file_id is None:
            return False
        steps: list[tuple[str, Callable[[], Any]]] = [
            (f"chat with {name}{' (streamed)' if index == 0 else ''}", self._chat(name, file_id, stream=index == 0))
            for index, name in enumerate(names)
        ]
        steps += [
            ("one batch for all of them", lambda: self._batch(names, file_id)),
            ("one row per model name in file_mappings", lambda: self._rows(file_id, len(names))),
            ("delete", lambda: self._client.files.delete(file_id).deleted),
            ("the id is unknown now", lambda: self._unknown(file_id)),
            ("no provider holds anything", self._nothing_left),
        ]
        # A list, so that each step is shown even after one has failed.
        return all([self._step(name, step) for name, step in steps])  # noqa: C419

    def _step(self, name: str, step: Callable[[], Any]) -> Any:
        try:
            result = step()
        except openai.OpenAIError as failure:
            console.print(f"[red]✗[/red] {name}: {failure}")
            return None
        console.print(f"{'[green]✓[/green]' if result else '[red]✗[/red]'} {name}")
        return result

    def _upload(self, names: list[str]) -> str:
        mime_type = mimetypes.guess_type(self._path.name)[0] or "application/octet-stream"
        with (
            self._path.open("rb") as file,
            wrap_file(file, self._path.stat().st_size, description=self._path.name, console=console) as reader,
        ):
            uploaded = self._client.files.create(
                file=(self._path.name, reader, mime_type),
                purpose="user_data",
                extra_body={"target_model_names": ",".join(names)},
            )
        console.print(f"  {uploaded.id}  {uploaded.bytes} bytes")
        return uploaded.id

    def _chat(self, name: str, file_id: str, *, stream: bool) -> Callable[[], bool]:
        def chat() -> bool:
            arguments: Any = _question(name, file_id)
            if stream:
                chunks = self._client.chat.completions.create(**arguments, stream=True)
                answer = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            else:
                answer = self._client.chat.completions.create(**arguments).choices[0].message.content or ""
            console.print(f"  {answer.splitlines()[0]}", markup=False, highlight=False)
            return f"sha256={self._sha256}" in answer

        return chat

    def _batch(self, names: list[str], file_id: str) -> bool:
        endpoint: Any = "/v1/chat/completions"
        lines = [
            {"custom_id": name, "method": "POST", "url": endpoint, "body": _question(name, file_id)} for name in names
        ]
        content = "\n".join(map(json.dumps, lines)).encode()
        targets = {"target_model_names": ",".join(names)}
        file = self._client.files.create(file=("lines.jsonl", content), purpose="batch", extra_body=targets)
        batch = self._client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
        deadline = time.monotonic() + BATCH_SECONDS
        while batch.status not in ENDED and time.monotonic() < deadline:
            time.sleep(0.2)
            batch = self._client.batches.retrieve(batch.id)
        self._client.files.delete(file.id)
        answers = self._client.files.content(batch.output_file_id).text.splitlines() if batch.output_file_id else []
        console.print(f"  {batch.id}  {batch.status}, {len(answers)} answers")
        return len(answers) == len(names) and all(f"sha256={self._sha256}" in answer for answer in answers)

    def _rows(self, file_id: str, expected: int) -> bool:
        statement = f"SELECT {MAPPING_COLUMNS} FROM file_mappings WHERE file_id = '{file_id}' ORDER BY model_name"  # noqa: S608
        columns, rows = asyncio.run(_selected(self._running.data_dir, statement))
        table = Table(*columns)
        for row in rows:
            table.add_row(*map(str, row))
        console.print(table)
        return len(rows) == expected and all(row[columns.index("state")] == "stored" for row in rows)

    def _unknown(self, file_id: str) -> bool:
        try:
            self._client.files.retrieve(file_id)
        except openai.NotFoundError:
            return True
        return False

    def _nothing_left(self) -> bool:
        deadline = time.monotonic() + GONE_SECONDS
        while True:
            state = httpx.get(f"{self._running.sandbox_url}/_sandbox/state").raise_for_status().json()
            if not state["files"] or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        table = Table("call", "times")
        for call, times in sorted(state["requests"].items()):
            table.add_row(call, str(times))
        console.print(table)
        return not state["files"]


def _question(model: str, file_id: str) -> dict[str, Any]:
    """A chat about the file."""
    parts = [
        {"type": "file", "file": {"file_id": file_id}},
        {"type": "text", "text": "What is in this file?"},
    ]
    return {"model": model, "messages": [{"role": "user", "content": parts}]}


async def _selected(data_dir: Path, statement: str) -> tuple[list[str], list[list[Any]]]:
    with attach_or_start(data_dir) as url:
        database = Database(url)
        try:
            return await readonly.select(database, statement)
        finally:
            await database.close()
