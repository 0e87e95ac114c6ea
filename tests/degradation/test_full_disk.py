"""A full disk refuses uploads and breaks nothing else."""

import contextlib
import subprocess

import openai
import pytest

from tests.support.chats import answer_of, ask, file_part, seen
from tests.support.sandbox import eventually
from tests.support.uploads import PDF, upload

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def small_disk(module_dir):
    """A file system of 16 MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", module_dir]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield module_dir
    subprocess.run(["umount", "--lazy", module_dir], check=True)


@contextlib.contextmanager
def full(directory):
    """Not a byte is left until the block ends."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


def is_refused(client, content):
    with pytest.raises(openai.InternalServerError) as failure:
        upload(client, content=content)
    assert (failure.value.status_code, failure.value.body["code"]) == (507, "storage_full")


@pytest.mark.parametrize("workers", [1, 2])
def test_uploads_are_refused_and_all_else_goes_on(small_disk, database_url, gateway_on, clients_of, sandbox, workers):
    with gateway_on(database_url, small_disk, workers=workers) as gateway:
        clients = clients_of(gateway)
        team = clients.new_team()
        member = clients.member(team)
        file = upload(member)
        is_refused(member, bytes(20 * MIB))
        with full(small_disk):
            # One that stays in memory until it is to be kept, and one that goes to the spool.
            is_refused(member, PDF)
            is_refused(member, bytes(2 * MIB))
            for client in (member, *(clients.member(team) for _ in range(10))):
                assert answer_of(ask(client, "mini", file_part(file.id))) == seen("a.pdf", PDF)
            for path in ("/healthz", "/readyz", "/metrics"):
                assert clients.http.get(path).status_code == 200
        assert eventually(lambda: not [*(small_disk / "spool").iterdir()])
        assert upload(member, content=bytes(2 * MIB)).bytes == 2 * MIB
