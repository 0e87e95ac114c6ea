"""Runs a PostgreSQL of our own on a data directory, so that filemux needs no database server.

All of one database lies in one directory, its home: `postgres/` (the cluster), `postgres.lock` (held by the owner),
`postgres.log` and `socket/`. The home is the data directory, unless root must drop to a user who cannot reach it.
"""

import contextlib
import fcntl
import functools
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import platformdirs

from app.db.binaries import (
    SYSTEM_DIR,
    EmbeddedPostgresError,
    Home,
    child_options,
    digest,
    failure,
    find_binaries,
    make_system_dir,
    output_of,
    run_program,
)

_OWNER_WAIT_SECONDS = 5.0  # an owner may be a command such as `filemux sql`, or still be making the database
_STOP_WAIT_SECONDS = 8.0
_SOCKET_PATH_BYTES = 103  # sun_path has 104 bytes on macOS and 108 on Linux, the last one a NUL
_SETTINGS = {
    "listen_addresses": "",  # no TCP: what admits a client is that it can enter the socket's directory
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",  # bounds the disk, and the recovery after a crash
    "dynamic_shared_memory_type": "mmap",  # a container's /dev/shm may be tiny or missing
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "log_checkpoints": "off",  # keeps a healthy server's log short, for it is cut only at a start
}


def default_data_dir() -> Path:
    """Return the data directory of whoever runs us: `/var/lib/filemux` for root, else the platform's user data dir."""
    return SYSTEM_DIR if os.geteuid() == 0 else platformdirs.user_data_path("filemux")


