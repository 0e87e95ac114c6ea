"""The body of OpenAI's POST /chat/completions: what is accepted, and how the rest is refused.

Fields and bounds are those of wire.md §1c, §1d and of the types of openai-python 3.52.0.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from app.sandbox.model import said
from app.sandbox.openai_parts import Part, RefusalPart, Strict, TextPart


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_UserContent = Annotated[list[Part], Field(min_length=1), BeforeValidator(_as_parts)]
_TextContent = Annotated[list[TextPart], Field(min_length=1), BeforeValidator(_as_parts)]
_AssistantPart = Annotated[TextPart | RefusalPart, Field(discriminator="type")]


class _FunctionCall(Strict):
    name: str
    arguments: str
    # The SDK's parsed objects carry it, and its documentation appends them as they are; unverified, but tolerated.
    parsed_arguments: Any = None


class _ToolCall(Strict):
    id: str
    type: Literal["function", "custom"]
    function: _FunctionCall | None = None
    # Left there where the SDK puts a stream together; tolerated as well.
    index: int | None = None
    custom: dict[str, Any] | None = None


class UserMessage(Strict):
    """What the user says, with files."""

    role: Literal["user"]
    content: _UserContent
    name: str | None = None


class InstructionMessage(Strict):
    """What the developer says."""

    role: Literal["system", "developer"]
    content: _TextContent
    name: str | None = None


class AssistantMessage(Strict):
    """What the model said before, as it was answered."""

    role: Literal["assistant"]
    content: Annotated[list[_AssistantPart] | None, BeforeValidator(_as_parts)] = None
    name: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: dict[str, Any] | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _FunctionCall | None = None
    parsed: Any = None


class ToolMessage(Strict):
    """What a tool returned."""

    role: Literal["tool"]
    content: _TextContent
    tool_call_id: str


class FunctionMessage(Strict):
    """What a function returned, in the deprecated form."""

    role: Literal["function"]
    content: Annotated[list[TextPart] | None, BeforeValidator(_as_parts)]
    name: str


Message = Annotated[
    UserMessage | InstructionMessage | AssistantMessage | ToolMessage | FunctionMessage,
    Field(discriminator="role"),
]


class _Function(Strict):
    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Strict):
    """A function that the model may call."""

    type: Literal["function"]
    function: _Function


class CustomTool(Strict):
    """A tool that takes free text."""

    type: Literal["custom"]
    custom: dict[str, Any]


class _ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class _StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: bool = True


_Penalty = Annotated[float, Field(ge=-2, le=2)]
Metadata = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]]


class ChatRequest(Strict):
    """The body."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]

    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    tools: Annotated[
        list[Annotated[FunctionTool | CustomTool, Field(discriminator="type")]] | None, Field(min_length=1)
    ] = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    response_format: _ResponseFormat | None = None

    audio: dict[str, Any] | None = None
    frequency_penalty: _Penalty | None = None
    function_call: Any = None
    functions: list[Any] | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    metadata: Annotated[Metadata | None, Field(max_length=16)] = None
    modalities: list[Literal["text", "audio"]] | None = None
    moderation: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    presence_penalty: _Penalty | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    safety_identifier: str | None = None
    seed: int | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    stop: Annotated[list[str] | None, Field(max_length=4), BeforeValidator(_as_list)] = None
    store: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    user: str | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    web_search_options: dict[str, Any] | None = None

    @field_validator("tool_choice")
    @classmethod
    def _known_choice(cls, choice: Any) -> Any:
        if choice in (None, "none", "auto", "required"):
            return choice
        kind = choice.get("type") if isinstance(choice, dict) else None
        if kind not in ("function", "custom", "allowed_tools") or kind not in choice:
            raise ValueError("expected none, auto, required, or an object that names a tool")
        return choice

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("The 'stream_options' parameter is only allowed when 'stream' is enabled.")
        if self.tool_choice is not None and not self.tools:
            raise ValueError("'tool_choice' is only allowed when 'tools' are specified.")
        return self

    @property
    def last_user_text(self) -> str:
        """The text of the last user message that has any."""
        texts = (_text(message.content) for message in reversed(self.messages) if isinstance(message, UserMessage))
        return next(filter(None, texts), "")

    @property
    def last_results(self) -> list[str]:
        """What the tools returned, if that is what the conversation ends in."""
        answers = takewhile(lambda message: isinstance(message, ToolMessage | FunctionMessage), reversed(self.messages))
        return [_text(message.content) for message in answers][::-1]

    @property
    def callable_tools(self) -> list[str]:
        """The names of the functions that the model may call, the one it must call alone if there is one."""
        if self.tool_choice == "none":
            return []
        names = [tool.function.name for tool in self.tools or [] if isinstance(tool, FunctionTool)]
        if isinstance(self.tool_choice, dict) and self.tool_choice["type"] == "function":
            return [name for name in names if name == self.tool_choice["function"].get("name")]
        return names

    @property
    def must_call(self) -> bool:
        """Whether the model has to call a tool."""
        return self.tool_choice == "required" or (
            isinstance(self.tool_choice, dict) and self.tool_choice["type"] == "function"
        )


def _text(parts: Sequence[Part | RefusalPart] | None) -> str:
    return said(part.text for part in parts or () if isinstance(part, TextPart))
