"""OpenAI's chat completion request, checked, as the other formats read it.

Contract: https://platform.openai.com/docs/api-reference/chat/create. A request that another vendor is to answer is
checked here, since OpenAI does not see it; whatever no format takes is refused or reported, never lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)

from app.errors import Rejected, Unsupported

# A value that asks for nothing: to leave it out changes nothing.
NEUTRAL: Mapping[str, Any] = {
    "n": 1,
    "logprobs": False,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {},
    "store": False,
    "parallel_tool_calls": True,
    "modalities": ["text"],
    "response_format": {"type": "text"},
    "service_tier": "auto",
    "tools": [],
    "metadata": {},
}
# What the gateway itself reads.
_OURS = frozenset({"model", "messages", "stream", "stream_options"})


class _Strict(BaseModel):
    """Unknown keys are refused; a null is a key that is not there, as OpenAI's clients echo them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if isinstance(value, dict) and None in value.values():
            return {key: item for key, item in value.items() if item is not None}
        return value


class TextPart(_Strict):
    """Text. OpenAI's cache breakpoint is its own business and has no meaning elsewhere (wire.md §1c)."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: dict[str, Any] | None = None


class RefusalPart(_Strict):
    """What a model refused with, coming back in the history."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(_Strict):
    """An image by address or as a data URL."""

    url: str
    detail: str | None = None
    format: str | None = None


class ImagePart(_Strict):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl
    prompt_cache_breakpoint: dict[str, Any] | None = None


class InputAudio(_Strict):
    """Base64 audio."""

    data: str
    format: Literal["wav", "mp3"]


class AudioPart(_Strict):
    """Audio."""

    type: Literal["input_audio"]
    input_audio: InputAudio
    prompt_cache_breakpoint: dict[str, Any] | None = None


class FileSource(_Strict):
    """A file by id, as base64 (a data URL, or bare with a filename), or by address; `format` is its MIME type."""

    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    format: str | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> FileSource:
        if sum(source is not None for source in (self.file_id, self.file_data, self.file_url)) != 1:
            raise ValueError("exactly one of file_id, file_data and file_url is required")
        return self


class FilePart(_Strict):
    """A file."""

    type: Literal["file"]
    file: FileSource
    prompt_cache_breakpoint: dict[str, Any] | None = None


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


Part = Annotated[TextPart | RefusalPart | ImagePart | AudioPart | FilePart, Discriminator("type")]
Content = Annotated[tuple[Part, ...], BeforeValidator(_as_parts)]
Texts = Annotated[tuple[TextPart, ...], BeforeValidator(_as_parts)]


class SystemMessage(_Strict):
    """Instructions."""

    role: Literal["system", "developer"]
    content: Texts
    name: str | None = None


class UserMessage(_Strict):
    """What the user says and shows."""

    role: Literal["user"]
    content: Content
    name: str | None = None


class CalledFunction(_Strict):
    """A function and its arguments, a JSON object as text."""

    name: str
    arguments: str = ""
    # The SDK's parsed objects carry it.
    parsed_arguments: Any = None

    def parsed(self, where: str) -> dict[str, Any]:
        """The arguments as an object. Raises Rejected."""
        try:
            found = orjson.loads(self.arguments or "{}")
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise Rejected(f"{where}.function.arguments must be a JSON object", param=f"{where}.function.arguments")
        return found


class ToolCall(_Strict):
    """A call that the model made. `index` stays where clients put streamed calls together."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class AssistantMessage(_Strict):
    """What the model said. Its annotations and its reasoning come back from clients and mean nothing to a model."""

    role: Literal["assistant"]
    content: Content = ()
    refusal: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    annotations: Any = None
    reasoning_content: str | None = None
    # The SDK's parsed objects carry it.
    parsed: Any = None


class ToolMessage(_Strict):
    """What a tool answered; files are allowed in it."""

    role: Literal["tool"]
    tool_call_id: str
    content: Content
    name: str | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Discriminator("role")]


class Function(_Strict):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Strict):
    """A tool; the other vendors know functions only."""

    type: Literal["function"]
    function: Function


class ChosenFunction(_Strict):
    """The function that must be called."""

    name: str


class NamedTool(_Strict):
    """A tool choice that names a function."""

    type: Literal["function"]
    function: ChosenFunction


class JsonSchema(_Strict):
    """The schema that an answer must follow."""

    name: str
    description: str | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class ResponseFormat(_Strict):
    """Text, any JSON object, or JSON by a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to type json_schema, and only there")
        return self