class EmbeddedPostgres:
    """The PostgreSQL server of one data directory: a child process that lives no longer than we do.

    Attributes:
        url: SQLAlchemy's URL of the database, once started.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self.url = ""
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *, wait_seconds: float = 60.0) -> str:
        """Make the database if there is none, start its server and return its URL, `postgresql+asyncpg://…?host=/dir`.

        Args:
            wait_seconds: how long the server may take to be ready: 0.05 s, unless it recovers from a crash.

        Raises:
            EmbeddedPostgresError: another process owns the database, no binaries fit, or the server fails.
            RuntimeError: not called from the main thread; Linux ends the child with the *thread* that forked it.
        """
        return self._start(wait_seconds, attach=False)

    def stop(self) -> None:
        """Shut the server down, which disconnects its clients, and give up the database; harmless when not running."""
        if (process := self._process) is not None:
            _end(process.pid, lambda: process.poll() is not None)
            self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @functools.cached_property
    def _home(self) -> Home:
        return _find_home(self.data_dir)

    def _start(self, wait_seconds: float, *, attach: bool) -> str:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the embedded PostgreSQL ends with the thread that starts it: use the main thread")
        try:
            if not _poll(lambda: self._own() or (attach and self._is_ready()), _OWNER_WAIT_SECONDS):
                owner = (self._home.path / "postgres.lock").read_text().strip()
                raise EmbeddedPostgresError(
                    f"process {owner} already runs the database of {self.data_dir}: serve it with more processes by "
                    "`--workers N`, or name another FILEMUX_DATA_DIR, or a server that many can share in DATABASE_URL"
                )
            if self._lock is not None and self._process is None:
                self._launch(wait_seconds)
        except OSError as error:
            self.stop()
            raise EmbeddedPostgresError(f"cannot run PostgreSQL in {self.data_dir}: {error}") from error
        except BaseException:
            self.stop()
            raise
        return self.url

    def _own(self) -> bool:
        """Try to become the database's one owner; the kernel takes the lock back however we end."""
        if self._lock is None:
            lock = os.open(self._home.path / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return False
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode())
            self._lock = lock
        return True

    def _launch(self, wait_seconds: float) -> None:
        home = self._home
        binaries = find_binaries(home)
        if not home.cluster.exists():
            _create_cluster(home, binaries)
        if home.path != self.data_dir:
            (self.data_dir / "postgres.location").write_text(f"{home.path}\n")
        socket_dir = _make_socket_dir(home)
        _clear_stale_server(home, socket_dir)
        command = [f"{binaries}/postgres", "-D", f"{home.cluster}", "-c", f"unix_socket_directories={socket_dir}"]
        command += [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        log = home.path / "postgres.log"
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            options = child_options(home) | {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            self._process = process = subprocess.Popen(command, **options)  # noqa: S603
        finally:
            os.close(output)
        _poll(lambda: process.poll() is not None or self._is_ready(), wait_seconds)
        if not self._is_ready():
            status = process.poll()
            state = f"not ready after {wait_seconds} s" if status is None else f"ended with status {status}"
            raise failure(f"PostgreSQL in {home.path}: {state}. Its log ends in:", log.read_text(errors="replace"))

    def _is_ready(self) -> bool:
        """Tell whether the database has a server that accepts clients, and note its URL."""
        server = _find_server(self._home.cluster)
        if len(server) < 8 or server[7].strip() != "ready":
            return False
        # The port is named because the environment may hold a PGPORT.
        self.url = f"postgresql+asyncpg://filemux@:5432/filemux?host={server[4]}"
        return True


@contextlib.contextmanager
def attach_or_start(data_dir: Path) -> Iterator[str]:
    """Yield the URL of the database: of the server that another process runs on `data_dir`, else of our own.

    Our own is stopped at the end; the other one may stop whenever its owner likes.

    Raises:
        EmbeddedPostgresError, RuntimeError: as `EmbeddedPostgres.start` does.
    """
    server = EmbeddedPostgres(data_dir)
    try:
        yield server._start(60.0, attach=True)
    finally:
        server.stop()


def _find_home(data_dir: Path) -> Home:
    """Decide where the database of `data_dir` lies and who runs it; once made, it keeps its place and its owner."""
    root = os.geteuid() == 0
    data_dir.mkdir(mode=0o711 if root else 0o700, parents=True, exist_ok=True)
    uid, gid = _unprivileged_user() if root else (os.geteuid(), os.getegid())
    path, location = data_dir, data_dir / "postgres.location"
    if location.exists():
        path = Path(location.read_text().strip())
        if not (path / "postgres").exists():
            raise EmbeddedPostgresError(
                f"the database of {data_dir} was kept in {path}, which is gone: restore it, or remove {location} "
                "to begin with an empty database"
            )
    elif root and not (data_dir / "postgres").exists() and not _may_enter(data_dir, uid, gid):
        path = make_system_dir("clusters", digest(data_dir))
    if root and (path / "postgres").exists():
        owner = (path / "postgres").stat()
        uid, gid = owner.st_uid, owner.st_gid
    return Home(path, uid, gid)


def _unprivileged_user() -> tuple[int, int]:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)[2:4]
    raise EmbeddedPostgresError("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`")


def _may_enter(directory: Path, uid: int, gid: int) -> bool:
    """Tell whether a user who is in no further groups can reach what is in `directory`."""
    for place in (directory, *directory.parents):
        found = place.stat()
        bit = stat.S_IXUSR if found.st_uid == uid else stat.S_IXGRP if found.st_gid == gid else stat.S_IXOTH
        if not found.st_mode & bit:
            return False
    return True


def _make_socket_dir(home: Home) -> Path:
    """Make the directory that admits only the server's user (and root), with a path that suits a socket's address."""
    path = home.path / "socket"
    # PostgreSQL splits the setting at commas, SQLAlchemy a host at commas and colons.
    if len(f"{path}/.s.PGSQL.5432") > _SOCKET_PATH_BYTES or not re.fullmatch(r"[\w./-]+", str(path), re.ASCII):
        path = Path(f"/tmp/filemux-{home.uid}-{digest(home.path)}")  # noqa: S108
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077 or found.st_uid not in {home.uid, os.geteuid()}:
        raise EmbeddedPostgresError(f"{path} is not a directory that only its owner can enter: remove it")
    os.chown(path, home.uid, home.gid, follow_symlinks=False)
    return path


def _create_cluster(home: Home, binaries: Path) -> None:
    """Make the cluster beside its place and move it there when it is done, so that no kill leaves a half-made one."""
    for leftover in home.path.glob("postgres.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="postgres.new-", dir=home.path) as fresh:
        os.chown(fresh, home.uid, home.gid, follow_symlinks=False)
        options = ["-D", f"{fresh}/postgres", "--username=filemux", "--encoding=UTF8", "--locale=C", "--auth=trust"]
        run_program(home, [f"{binaries}/initdb", *options])
        options = ["-D", f"{fresh}/postgres", "-c", "exit_on_error=on", "postgres"]
        run_program(home, [f"{binaries}/postgres", "--single", *options], typed="CREATE DATABASE filemux\n")
        Path(fresh, "postgres").rename(home.cluster)


def _clear_stale_server(home: Home, socket_dir: Path) -> None:
    """Stop the server of an owner who was killed, and remove the files that name its process.

    We hold the lock, so that they are stale; in a new container their pid may be a stranger's, which PostgreSQL would
    take for a running server.
    """
    if server := _find_server(home.cluster):
        _end(int(server[0]), lambda: not _find_server(home.cluster))
    (home.cluster / "postmaster.pid").unlink(missing_ok=True)
    (socket_dir / ".s.PGSQL.5432.lock").unlink(missing_ok=True)


def _find_server(cluster: Path) -> list[str]:
    """Return the lines of postmaster.pid if the process that it names is the cluster's server, else none."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []
    return lines if lines and f"/postgres -D {cluster} " in _command_line(lines[0]) else []


def _command_line(pid: str) -> str:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return os.fsdecode(Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" "))
        return ""
    else:
        return output_of("/bin/ps", "-ww", "-o", "command=", "-p", pid)


def _end(pid: int, ended: Callable[[], bool]) -> None:
    """Stop a server: in order, then in a hurry, then without asking it."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if not ended():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            _poll(ended, _STOP_WAIT_SECONDS)


def _poll(probe: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (answer := probe()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return answer
