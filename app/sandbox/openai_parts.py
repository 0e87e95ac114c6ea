"""The parts of a message's content in OpenAI's chat: text, images, sound, files (wire.md §1c).

Fields are those of the types of openai-python 3.52.0.
"""

import mimetypes
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from app.sandbox.data_urls import decode_base64, decode_data_url, decode_image_url

NO_PDF = "expected a PDF file"


class Strict(BaseModel):
    """What OpenAI reads: no unknown key, no value of a neighbouring type."""

    model_config = ConfigDict(extra="forbid", strict=True)


def may_be_pdf(mime_type: str | None, filename: str | None) -> bool:
    """Return whether neither tells of another type: a `file` part takes nothing but PDF (wire.md §0.1, fact 5).

    How OpenAI tells the type, and its answer to another one, is unverified.
    """
    declared = (mime_type or "").partition(";")[0].strip().lower() or None
    return {declared, mimetypes.guess_type(filename or "")[0]} <= {None, "application/octet-stream", "application/pdf"}


class _Part(Strict):
    prompt_cache_breakpoint: dict[str, Any] | None = None


class TextPart(_Part):
    """Text."""

    type: Literal["text"]
    text: str


class RefusalPart(Strict):
    """An assistant's earlier refusal."""

    type: Literal["refusal"]
    refusal: str


class _Image(Strict):
    # Decoded when it came as a data URL; chat takes no file_id for images (wire.md §1c).
    url: Annotated[str | bytes, BeforeValidator(decode_image_url)]
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(_Part):
    """An image, by its address or as a data URL."""

    type: Literal["image_url"]
    image_url: _Image


class _Audio(Strict):
    data: Annotated[bytes, BeforeValidator(decode_base64)]
    format: Literal["wav", "mp3"]


class AudioPart(_Part):
    """Sound, inline."""

    type: Literal["input_audio"]
    input_audio: _Audio


def _decode_pdf(value: Any) -> Any:
    content = decode_data_url(value)
    if isinstance(value, str) and not may_be_pdf(value.removeprefix("data:").partition(",")[0], None):
        raise ValueError(NO_PDF)
    return content


class _FileInput(Strict):
    file_id: str | None = None
    file_data: Annotated[bytes | None, BeforeValidator(_decode_pdf)] = None
    filename: str | None = None

    @field_validator("filename")
    @classmethod
    def _not_named_otherwise(cls, value: str | None) -> str | None:
        if not may_be_pdf(None, value):
            raise ValueError(NO_PDF)
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.file_id is None) == (self.file_data is None):
            raise ValueError("expected exactly one of file_id and file_data")
        return self


class FilePart(_Part):
    """A PDF, by its id or inline."""

    type: Literal["file"]
    file: _FileInput


Part = Annotated[TextPart | ImagePart | AudioPart | FilePart, Field(discriminator="type")]
