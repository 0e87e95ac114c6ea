"""Where tests keep what need not outlive them."""

import contextlib
import os
import shutil

MEMORY = "/dev/shm"
# A test's databases take some hundred megabytes.
PLENTY_BYTES = 4 * 1024**3


def quick_place():
    """The parent of a directory whose files cost no disk, if there is plenty of memory for them; else None, the usual
    place: making and removing a PostgreSQL there takes seconds."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(MEMORY).free > PLENTY_BYTES and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
            return MEMORY
    return None
