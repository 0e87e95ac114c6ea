"""Images, audio and files of a message: what they are and where their bytes are."""

from __future__ import annotations

import base64
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import Rejected
from app.formats.openai import AudioPart, FileFacts, FilePart, ImagePart

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w-]+=[^;,]+)*;base64,")
_AUDIO = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_AUDIO_FORMATS = {mime_type: name for name, mime_type in _AUDIO.items()}
# The names under which some types also go.
_SAME_TYPE = {
    "image/jpg": "image/jpeg",
    "audio/mp3": "audio/mpeg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "text/x-markdown": "text/markdown",
    "application/csv": "text/csv",
    "application/xhtml+xml": "text/html",
}
DEFAULT_TEXT_NAME = "document.txt"


@dataclass(frozen=True, slots=True)
class Media:
    """One image, sound or file; exactly one of `file_id` (the provider's), `data` (base64) and `url` (https) is set.

    `where` is its position in the request, for errors.
    """

    where: str
    mime_type: str
    filename: str | None
    file_id: str | None = None
    data: str | None = None
    url: str | None = None

    @property
    def kind(self) -> str:
        """The first half of the type: image, audio, video, text, application."""
        return self.mime_type.partition("/")[0]

    def decoded(self) -> bytes:
        """The bytes behind `data`. Raises Rejected for broken base64."""
        try:
            return base64.b64decode(self.data or "", validate=True)
        except ValueError:
            raise Rejected(f"{self.where}: the data is not valid base64", param=self.where) from None

    def text(self) -> str:
        """The text behind `data`. Raises Rejected when it is none."""
        return decoded_text(self.decoded(), self.where)

    def as_text_file(self) -> str:
        """The text behind `data` in the frame in which a file travels as text. Raises Rejected when it is none."""
        return text_file(self.filename or DEFAULT_TEXT_NAME, self.text())

    def refused(self, reason: str) -> Rejected:
        """The error for media that a provider does not take in this way."""
        return Rejected(f"{self.where}: {reason}", param=self.where, code="unsupported_file_type")


def media_of(part: ImagePart | AudioPart | FilePart, files: Mapping[str, FileFacts], where: str) -> Media:
    """What a part shows. Raises Rejected for an address or data that is no such thing."""
    match part:
        case ImagePart():
            return _image(part, f"{where}.image_url.url")
        case AudioPart():
            audio = part.input_audio
            return Media(f"{where}.input_audio.data", _AUDIO[audio.format], None, data=audio.data)
        case FilePart():
            return _file(part, files, f"{where}.file")


def plain_type(mime_type: str) -> str:
    """A MIME type without parameters, in lower case, under its usual name."""
    bare = mime_type.partition(";")[0].strip().lower()
    return _SAME_TYPE.get(bare, bare)


def text_file(filename: str, text: str) -> str:
    """A file that travels as text: its name and its content, in a text part of its own."""
    return f'<file name="{filename.replace(chr(34), "%22")}">\n{text}\n</file>'


def decoded_text(content: bytes, where: str) -> str:
    """Bytes as text, by their byte order mark or as UTF-8. Raises Rejected."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        reason = f"{where}: the file is to travel as text, but it is not UTF-8 or UTF-16"
        raise Rejected(reason, param=where, code="file_not_text") from None


def _image(part: ImagePart, where: str) -> Media:
    url = part.image_url.url
    if url.startswith("data:"):
        mime_type, data = _data_url(url, where)
        return Media(where, mime_type, None, data=data)
    return Media(where, _type_by_name(part.image_url.format, url) or "image/jpeg", None, url=_web_address(url, where))


def _file(part: FilePart, files: Mapping[str, FileFacts], where: str) -> Media:
    source = part.file
    named = _type_by_name(source.format, source.filename or "")
    if source.file_id is not None:
        facts = files.get(source.file_id)
        mime_type = plain_type(facts.mime_type) if facts else named or _type_by_name(None, source.file_id)
        if mime_type is None:
            # A provider's own id, which nobody here knows.
            reason = f"{where}: the type of this file is not known; add `format`, its MIME type, beside file_id"
            raise Rejected(reason, param=f"{where}.format", code="unknown_file_type")
        filename = facts.filename if facts else source.filename
        return Media(f"{where}.file_id", mime_type, filename, file_id=source.file_id)
    if source.file_url is not None:
        url = _web_address(source.file_url, f"{where}.file_url")
        mime_type = named or _type_by_name(None, url) or "application/pdf"
        return Media(f"{where}.file_url", mime_type, source.filename, url=url)
    data = source.file_data or ""
    mime_type = named or "application/pdf"
    if data.startswith("data:"):
        mime_type, data = _data_url(data, f"{where}.file_data")
    return Media(f"{where}.file_data", mime_type, source.filename, data=data)


def _data_url(url: str, where: str) -> tuple[str, str]:
    head = _DATA_URL.match(url)
    if head is None:
        reason = f"{where}: expected a base64 data URL such as data:application/pdf;base64,…"
        raise Rejected(reason, param=where, code="invalid_data_url")
    return plain_type(head[1] or "text/plain"), url[head.end() :]


def _web_address(url: str, where: str) -> str:
    if not url.startswith(("https://", "http://")):
        # gs:// or s3:// would be read with the gateway's own rights.
        raise Rejected(f"{where}: expected an http(s) address or a base64 data URL", param=where, code="invalid_url")
    return url


def _type_by_name(mime_type: str | None, name: str) -> str | None:
    if mime_type and "/" in mime_type:
        return plain_type(mime_type)
    found = mimetypes.guess_type(name.partition("?")[0])[0]
    return plain_type(found) if found else None


def inline_part(mime_type: str, filename: str, content: bytes) -> dict[str, Any]:
    """The content part, in OpenAI's words, in which a file's bytes travel inside the request."""
    bare = plain_type(mime_type)
    data = base64.b64encode(content).decode()
    if bare.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": f"data:{bare};base64,{data}"}}
    if bare in _AUDIO_FORMATS:
        return {"type": "input_audio", "input_audio": {"data": data, "format": _AUDIO_FORMATS[bare]}}
    return {"type": "file", "file": {"filename": filename, "file_data": f"data:{bare};base64,{data}"}}


def text_part(filename: str, content: bytes, where: str) -> dict[str, Any]:
    """The content part in which a file travels as text. Raises Rejected when its bytes are no text."""
    return {"type": "text", "text": text_file(filename, decoded_text(content, where))}
