"""Batch lines to measure with, and how fast this process translates them, by the very code of the gateway.

Times are of the CPU, threads included: so fast is one core, whatever else the machine is busy with.
"""

import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from app.batches.finish import Results
from app.batches.lines import key_of, number_of
from app.batches.translate import PartInput, Translation
from app.deployments import Account, Deployment
from app.files.batch_input import inspected
from app.files.mappings import FileMapping
from app.files.sources import Sources
from app.files.spool import Spool
from app.formats.batch_lines import BatchResult, Lines
from app.ids import new_batch_id, new_file_id, new_part_id
from app.providers import openai
from app.providers.protocol import Provider
from app.providers.translated import BatchRun, batch_results
from app.settings import SourceOptions
from benchmarks import fake_provider

CHUNK_BYTES = 256 * 1024
# About so many bytes in a line, and so many messages: a system's, then the user's and the assistant's in turns.
MESSAGES = {1_000: 4, 4_000: 6, 32_000: 10}
# The path of an answer at the fake provider, and the line that a provider puts around it.
RESULTS = {
    "openai": (
        b"/chat/completions",
        b'{"id":"r","custom_id":"%b","response":{"status_code":200,"request_id":"r","body":%b},"error":null}',
    ),
    "anthropic": (b"/messages", b'{"custom_id":"%b","result":{"type":"succeeded","message":%b}}'),
    "gemini": (b":generateContent", b'{"key":"%b","response":%b}'),
    "bedrock": (b"/converse", b'{"recordId":"%b","modelOutput":%b}'),
}
WORDS = "Wer würfelt? “Nobody knows”, said the clerk, and wrote it down.\nThen the line went on, word after word. "


def file_of(models: Iterable[str], count: int, line_bytes: int) -> bytes:
    """So many lines, which name the models in turn."""
    names = itertools.cycle(models)
    return b"".join(_line(number, next(names), line_bytes) for number in range(count))


def _line(number: int, model: str, line_bytes: int) -> bytes:
    """A chat as Python's json writes it, a tenth of it instructions, the rest turns of equal length."""
    count = MESSAGES[line_bytes]
    room = (line_bytes - 220 - 40 * count) * 7 // 8
    messages = [{"role": "system", "content": _text(room // 10)}]
    for turn in range(1, count):
        messages.append({"role": ("assistant", "user")[turn % 2], "content": _text(room * 9 // 10 // (count - 1))})
    body = {"model": model, "messages": messages, "temperature": 0.2, "max_tokens": 300}
    request = {"custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(request).encode() + b"\n"


def _text(size: int) -> str:
    return (WORDS * (size // len(WORDS) + 1))[:size]


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]


async def inspection(content: bytes) -> float:
    """Seconds to check a file of purpose `batch`, as its upload does."""
    started = time.process_time()
    await inspected(_chunks(content))
    return time.process_time() - started


async def translation(name: str, provider: Provider, content: bytes) -> float:
    """Seconds from a kept file, whose lines name the model `m`, to a spool that can be sent to the provider."""
    with tempfile.TemporaryDirectory() as directory:
        async with Spool(Path(directory)) as kept, Spool(Path(directory)) as spool:
            sources = Sources(SourceOptions(), Path(directory, "kept"))
            file = await _kept(sources, kept, content)
            deployment = Deployment("m", "gemini-2.0-flash", Account("a", name, provider), provider)
            # A pass over lines without file ids asks the gateway for the file, and for nothing else.
            gateway = SimpleNamespace(sources=sources)
            work = Translation(gateway, None, {"m": PartInput(new_part_id(), deployment, spool)})
            started = time.process_time()
            await work.read(file)
            taken = time.process_time() - started
            if work.errors or not spool.size_bytes:
                raise SystemExit(f"{name}: not translated {work.errors[:1]}")
            return taken


async def _kept(sources: Sources, spool: Spool, content: bytes) -> FileMapping:
    async for chunk in _chunks(content):
        await spool.write(chunk)
    await spool.finish()
    file_id = new_file_id()
    await sources.keep(file_id, spool)
    facts = ("", "lines.jsonl", "application/jsonl", "batch", spool.size_bytes, spool.sha256)
    return FileMapping(file_id, *facts, sources.store, None, {})


def results_of(name: str, part_id: str, count: int, line_bytes: int) -> bytes:
    """What a provider writes for so many requests: texts of about that length, and what they have cost."""
    path, written = RESULTS[name]
    text = json.dumps(_text((line_bytes - 300) * 7 // 8)).encode()
    answer = fake_provider.CHATS[path].partition(b"\r\n\r\n")[2].replace(json.dumps(fake_provider.WORDS).encode(), text)
    return b"".join(written % (key_of(part_id, number).encode(), answer) + b"\n" for number in range(count))


async def results(name: str, provider: Provider, line_bytes: int, count: int) -> tuple[int, float]:
    """How many bytes of a provider's results there are, and the seconds from them to a batch's output in a spool."""
    part_id = new_part_id()
    content = results_of(name, part_id, count, line_bytes)
    with tempfile.TemporaryDirectory() as directory:
        async with Spool(Path(directory)) as output, Spool(Path(directory)) as errors:
            written = Results(new_batch_id(), output, errors)
            missing = {number: f"request-{number}" for number in range(count)}
            started = time.process_time()
            async for some in _read(name, provider, content):
                numbers = [number_of(part_id, one.key) for one in some]
                await written.add([(n, missing.pop(n), one) for n, one in zip(numbers, some, strict=True)])
            await output.finish()
            taken = time.process_time() - started
            if missing or errors.size_bytes:
                raise SystemExit(f"{name}: {len(missing)} results were not read, {errors.size_bytes} bytes are errors")
            return len(content), taken


def _read(name: str, provider: Provider, content: bytes) -> AsyncIterator[list[BatchResult]]:
    if name == "openai":
        return _read_openai(content)
    return batch_results(_chunks(content), partial(provider._result, BatchRun("the-model", 0)))


async def _read_openai(content: bytes) -> AsyncIterator[list[BatchResult]]:
    found = Lines()
    async for chunk in _chunks(content):
        yield await asyncio.to_thread(openai._results_of, found.of(chunk))
