"""The body of Anthropic's POST /v1/messages: its shape.

Fields and bounds are those of wire.md §3d and of the types of anthropic 2.11.0, without the tools that run at
Anthropic. What must fit together is in anthropic_rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from app.sandbox.anthropic_blocks import (
    AssistantBlock,
    Block,
    CacheControl,
    Strict,
    TextBlock,
    ToolName,
    UserBlock,
    as_blocks,
)


def _with_letters(sequence: str) -> str:
    if not sequence.strip():
        raise ValueError("each stop sequence must contain non-whitespace")
    return sequence


class UserMessage(Strict):
    """What the user says, with files, after what the tools returned."""

    role: Literal["user"]
    content: Annotated[list[UserBlock], Field(min_length=1), BeforeValidator(as_blocks)]


class AssistantMessage(Strict):
    """What the model said before."""

    role: Literal["assistant"]
    content: Annotated[list[AssistantBlock], Field(min_length=1), BeforeValidator(as_blocks)]


@dataclass(frozen=True)
class Turn:
    """Messages of one role that follow one another: they are combined."""

    role: str
    blocks: Sequence[Block]


class _InputSchema(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    type: Literal["object"]


class Tool(Strict):
    """A tool that the caller runs."""

    type: Literal["custom"] | None = None
    name: ToolName
    description: str | None = None
    input_schema: _InputSchema
    strict: bool | None = None
    cache_control: CacheControl | None = None
    allowed_callers: list[str] | None = None
    defer_loading: bool | None = None
    eager_input_streaming: bool | None = None
    input_examples: list[dict[str, Any]] | None = None


class AnyChoice(Strict):
    """The model may call a tool, or must."""

    type: Literal["auto", "any"]
    disable_parallel_tool_use: bool = False


class NamedChoice(Strict):
    """The model must call this tool."""

    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool = False


class NoChoice(Strict):
    """The model must not call a tool."""

    type: Literal["none"]


class AdaptiveThinking(Strict):
    """The model decides how much to think."""

    type: Literal["adaptive"]
    display: Literal["summarized", "omitted"] | None = None


class EnabledThinking(Strict):
    """The model thinks, within a budget."""

    type: Literal["enabled"]
    budget_tokens: Annotated[int, Field(ge=1024)]
    display: Literal["summarized", "omitted"] | None = None


class NoThinking(Strict):
    """The model does not think before it answers."""

    type: Literal["disabled", "between_tools"]


class _OutputFormat(Strict):
    type: Literal["json_schema"]
    # Its alias is the field's name: BaseModel has a method called schema.
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]


class _OutputConfig(Strict):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: _OutputFormat | None = None


class _Metadata(Strict):
    user_id: str | None = None


class MessagesRequest(Strict):
    """The body."""

    model: str
    messages: Annotated[
        list[Annotated[UserMessage | AssistantMessage, Field(discriminator="role")]],
        Field(min_length=1, max_length=100_000),
    ]
    max_tokens: Annotated[int, Field(ge=0)]

    system: Annotated[list[TextBlock], BeforeValidator(as_blocks)] = Field(default_factory=list)
    stream: bool | None = None
    stop_sequences: list[Annotated[str, AfterValidator(_with_letters)]] = Field(default_factory=list)
    tools: list[Tool] = Field(default_factory=list)
    tool_choice: Annotated[AnyChoice | NamedChoice | NoChoice, Field(discriminator="type")] | None = None
    thinking: Annotated[AdaptiveThinking | EnabledThinking | NoThinking, Field(discriminator="type")] | None = None
    output_config: _OutputConfig | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None

    cache_control: CacheControl | None = None
    container: str | dict[str, Any] | None = None
    diagnostics: dict[str, Any] | None = None
    inference_geo: str | None = None
    metadata: _Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    speed: Literal["standard", "fast"] | None = None

    @cached_property
    def turns(self) -> list[Turn]:
        """The conversation, with messages of one role that follow one another combined."""
        roles = groupby(self.messages, key=lambda message: message.role)
        return [Turn(role, [block for message in messages for block in message.content]) for role, messages in roles]

    @property
    def must_call(self) -> bool:
        """Whether the model has to call a tool."""
        return self.tool_choice is not None and self.tool_choice.type in ("any", "tool")

    @property
    def thinks(self) -> bool:
        """Whether the model thinks before it answers."""
        return isinstance(self.thinking, AdaptiveThinking | EnabledThinking)
