"""The load. Each client also runs straight against the fake provider, so that its own cost is in the table."""

import asyncio
import http.client
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from benchmarks.processes import MASTER_KEY

AUTHORIZATION = f"Bearer {MASTER_KEY}"
BOUNDARY = "benchmark-of-filemux"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
BLOCK = bytes(range(250)) * 4000  # 1 MB


def wrk(
    url: str, body: bytes, *, clients: int, seconds: int, content_type: str = "application/json"
) -> dict[str, float]:
    """POST the body over and over: requests a second, p50 and p99. Every answer must be a success."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    headers = ["-H", f"Authorization: {AUTHORIZATION}", "-H", f"Content-Type: {content_type}"]
    script = str(Path(__file__).with_name("post.lua"))
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s", *headers, "-s", script, url, "--"]
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        output = subprocess.run([*command, file.name], check=True, capture_output=True, text=True).stdout
    figures = json.loads(output.splitlines()[-1])
    if errors := figures.pop("errors"):
        raise SystemExit(f"{url}: {errors} requests failed")
    return figures


def form(targets: Iterable[str]) -> tuple[bytes, bytes]:
    """What stands before and after the file's bytes."""
    fields = {"purpose": "user_data"} | ({"target_model_names": names} if (names := ",".join(targets)) else {})
    disposition = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
    before = "".join(f'{disposition}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    before += f'{disposition}"file"; filename="a.pdf"\r\nContent-Type: application/pdf\r\n\r\n'
    return before.encode(), f"\r\n--{BOUNDARY}--\r\n".encode()


def upload(url: str, size_bytes: int, targets: Iterable[str] = (), *, chunked: bool = False) -> tuple[str, float]:
    """Stream a file from memory: its id and the seconds that it took. `chunked` does not tell its size first."""
    before, after = form(targets)

    def body() -> Iterator[bytes]:
        yield before
        for start in range(0, size_bytes, len(BLOCK)):
            yield BLOCK[: size_bytes - start]
        yield after

    headers = {"authorization": AUTHORIZATION, "content-type": FORM}
    if not chunked:
        headers["content-length"] = str(len(before) + size_bytes + len(after))
    base = urlsplit(url)
    with closing(http.client.HTTPConnection(base.netloc)) as connection:
        started = time.perf_counter()
        connection.request("POST", f"{base.path}/files", body(), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        seconds = time.perf_counter() - started
    if response.status != 200 or answer["bytes"] != size_bytes:
        raise SystemExit(f"{url}: an upload was answered {response.status} {answer}")
    return answer["id"], seconds


def streams(url: str, body: bytes, clients: int, rounds: int, *, spread_seconds: float, events: int) -> list[float]:
    """The seconds that each streamed chat took; the clients begin evenly spread over a time."""
    base = urlsplit(url)
    head = (
        f"POST {base.path}/chat/completions HTTP/1.1\r\nHost: {base.netloc}\r\nAuthorization: {AUTHORIZATION}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    async def client(delay: float) -> list[float]:
        await asyncio.sleep(delay)
        reader, writer = await asyncio.open_connection(base.hostname, base.port)
        taken = []
        with closing(writer):
            for _ in range(rounds):
                started = time.perf_counter()
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n0\r\n\r\n")
                taken.append(time.perf_counter() - started)
                if answer.count(b"data: ") != events + 1:
                    raise SystemExit(f"{url}: a stream was answered {answer[:500]!r}")
        return taken

    async def all_clients() -> list[float]:
        every = await asyncio.gather(*(client(spread_seconds * number / clients) for number in range(clients)))
        return [seconds for taken in every for seconds in taken]

    return uvloop.run(all_clients())
