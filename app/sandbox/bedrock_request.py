"""The body of Bedrock's Converse and ConverseStream: its shape.

Members and bounds are those of botocore 1.44.5's service model, without the prompts of Prompt management. What must
fit together is in bedrock_rules.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Json, StringConstraints

from app.sandbox.bedrock_blocks import CachePoint, Message, NonEmpty, OneOf, Strict, ToolName


class SystemBlock(OneOf):
    """A piece of the instructions."""

    text: NonEmpty | None = None
    cache_point: CachePoint | None = None


class _InferenceConfig(Strict):
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stop_sequences: Annotated[list[NonEmpty], Field(max_length=2500)] = Field(default_factory=list)


class _InputSchema(OneOf):
    data: Annotated[dict[str, Any] | None, Field(alias="json")] = None


class ToolSpec(Strict):
    """A tool that the caller runs."""

    name: ToolName
    description: NonEmpty | None = None
    input_schema: _InputSchema
    strict: bool | None = None


class _Tool(OneOf):
    tool_spec: ToolSpec | None = None
    cache_point: CachePoint | None = None


class _Empty(Strict):
    pass


class NamedTool(Strict):
    """The tool that the model must call."""

    name: ToolName


class ToolChoice(OneOf):
    """Whether the model may call a tool, must call one, or must call this one."""

    auto: _Empty | None = None
    any: _Empty | None = None
    tool: NamedTool | None = None


class ToolConfig(Strict):
    """The tools."""

    tools: Annotated[list[_Tool], Field(min_length=1)]
    tool_choice: ToolChoice | None = None

    @property
    def specs(self) -> Sequence[ToolSpec]:
        """The tools, without the marks between them."""
        return [tool.tool_spec for tool in self.tools if tool.tool_spec]


class _JsonSchema(Strict):
    # The schema is a string that holds JSON. Its alias is its name: BaseModel has a method called schema.
    definition: Annotated[Json[dict[str, Any]], Field(alias="schema")]
    name: str | None = None
    description: str | None = None


class _FormatStructure(OneOf):
    json_schema: _JsonSchema | None = None


class _TextFormat(Strict):
    type: Literal["json_schema"]
    structure: _FormatStructure


class _OutputConfig(Strict):
    # Which models take these is unverified: AWS lists Claude from 4.5 and open-weight models, here all of them do.
    text_format: _TextFormat | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None


class _Guardrail(Strict):
    guardrail_identifier: str | None = None
    guardrail_version: Annotated[str, StringConstraints(pattern=r"^(|[1-9][0-9]{0,7}|DRAFT)$")] | None = None
    trace: Literal["enabled", "disabled", "enabled_full"] | None = None


class _StreamGuardrail(_Guardrail):
    stream_processing_mode: Literal["sync", "async"] | None = None


class _Performance(Strict):
    latency: Literal["standard", "optimized"] | None = None


class _Tier(Strict):
    type: Literal["priority", "default", "flex", "reserved"]


class _Native(BaseModel):
    """A part of what a model's maker calls its request."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Thinking(_Native):
    """Whether Claude thinks before it answers."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[int, Field(ge=1024)] | None = None


class _NativeToolChoice(_Native):
    type: Literal["auto", "any", "tool"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class ModelFields(_Native):
    """What the models take beyond Converse. Which of them a model takes is in bedrock_catalog."""

    thinking: Thinking | None = None
    tool_choice: _NativeToolChoice | None = None
    anthropic_beta: list[str] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    # Nova's own name for what holds its topK.
    inference_config: Annotated[dict[str, Any] | None, Field(alias="inferenceConfig")] = None


_Pointer = Annotated[str, Field(min_length=1, max_length=256)]
_MetadataKey = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9\s:_@$#=/+,\-.]{1,256}$")]
_MetadataValue = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9\s:_@$#=/+,\-.]{0,256}$")]


class ConverseRequest(Strict):
    """The body of Converse."""

    messages: list[Message] = Field(default_factory=list)
    system: list[SystemBlock] = Field(default_factory=list)
    inference_config: _InferenceConfig = Field(default_factory=_InferenceConfig)
    tool_config: ToolConfig | None = None
    output_config: _OutputConfig = Field(default_factory=_OutputConfig)
    additional_model_request_fields: ModelFields = Field(default_factory=ModelFields)
    additional_model_response_field_paths: Annotated[list[_Pointer] | None, Field(max_length=10)] = None
    guardrail_config: _Guardrail | None = None
    performance_config: _Performance | None = None
    request_metadata: Annotated[dict[_MetadataKey, _MetadataValue] | None, Field(min_length=1, max_length=16)] = None
    service_tier: _Tier | None = None

    @property
    def thinking(self) -> Thinking | None:
        """How the model is to think, if it is to think at all."""
        thinking = self.additional_model_request_fields.thinking
        return thinking if thinking and thinking.type != "disabled" else None

    @property
    def tools(self) -> Sequence[ToolSpec]:
        """The tools that the model may call."""
        return self.tool_config.specs if self.tool_config else ()

    @property
    def tool_choice(self) -> ToolChoice | None:
        """What is said about whether it calls one."""
        return self.tool_config.tool_choice if self.tool_config else None

    @property
    def must_call(self) -> bool:
        """Whether the model has to call a tool."""
        return self.tool_choice is not None and self.tool_choice.auto is None


class ConverseStreamRequest(ConverseRequest):
    """The body of ConverseStream."""

    guardrail_config: _StreamGuardrail | None = None
