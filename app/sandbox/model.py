"""The simulated model: it answers with what it was given, so that a test can tell which bytes arrived."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

_CALL = re.compile(r"call:([A-Za-z0-9_-]+)")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file as the model sees it."""

    filename: str
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, data: bytes, filename: str | None = None) -> "Attachment":
        """Return the attachment for bytes that came with the request itself."""
        return cls(filename or "upload", len(data), hashlib.sha256(data).hexdigest())

    def __str__(self) -> str:
        return f"[file filename={self.filename} bytes={self.size_bytes} sha256={self.sha256}]"


def answer_text(attachments: Sequence[Attachment], text: str) -> str:
    """Return the model's answer: a line per attachment, then the last thing that the user said."""
    return "\n".join([*map(str, attachments), *([text] if text else [])])


def tool_to_call(text: str, tools: Sequence[str], *, required: bool) -> str | None:
    """Return the tool that the model calls: the one that the user's text names as `call:NAME`, if any."""
    named = [name for name in _CALL.findall(text) if name in tools]
    if named:
        return str(named[0])
    return tools[0] if required and tools else None


def tokens(text: str) -> list[str]:
    """Return `text` in the pieces in which it is streamed and counted: words with the space around them."""
    return re.findall(r"\s*\S+\s*", text) or ([text] if text else [])