class StreamOptions(_Strict):
    """What the stream is to hold; obfuscation is OpenAI's own."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


class Request(_Strict):
    """A chat completion request. Keys that are not here are kept, for `Parameters` to refuse or report."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str
    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    # What the endpoint streams for: true and nothing like it.
    stream: StrictBool = False
    stream_options: StreamOptions = StreamOptions()
    tools: tuple[Tool, ...] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Annotated[tuple[str, ...], BeforeValidator(_as_list)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    seed: int | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    metadata: dict[str, str] | None = None


class Parameters:
    """A request's parameters, which a format takes one by one; what is left in the end is refused, or dropped and said.

    `provider` names who cannot take it; `drop` is the deployment's `drop_params`.
    """

    def __init__(self, request: Request, provider: str, *, drop: bool) -> None:
        self._request, self._provider, self._drop = request, provider, drop
        given = request.model_fields_set - _OURS
        self._left = {name for name in given if getattr(request, name) is not None}
        self.dropped: list[str] = []

    def take(self, name: str) -> Any:
        """A parameter's value, None when it was not given."""
        self._left.discard(name)
        return getattr(self._request, name)

    def leave_out(self, name: str) -> None:
        """Drop what has no place at the vendor and the answer can do without, if it was given; the answer says so."""
        if name in self._left:
            self._left.discard(name)
            self.dropped.append(name)

    def refuse(self, name: str, reason: str) -> None:
        """A value that the vendor does not have. Raises Unsupported, unless such are to be dropped."""
        if not self._drop:
            raise Unsupported(
                f"{name}: {reason}. Leave it out, or set drop_params: true in the deployment's params to have it "
                "dropped",
                param=name,
                code="unsupported_parameter",
            )
        self.dropped.append(name)

    def finish(self) -> None:
        """Everything has been asked for. Raises Unsupported for what was given and not taken."""
        if not self._left:
            return
        written = self._request.model_dump(include=self._left, exclude_none=True, by_alias=True)
        for name in sorted(self._left):
            if written[name] not in (NEUTRAL.get(name), ()):
                self.refuse(name, f"{self._provider} has no such parameter")
        self._left.clear()


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a file that a request refers to by the provider's id."""

    mime_type: str
    filename: str


@dataclass(frozen=True, slots=True)
class Chat:
    """A request to be translated: its `files` are keyed by the provider's ids, which stand in its file parts."""

    request: Request
    parameters: Parameters
    provider_model: str
    files: Mapping[str, FileFacts] = field(default_factory=dict)

    @classmethod
    def read(
        cls, body: bytes, *, provider: str, provider_model: str, files: Mapping[str, FileFacts], drop_params: bool
    ) -> Chat:
        """Check a request's JSON. Raises Rejected with the position of what is wrong."""
        try:
            request = Request.model_validate_json(body)
        except ValidationError as invalid:
            raise _rejected(invalid) from None
        return cls(request, Parameters(request, provider, drop=drop_params), provider_model, files)

    @property
    def messages(self) -> Sequence[SystemMessage | UserMessage | AssistantMessage | ToolMessage]:
        """The conversation."""
        return self.request.messages

    def file_ids(self) -> list[str]:
        """The ids by which the conversation names files at the provider."""
        return [
            part.file.file_id
            for message in self.messages
            for part in message.content
            if isinstance(part, FilePart) and part.file.file_id is not None
        ]

    def addresses(self) -> Iterator[tuple[str, str]]:
        """Where in the request an image or a file is given by its web address, and the address."""
        for index, message in enumerate(self.messages):
            for place, part in enumerate(message.content):
                here = f"messages[{index}].content[{place}]"
                match part:
                    case ImagePart(image_url=ImageUrl(url=url)) if not url.startswith("data:"):
                        yield f"{here}.image_url.url", url
                    case FilePart(file=FileSource(file_url=str(url))):
                        yield f"{here}.file.file_url", url

    def function_names(self) -> dict[str, str]:
        """The function that each tool call of the history called, by the call's id."""
        calls: Iterable[ToolCall] = (
            call for message in self.messages if isinstance(message, AssistantMessage) for call in message.tool_calls
        )
        return {call.id: call.function.name for call in calls}

    def refuse_names(self) -> None:
        """Refuse the participants' names, which only OpenAI has."""
        for index, message in enumerate(self.messages):
            if message.name is not None and not isinstance(message, ToolMessage):
                self.parameters.refuse(f"messages[{index}].name", "participants have no names at this provider")

    def leave_out_details(self) -> None:
        """Drop how closely images are to be looked at, which only OpenAI asks; it is said in the answer."""
        for index, message in enumerate(self.messages):
            for place, part in enumerate(message.content):
                if isinstance(part, ImagePart) and part.image_url.detail not in (None, "auto"):
                    self.parameters.dropped.append(f"messages[{index}].content[{place}].image_url.detail")


# The tags and types that pydantic puts between an index and the key that follows it.
_TAGS = frozenset(
    {"text", "refusal", "image_url", "input_audio", "file"} | {"system", "developer", "user", "assistant", "tool"}
)


def _rejected(invalid: ValidationError) -> Rejected:
    first = invalid.errors(include_url=False)[0]
    param, tagged = "", False
    for step in first["loc"]:
        if isinstance(step, int):
            param += f"[{step}]"
        elif not (tagged and step in _TAGS) and "[" not in step:
            param += f".{step}" if param else step
        tagged = isinstance(step, int)
    reason = str(first.get("ctx", {}).get("error", first["msg"]))
    if first["type"] == "json_invalid":
        return Rejected(f"the body is not valid JSON: {reason}", code="invalid_json")
    return Rejected(f"{param}: {reason}" if param else reason, param=param or None, code="invalid_value")
