"""The messages of Bedrock's Converse, and the blocks that they are made of (wire.md §6c).

Members and bounds are those of botocore 1.44.5's service model, without tools that run at Bedrock or come and go
during the conversation, search results, citations in the history and content for guardrails.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from app.sandbox.data_urls import decode_base64


class Strict(BaseModel):
    """What Bedrock reads: no unknown member, no value of a neighbouring type."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class OneOf(Strict):
    """A union: exactly one of its members is set."""

    @model_validator(mode="after")
    def _has_one_member(self) -> Self:
        if sum(value is not None for _, value in self) != 1:
            members = ", ".join(str(field.alias) for field in type(self).model_fields.values())
            raise ValueError(f"must set one of the following keys: {members}")
        return self

    @property
    def member(self) -> str:
        """The name of the member that is set."""
        return next(str(type(self).model_fields[name].alias) for name, value in self if value is not None)


NonEmpty = Annotated[str, Field(min_length=1)]
_Blob = Annotated[bytes, Field(min_length=1), BeforeValidator(decode_base64)]
_ToolUseId = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.:-]{1,64}$")]
ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class S3Location(Strict):
    """An object in a bucket."""

    uri: Annotated[str, StringConstraints(pattern=r"^s3://[a-z0-9][.\-a-z0-9]{1,61}[a-z0-9](/.*)?$", max_length=1024)]
    bucket_owner: Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")] | None = None


class _Source(OneOf):
    data: Annotated[_Blob | None, Field(alias="bytes")] = None
    s3_location: S3Location | None = None


class _TextContent(OneOf):
    text: str | None = None


class _DocumentSource(_Source):
    text: str | None = None
    content: list[_TextContent] | None = None

    @property
    def written(self) -> str | None:
        """The document's text, if it comes as text."""
        if self.content is not None:
            return "".join(part.text or "" for part in self.content)
        return self.text


class _Citations(Strict):
    enabled: bool


class ImageBlock(Strict):
    """An image."""

    format: Literal["png", "jpeg", "gif", "webp"]
    source: _Source


class DocumentBlock(Strict):
    """A document."""

    format: Literal["pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"] | None = None
    name: Annotated[str, Field(min_length=1, max_length=200)]
    source: _DocumentSource
    context: str | None = None
    citations: _Citations | None = None


class VideoBlock(Strict):
    """A film."""

    format: Literal["mkv", "mov", "mp4", "webm", "flv", "mpeg", "mpg", "wmv", "three_gp"]
    source: _Source


class AudioBlock(Strict):
    """Sound."""

    # fmt: off
    format: Literal[
        "mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "mkv", "mka", "x-aac", "m4a", "mpeg", "mpga", "pcm", "webm"
    ]
    # fmt: on
    source: _Source


Media = ImageBlock | DocumentBlock | VideoBlock | AudioBlock


class ResultBlock(OneOf):
    """A piece of what a tool returned."""

    text: str | None = None
    # Its alias is its name: BaseModel has a method called json.
    data: Annotated[dict[str, Any] | None, Field(alias="json")] = None
    image: ImageBlock | None = None
    document: DocumentBlock | None = None
    video: VideoBlock | None = None

    @property
    def media(self) -> Media | None:
        """The file, if it is one."""
        return self.image or self.document or self.video


class ToolUse(Strict):
    """A call of a tool."""

    tool_use_id: _ToolUseId
    name: ToolName
    input: dict[str, Any]


class ToolResult(Strict):
    """What a tool returned."""

    tool_use_id: _ToolUseId
    content: list[ResultBlock]
    status: Literal["success", "error"] | None = None


class CachePoint(Strict):
    """A mark up to which the prompt is cached."""

    type: Literal["default"]
    ttl: Literal["5m", "1h"] | None = None


class ReasoningText(Strict):
    """What the model thought before, with its signature."""

    text: str
    signature: str | None = None


class ReasoningContent(OneOf):
    """What the model thought before, shown or sealed."""

    reasoning_text: ReasoningText | None = None
    redacted_content: str | None = None


class ContentBlock(OneOf):
    """A piece of a message."""

    text: str | None = None
    image: ImageBlock | None = None
    document: DocumentBlock | None = None
    video: VideoBlock | None = None
    audio: AudioBlock | None = None
    tool_use: ToolUse | None = None
    tool_result: ToolResult | None = None
    cache_point: CachePoint | None = None
    reasoning_content: ReasoningContent | None = None

    @property
    def media(self) -> Media | None:
        """The file, if it is one."""
        return self.image or self.document or self.video or self.audio


class Message(Strict):
    """What the user or the model said, or an instruction in between."""

    role: Literal["user", "assistant", "system"]
    content: list[ContentBlock]

    @property
    def texts(self) -> list[str]:
        """The text blocks."""
        return [block.text for block in self.content if block.text is not None]

    @property
    def calls(self) -> list[str]:
        """The ids of the calls in it."""
        return [block.tool_use.tool_use_id for block in self.content if block.tool_use]

    @property
    def results(self) -> list[ToolResult]:
        """What tools returned."""
        return [block.tool_result for block in self.content if block.tool_result]

    def pieces(self) -> Iterator[ContentBlock | ResultBlock]:
        """Yield its blocks in order, and in place of a tool's result the blocks of that."""
        for block in self.content:
            if block.tool_result:
                yield from block.tool_result.content
            else:
                yield block
