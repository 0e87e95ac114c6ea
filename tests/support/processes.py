"""The gateway and the sandbox as a user starts them: real processes on real ports."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

from httpx._config import DEFAULT_TIMEOUT_CONFIG

# httpx gives a server up that is silent for 5 s, as one may be whose machine is busy.
DEFAULT_TIMEOUT_CONFIG.connect = DEFAULT_TIMEOUT_CONFIG.read = DEFAULT_TIMEOUT_CONFIG.write = 120.0

OURS = ("FILEMUX_", "DATABASE_URL", "PROMETHEUS_MULTIPROC_DIR", "OPENAI_", "AZURE_")


def clean_environment(**ours):
    """This process's environment without anything that configures filemux, and then `ours`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**kept, **{name: str(value) for name, value in ours.items()}}


class Log(deque):
    """The last lines; they can be walked through while others are added."""

    def __iter__(self):
        return iter([*super().__iter__()])


class Running:
    """A child process: its stdout is read for what it announces, its stderr (the log) kept."""

    def __init__(self, *command, **environment):
        self.process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            env=clean_environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self.log = Log(maxlen=10_000)
        self.said = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def wait_for(self, pattern):
        """The match of the first line on stdout that has the pattern; fails with the log when the process ends."""
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))
            if match := re.search(pattern, line):
                return match
        self.process.wait()
        self._reader.join(60)
        raise AssertionError(f"ended with {self.process.returncode} before saying {pattern}:\n" + "\n".join(self.log))

    def stop(self, number=signal.SIGTERM):
        """Send a signal and wait for the end; the exit status."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
        try:
            status = self.process.wait(120)
        finally:
            self.process.kill()
            self._reader.join(60)
            self.process.stdout.close()
            self.process.stderr.close()
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Gateway(Running):
    """`filemux serve`. `url` ends without a slash."""

    def __init__(self, *arguments, **environment):
        super().__init__("app.cli", "serve", "--port", "0", *arguments, **environment)
        try:
            self.url = self.wait_for(r"filemux listening on (\S+)")[1]
        except BaseException:
            self.stop()
            raise


class SandboxProcess(Running):
    """`python -m app.sandbox`."""

    def __init__(self):
        super().__init__("app.sandbox", "--port", "0")
        self.url = self.wait_for(r"sandbox listening on (\S+)")[1]


def run_cli(*arguments, timeout=180, program=("-m", "app.cli"), **environment):
    """`filemux ARGUMENTS` to its end: a CompletedProcess with text output."""
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        env=clean_environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=Path(__file__).parents[2],
    )


def family(pid):
    """The pids of all descendants."""
    found = []
    # One that ends meanwhile has none.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            found += [child, *family(child)]
    return found


def alive(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def free_port():
    """A port that stays free until it is taken: below those that the kernel gives to connections, and none that another
    process of the tests looks at."""
    for port in range(20_000 + os.getpid() % 1000, 32_000, 1000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("there is no free port")
