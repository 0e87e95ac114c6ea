"""The simulated model: it answers with what it was given, so that a test can tell which bytes arrived."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_CALL = re.compile(r"call:([A-Za-z0-9_-]+)")
# A file that travels as text stands in a text part of its own, in this frame.
_TEXT_FILE = re.compile(r'<file name="([^"]*)">\n(.*)\n</file>', re.DOTALL)


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

    @classmethod
    def in_text(cls, text: str) -> "Attachment | None":
        """Return the file that a text part holds whole, if that is what it is."""
        found = _TEXT_FILE.fullmatch(text)
        return cls.of(found[2].encode(), found[1]) if found else None

    def __str__(self) -> str:
        return f"[file filename={self.filename} bytes={self.size_bytes} sha256={self.sha256}]"


def answer_text(attachments: Sequence[Attachment], text: str) -> str:
    """Return the model's answer: a line per attachment, then the last thing that the user said."""
    return "\n".join([*map(str, attachments), *([text] if text else [])])


def said(texts: Iterable[str]) -> str:
    """Return what a message's text parts say together, without the files that travel as text."""
    return "".join(text for text in texts if Attachment.in_text(text) is None)


def tools_to_call(text: str, tools: Sequence[str], *, required: bool) -> list[str]:
    """Return the tools that the model calls: those that the user's text names as `call:NAME`, each once, if any."""
    named = [*dict.fromkeys(name for name in _CALL.findall(text) if name in tools)]
    return named or [*(tools[:1] if required else ())]


def tokens(text: str) -> list[str]:
    """Return `text` in the pieces in which it is streamed and counted: words with the space around them."""
    return re.findall(r"\s*\S+\s*", text) or ([text] if text else [])
