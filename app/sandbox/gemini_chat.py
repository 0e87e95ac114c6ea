"""The body of generateContent, at Gemini and at Vertex: what is accepted, and how the rest is refused.

Fields are those of google-genai 3.4.0 (wire.md §4d, §5d); enums come in any case.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StrictBool, StringConstraints, model_validator

from app.sandbox.gemini_contents import Content, Message


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


_Upper = BeforeValidator(_upper)
_Penalty = Annotated[float, Field(ge=-2, le=2)]
_FunctionName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}$")]


class _TextPart(Message):
    text: str


class _Instruction(Message):
    role: str | None = None
    parts: Annotated[list[_TextPart], Field(min_length=1)]


class Schema(Message):
    """The part of OpenAPI's schema that Google knows."""

    type: Annotated[
        Literal["TYPE_UNSPECIFIED", "STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"] | None, _Upper
    ] = None
    items: "Schema | None" = None
    properties: "dict[str, Schema] | None" = None
    any_of: "list[Schema] | None" = None
    enum: list[str] | None = None
    required: list[str] | None = None
    property_ordering: list[str] | None = None
    nullable: StrictBool | None = None
    format: str | None = None
    title: str | None = None
    description: str | None = None
    pattern: str | None = None
    default: Any = None
    example: Any = None
    additional_properties: Any = None
    minimum: float | None = None
    maximum: float | None = None
    min_items: int | None = None
    max_items: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    min_properties: int | None = None
    max_properties: int | None = None


class _FunctionDeclaration(Message):
    name: _FunctionName
    description: str | None = None
    parameters: Schema | None = None
    parameters_json_schema: dict[str, Any] | None = None
    response: Schema | None = None
    response_json_schema: dict[str, Any] | None = None
    behavior: str | None = None

    @model_validator(mode="after")
    def _one_schema(self) -> Self:
        if self.parameters is not None and self.parameters_json_schema is not None:
            raise ValueError("parameters and parameters_json_schema are mutually exclusive")
        return self


class _Tool(Message):
    function_declarations: tuple[_FunctionDeclaration, ...] = ()
    google_search: dict[str, Any] | None = None
    google_search_retrieval: dict[str, Any] | None = None
    google_maps: dict[str, Any] | None = None
    code_execution: dict[str, Any] | None = None
    url_context: dict[str, Any] | None = None
    computer_use: dict[str, Any] | None = None
    file_search: dict[str, Any] | None = None


class _FunctionCallingConfig(Message):
    mode: Annotated[Literal["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"], _Upper] = "AUTO"
    allowed_function_names: tuple[str, ...] = ()


class _ToolConfig(Message):
    function_calling_config: _FunctionCallingConfig = _FunctionCallingConfig()
    retrieval_config: dict[str, Any] | None = None
    include_server_side_tool_invocations: StrictBool | None = None


class ThinkingConfig(Message):
    """How much the model thinks, and whether it tells."""

    include_thoughts: StrictBool = False
    thinking_budget: int | None = None
    thinking_level: Annotated[Literal["MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"] | None, _Upper] = None


class GenerationConfig(Message):
    """How the model answers."""

    candidate_count: Annotated[int, Field(ge=1, le=8)] = 1
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    stop_sequences: Annotated[tuple[str, ...], Field(max_length=5)] = ()
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    response_mime_type: Literal["text/plain", "application/json", "text/x.enum"] = "text/plain"
    response_schema: Schema | None = None
    response_json_schema: dict[str, Any] | None = None
    response_logprobs: StrictBool = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    thinking_config: ThinkingConfig = ThinkingConfig()
    response_modalities: tuple[Annotated[Literal["TEXT"], _Upper], ...] = ()
    media_resolution: Annotated[str, StringConstraints(pattern="^MEDIA_RESOLUTION_")] | None = None
    speech_config: dict[str, Any] | None = None
    image_config: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        schemas = [schema for schema in (self.response_schema, self.response_json_schema) if schema is not None]
        if len(schemas) > 1:
            raise ValueError("response_schema and response_json_schema are mutually exclusive")
        if schemas and self.response_mime_type == "text/plain":
            raise ValueError("a response schema needs response_mime_type application/json or text/x.enum")
        if self.logprobs is not None and not self.response_logprobs:
            raise ValueError("logprobs needs response_logprobs")
        return self


class _SafetySetting(Message):
    category: Annotated[str, StringConstraints(pattern="^HARM_CATEGORY_")]
    threshold: Annotated[
        Literal["BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF"], _Upper
    ]
    method: Literal["SEVERITY", "PROBABILITY"] | None = None


class GenerateContentRequest(Message):
    """What both providers of the Gemini models accept."""

    contents: Annotated[list[Content], Field(min_length=1)]
    system_instruction: _Instruction | None = None
    tools: tuple[_Tool, ...] = ()
    tool_config: _ToolConfig = _ToolConfig()
    safety_settings: tuple[_SafetySetting, ...] = ()
    generation_config: GenerationConfig = GenerationConfig()
    cached_content: str | None = None
    service_tier: Annotated[Literal["UNSPECIFIED", "FLEX", "STANDARD", "PRIORITY"] | None, _Upper] = None

    @property
    def functions(self) -> list[str]:
        """The names of the functions that are declared."""
        return [function.name for tool in self.tools for function in tool.function_declarations]

    @property
    def callable_functions(self) -> list[str]:
        """The names of the functions that the model may call."""
        calling = self.tool_config.function_calling_config
        if calling.mode == "NONE":
            return []
        return [name for name in self.functions if name in (calling.allowed_function_names or self.functions)]

    @property
    def must_call(self) -> bool:
        """Whether the model has to call a function."""
        return self.tool_config.function_calling_config.mode == "ANY"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        calling = self.tool_config.function_calling_config
        if twice := next((name for name in self.functions if self.functions.count(name) > 1), None):
            raise ValueError(f"Duplicate function declaration found: {twice}")
        if calling.mode in ("ANY", "VALIDATED") and not self.functions:
            raise ValueError("Function calling config is set without function_declarations.")
        if calling.allowed_function_names and calling.mode not in ("ANY", "VALIDATED"):
            raise ValueError("allowed_function_names is only allowed when the function calling mode is ANY.")
        if unknown := sorted(set(calling.allowed_function_names) - set(self.functions)):
            raise ValueError(f"allowed_function_names contains a function that is not declared: {unknown[0]}")
        return self


class _GeminiConfig(GenerationConfig):
    enable_enhanced_civic_answers: StrictBool | None = None


class GeminiRequest(GenerateContentRequest):
    """What only the Gemini API accepts."""

    generation_config: _GeminiConfig = _GeminiConfig()
    store: StrictBool | None = None


class _VertexConfig(GenerationConfig):
    audio_timestamp: StrictBool | None = None
    routing_config: dict[str, Any] | None = None


_LabelKey = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
_LabelValue = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{0,63}$")]


class VertexRequest(GenerateContentRequest):
    """What only Vertex accepts (wire.md §5d). The limits of labels are unverified (§5e), these the stricter ones."""

    generation_config: _VertexConfig = _VertexConfig()
    labels: Annotated[dict[_LabelKey, _LabelValue] | None, Field(max_length=64)] = None
    model_armor_config: dict[str, Any] | None = None
