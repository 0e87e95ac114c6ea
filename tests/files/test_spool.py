"""The spool on disk: where it goes, that nothing of it stays, and what a full disk does."""

import asyncio
import tracemalloc
from pathlib import Path

import pytest

from app.errors import StorageFull
from app.files.spool import MEMORY_BYTES, READ_BYTES, WRITE_BYTES, Abandoned, Spool


async def _all(spool, promised_bytes=None):
    return b"".join([chunk async for chunk in spool.read(promised_bytes)])


def _open_files(directory):
    """The files below a directory that this process holds open, unnamed ones included."""
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            targets.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return [target for target in targets if target.startswith(str(directory))]


async def test_small_files_never_touch_the_disk(tmp_path):
    async with Spool(tmp_path / "missing") as spool:
        await spool.write(b"x" * (MEMORY_BYTES - 1))
        await spool.finish()
        assert await _all(spool) == b"x" * (MEMORY_BYTES - 1)


async def test_large_files_are_private_and_removed_at_the_end(tmp_path):
    async with Spool(tmp_path) as spool:
        await spool.write(b"x" * MEMORY_BYTES)
        [path] = tmp_path.iterdir()
        assert _open_files(tmp_path) == [str(path)]
        assert path.stat().st_mode & 0o777 == 0o600
    assert [*tmp_path.iterdir()] == _open_files(tmp_path) == []


@pytest.mark.parametrize("size_bytes", [1, MEMORY_BYTES - 1, MEMORY_BYTES, MEMORY_BYTES + 1])
async def test_what_is_kept_outlives_the_spool(tmp_path, size_bytes):
    spooled, kept = tmp_path / "spool", tmp_path / "kept" / "folder" / "file"
    spooled.mkdir()
    async with Spool(spooled) as spool:
        await spool.write(b"x" * size_bytes)
        await spool.finish()
        inodes = [path.stat().st_ino for path in spooled.iterdir()]
        await spool.persist(kept)
        assert await _all(spool) == kept.read_bytes() == b"x" * size_bytes
        # What was on the disk already is not written again.
        assert inodes in ([], [kept.stat().st_ino])
    assert kept.read_bytes() == b"x" * size_bytes
    assert kept.stat().st_mode & 0o777 == 0o600
    assert [*spooled.iterdir()] == _open_files(tmp_path) == []


async def test_keeping_waits_for_the_end(tmp_path):
    async with Spool(tmp_path) as spool:
        keeping = asyncio.create_task(spool.persist(tmp_path / "kept"))
        await spool.write(b"x" * MEMORY_BYTES)
        assert not keeping.done()
        await spool.write(b"y")
        await spool.finish()
        await keeping
    assert (tmp_path / "kept").read_bytes() == b"x" * MEMORY_BYTES + b"y"


@pytest.mark.parametrize("size_bytes", [1, MEMORY_BYTES])
async def test_an_abandoned_spool_is_not_kept(tmp_path, size_bytes):
    async with Spool(tmp_path) as spool:
        keeping = asyncio.create_task(spool.persist(tmp_path / "kept"))
        await spool.write(b"x" * size_bytes)
    with pytest.raises(Abandoned):
        await keeping
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("size_bytes", [1, MEMORY_BYTES])
async def test_nothing_goes_on_once_keeping_was_cancelled(tmp_path, size_bytes):
    """Whether the file is there already or not, it does not appear later: it is removed after this."""
    async with Spool(tmp_path) as spool:
        await spool.write(b"x" * size_bytes)
        await spool.finish()
        keeping = asyncio.create_task(spool.persist(tmp_path / "kept"))
        await asyncio.sleep(0)
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping
        there = (tmp_path / "kept").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] * there


async def test_a_reader_follows_the_writer(tmp_path):
    async with Spool(tmp_path) as spool:
        chunks = spool.read(None)
        await spool.write(b"a" * MEMORY_BYTES)
        assert await anext(chunks) == b"a" * READ_BYTES
        await spool.write(b"b")
        await spool.finish()
        rest = b"".join([chunk async for chunk in chunks])
        assert rest == b"a" * (MEMORY_BYTES - READ_BYTES) + b"b"


async def test_the_last_byte_waits_for_the_end(tmp_path):
    async with Spool(tmp_path) as spool:
        chunks = spool.read(MEMORY_BYTES)
        await spool.write(b"x" * MEMORY_BYTES)
        sent = 0
        while sent < MEMORY_BYTES - 1:
            sent += len(await anext(chunks))
        last = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        assert not last.done()
        await spool.finish()
        assert await last == b"x"


async def test_waiting_for_the_end(tmp_path):
    async with Spool(tmp_path) as spool:
        waiting = asyncio.create_task(spool.wait_finished())
        await spool.write(b"x")
        assert not waiting.done()
        await spool.finish()
        await waiting


async def test_leaving_ends_the_readers(tmp_path):
    async with Spool(tmp_path) as spool:
        reading = asyncio.create_task(_all(spool))
        await asyncio.sleep(0)
    with pytest.raises(Abandoned):
        await reading


async def test_memory_stays_flat_while_nobody_reads(tmp_path):
    tracemalloc.start()
    try:
        async with Spool(tmp_path) as spool:
            for _ in range(512):
                await spool.write(bytes(64 * 1024))
            await spool.finish()
            assert spool.size_bytes == 32 * WRITE_BYTES
        assert tracemalloc.get_traced_memory()[1] < 6 * WRITE_BYTES
    finally:
        tracemalloc.stop()


class _OnFullDisk(Spool):
    """Its file is /dev/full, where the kernel itself answers ENOSPC; a full file system needs root."""

    def __init__(self, directory):
        super().__init__(directory)
        self._file = Path("/dev/full").open("r+b")  # noqa: SIM115  closed by the spool


async def _written_and_left(spool, content):
    """Write everything and leave, as an upload does."""
    async with spool:
        await spool.write(content)
        await spool.finish()


@pytest.mark.parametrize("size_bytes", [1, WRITE_BYTES - 1, WRITE_BYTES, WRITE_BYTES + 1])
async def test_a_full_disk_ends_the_upload(tmp_path, size_bytes):
    spool = _OnFullDisk(tmp_path)
    reading = asyncio.create_task(_all(spool))
    with pytest.raises(StorageFull):
        await _written_and_left(spool, b"x" * size_bytes)
    with pytest.raises(Abandoned):
        await reading


class _WithFullDisk(Spool):
    """The same for the file in which what was in memory is to be kept."""

    def _opened(self):
        super()._opened().close()
        return Path("/dev/full").open("r+b")


async def test_a_full_disk_keeps_nothing(tmp_path):
    async with _WithFullDisk(tmp_path) as spool:
        await spool.write(b"x")
        await spool.finish()
        with pytest.raises(StorageFull):
            await spool.persist(tmp_path / "kept")
        assert await _all(spool) == b"x"
    assert [*tmp_path.iterdir()] == []


async def test_a_missing_directory_is_not_a_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError):
        await _written_and_left(Spool(tmp_path / "missing"), b"x" * MEMORY_BYTES)
