"""The blocks of Anthropic's messages: text, files, thinking, calls and their results (wire.md §3c).

Fields are those of the types of anthropic 2.11.0, without the blocks of tools that run at Anthropic.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from app.sandbox.data_urls import decode_base64


class Strict(BaseModel):
    """What Anthropic reads: no unknown key, no value of a neighbouring type."""

    model_config = ConfigDict(extra="forbid", strict=True)


def as_blocks(content: Any) -> Any:
    """Return content with the shorthand for one block of text spelt out."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _as_result(content: Any) -> Any:
    # A tool that has nothing to say says "": the shorthand may be empty, a text block may not.
    return as_blocks(content) if content else []


def _with_words(text: str) -> str:
    # What Anthropic's users report: https://github.com/anthropics/claude-code/issues/23440
    if not text.strip():
        raise ValueError("text content blocks must contain non-whitespace text")
    return text


class CacheControl(Strict):
    """A mark up to which the prompt is cached."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class _Block(Strict):
    cache_control: CacheControl | None = None


class TextBlock(_Block):
    """Text."""

    type: Literal["text"]
    text: Annotated[str, AfterValidator(_with_words)]
    citations: list[Any] | None = None


class FileSource(Strict):
    """A file of the account."""

    type: Literal["file"]
    file_id: str


class UrlSource(Strict):
    """An address, at which nothing is fetched here."""

    type: Literal["url"]
    url: Annotated[str, StringConstraints(pattern=r"^https?://")]


_Base64 = Annotated[bytes, BeforeValidator(decode_base64)]


class InlineImage(Strict):
    """An image's bytes."""

    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: _Base64


class ImageBlock(_Block):
    """An image."""

    type: Literal["image"]
    source: Annotated[FileSource | UrlSource | InlineImage, Field(discriminator="type")]
    transformations: dict[str, Any] | None = None


class InlinePdf(Strict):
    """A PDF's bytes."""

    type: Literal["base64"]
    media_type: Literal["application/pdf"]
    data: _Base64


class InlineText(Strict):
    """A text file's text."""

    type: Literal["text"]
    media_type: Literal["text/plain"]
    data: str


class InlineContent(Strict):
    """A document made of blocks."""

    type: Literal["content"]
    content: Annotated[list[Annotated[TextBlock | ImageBlock, Field(discriminator="type")]], BeforeValidator(as_blocks)]


class _CitationsConfig(Strict):
    enabled: bool = False


class DocumentBlock(_Block):
    """A document."""

    type: Literal["document"]
    source: Annotated[FileSource | UrlSource | InlinePdf | InlineText | InlineContent, Field(discriminator="type")]
    title: str | None = None
    context: str | None = None
    citations: _CitationsConfig | None = None


class ThinkingBlock(Strict):
    """What the model thought before, with its signature."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class RedactedThinkingBlock(Strict):
    """What the model thought before, sealed."""

    type: Literal["redacted_thinking"]
    data: str


_ToolUseId = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]+$")]
ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]


class ToolUseBlock(_Block):
    """A call of a tool."""

    type: Literal["tool_use"]
    id: _ToolUseId
    name: ToolName
    input: dict[str, Any]
    caller: dict[str, Any] | None = None
    toolset_name: str | None = None


_ResultBlock = Annotated[TextBlock | ImageBlock | DocumentBlock, Field(discriminator="type")]


class ToolResultBlock(_Block):
    """What a tool returned."""

    type: Literal["tool_result"]
    tool_use_id: _ToolUseId
    content: Annotated[list[_ResultBlock], BeforeValidator(_as_result)] = Field(default_factory=list)
    is_error: bool = False
    toolset_name: str | None = None


UserBlock = Annotated[TextBlock | ImageBlock | DocumentBlock | ToolResultBlock, Field(discriminator="type")]
AssistantBlock = Annotated[
    TextBlock | DocumentBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock, Field(discriminator="type")
]
Block = TextBlock | ImageBlock | DocumentBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock
