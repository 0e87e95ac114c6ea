"""Spool: every reader gets every byte, whatever the interleaving; a promised size is kept or not reached."""

import asyncio
import hashlib
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.files.spool import MEMORY_BYTES, WRITE_BYTES, Abandoned, LengthChanged, Spool

# Around the steps at which bytes go to disk and reads are cut.
SIZES = [0, 1, 1000, 64 * 1024 + 1, 256 * 1024, MEMORY_BYTES - 1, MEMORY_BYTES, WRITE_BYTES + 1]
DATA = random.Random(2).randbytes(8 * WRITE_BYTES)

writes = st.lists(st.tuples(st.sampled_from(SIZES), st.integers(0, 3)), max_size=6)


@dataclass(frozen=True)
class Reader:
    """Reads from the given write on, pausing between two chunks."""

    begins_at: int
    pauses: int
    promised: bool


readers = st.builds(Reader, st.integers(0, 6), st.integers(0, 3), st.booleans())


async def _turns(count):
    """Let the others run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def _received(spool, promised_bytes, pauses):
    """What a reader gets; a promise's last byte must not come before the size is certain."""
    received = bytearray()
    async for chunk in spool.read(promised_bytes):
        received += chunk
        assert promised_bytes is None or len(received) < promised_bytes or spool.finished
        await _turns(pauses)
    return bytes(received)


async def _written(spool, steps, at=lambda step: None):
    """Write the steps, one after the other, and tell `at` each of them; the bytes."""
    size = 0
    for step, (count, pauses) in enumerate(steps):
        at(step)
        await spool.write(DATA[size : size + count])
        size += count
        await _turns(pauses)
    await spool.finish()
    return DATA[:size]


@settings(max_examples=150)
@given(writes, st.lists(readers, min_size=1, max_size=4))
def test_every_reader_gets_every_byte(steps, wanted):
    async def scenario():
        total = sum(count for count, _ in steps)
        with tempfile.TemporaryDirectory() as directory:
            async with Spool(Path(directory)) as spool, asyncio.TaskGroup() as group:
                tasks = []

                def begin(step):
                    for one in (one for one in wanted if one.begins_at == step):
                        promised_bytes = total if one.promised else None
                        tasks.append(group.create_task(_received(spool, promised_bytes, one.pauses)))

                content = await _written(spool, steps, begin)
                for step in range(len(steps), 7):
                    begin(step)
                assert [await task for task in tasks] == [content] * len(wanted)
                assert (spool.size_bytes, spool.sha256) == (total, hashlib.sha256(content).hexdigest())

    asyncio.run(scenario())


@settings(max_examples=150)
@given(writes, st.sampled_from(SIZES[1:]), st.integers(-2, 2), st.integers(0, 6))
def test_a_broken_promise_is_never_fulfilled(steps, other_bytes, off_by, begins_at):
    total = sum(count for count, _ in steps)
    promised_bytes = max(1, total + off_by if off_by else other_bytes)

    async def counted(spool, counts):
        async for chunk in spool.read(promised_bytes):
            counts.append(len(chunk))

    async def scenario():
        with tempfile.TemporaryDirectory() as directory:
            async with Spool(Path(directory)) as spool:
                counts, tasks = [], []

                def begin(step):
                    if step == begins_at:
                        tasks.append(asyncio.create_task(counted(spool, counts)))

                await _written(spool, steps, begin)
                if not tasks:
                    begin(begins_at)
                if promised_bytes == total:
                    await tasks[0]
                    assert sum(counts) == total
                else:
                    with pytest.raises(LengthChanged):
                        await tasks[0]
                    assert sum(counts) < promised_bytes

    asyncio.run(scenario())


@settings(max_examples=100)
@given(writes, st.lists(readers, min_size=1, max_size=4))
def test_abandoning_ends_every_reader(steps, wanted):
    async def scenario():
        with tempfile.TemporaryDirectory() as directory:
            async with Spool(Path(directory)) as spool:
                tasks = []
                for count, pauses in steps:
                    tasks += [asyncio.create_task(_received(spool, None, one.pauses)) for one in wanted]
                    await spool.write(DATA[:count])
                    await _turns(pauses)
                spool.abandon()
                tasks.append(asyncio.create_task(_received(spool, None, 0)))
                ends = await asyncio.gather(*tasks, return_exceptions=True)
                assert {type(end) for end in ends} == {Abandoned}
                with pytest.raises(Abandoned):
                    await spool.wait_finished()

    asyncio.run(scenario())


@settings(max_examples=150)
@given(writes, st.lists(readers, min_size=1, max_size=3), st.integers(0, 6))
def test_what_is_kept_is_what_every_reader_got(steps, wanted, begins_at):
    async def scenario():
        with tempfile.TemporaryDirectory() as directory:
            spooled, kept = Path(directory) / "spool", Path(directory) / "kept" / "file"
            spooled.mkdir()
            async with Spool(spooled) as spool, asyncio.TaskGroup() as group:
                tasks = []

                def begin(step):
                    if step == begins_at:
                        group.create_task(spool.persist(kept))
                    for one in (one for one in wanted if one.begins_at == step):
                        tasks.append(group.create_task(_received(spool, None, one.pauses)))

                content = await _written(spool, steps, begin)
                for step in range(len(steps), 7):
                    begin(step)
                assert [await task for task in tasks] == [content] * len(wanted)
            assert kept.read_bytes() == content
            assert [*spooled.iterdir()] == []

    asyncio.run(scenario())
