"""Child processes that live no longer than their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here because a forked child must not load anything


def dies_with_us(number: signal.Signals) -> Callable[[], None] | None:
    """A `preexec_fn` by which the kernel sends the child a signal when its parent dies, however it dies.

    Linux only; None elsewhere. The child must be started from the main thread: the signal comes when the *thread* that
    forked ends.
    """
    return partial(_die_with, os.getpid(), number) if sys.platform == "linux" else None


def _die_with(parent: int, number: signal.Signals) -> None:
    # Python calls this after setuid, which would cancel it.
    _LIBC.prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def start_child(command: list[str], number: signal.Signals, **options: Any) -> subprocess.Popen[bytes]:
    """Start a program of ours whose stdout is a pipe to us, and which gets the signal when we die."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=dies_with_us(number), **options)  # noqa: S603, PLW1509


def ended(process: subprocess.Popen[bytes], wait_seconds: float) -> None:
    """End a child in order, or else without asking."""
    process.terminate()
    try:
        process.wait(wait_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
