"""How a command sends a file of this machine: as an upload, with a progress bar."""

from __future__ import annotations

import asyncio
import mimetypes
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import wrap_file

from app.access.authenticate import Caller
from app.db.session import Row
from app.files import upload
from app.files.multipart import UNTYPED, FileStart
from app.files.targets import wanted_from
from app.gateway import Gateway

READ_BYTES = 1024 * 1024


async def send_file(gateway: Gateway, caller: Caller, path: Path, purpose: str, targets: Sequence[str]) -> Row:
    """Upload a file to every target; its row."""
    wanted = wanted_from([("purpose", purpose), *(("target_model_names", name) for name in targets)], (), {})
    with path.open("rb") as plain:
        size = os.fstat(plain.fileno()).st_size
        part = FileStart(path.name, mimetypes.guess_type(path.name)[0] or UNTYPED, size)
        with wrap_file(plain, size, description="", console=Console(stderr=True)) as source:
            row, _ = await upload.upload_file(gateway, caller, part, chunks(source), wanted)
    return row


async def chunks(source: BinaryIO) -> AsyncIterator[bytes]:
    """A file's bytes."""
    while chunk := await asyncio.to_thread(source.read, READ_BYTES):
        yield chunk
