"""What is said to a Gemini model: contents and their parts, as proto3's JSON (wire.md §4c, §4d).

Names come in camelCase or in snake_case (the SDK mixes both, §0.1), null stands for absent, bytes in either
alphabet of base64. The fields are those of google-genai 3.4.0.
"""

import base64
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator
from pydantic.alias_generators import to_camel

_DATA_FIELDS = (
    *("text", "inline_data", "file_data", "function_call", "function_response"),
    *("executable_code", "code_execution_result", "tool_call", "tool_response"),
)


class Message(BaseModel):
    """A proto message."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None}


def decode_base64(value: Any) -> Any:
    """Return the bytes of a base64 string, standard or URL-safe, padded or not."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4), validate=True)
    except ValueError as error:
        raise ValueError("Base64 decoding failed") from error


_Bytes = Annotated[bytes, BeforeValidator(decode_base64)]


class Blob(Message):
    """Bytes that come with the request."""

    mime_type: Annotated[str, Field(min_length=1)]
    data: _Bytes
    display_name: str | None = None


class FileData(Message):
    """A reference to a file."""

    file_uri: Annotated[str, Field(min_length=1)]
    mime_type: Annotated[str, Field(min_length=1)]
    display_name: str | None = None


class FunctionCall(Message):
    """What the model called."""

    name: str
    args: dict[str, Any] = {}
    id: str | None = None


class ResponsePart(Message):
    """A file that a function returned."""

    inline_data: Blob | None = None
    file_data: FileData | None = None

    @property
    def media(self) -> Blob | FileData:
        """The file."""
        media = self.inline_data or self.file_data
        assert media is not None
        return media

    @model_validator(mode="after")
    def _one_kind_of_data(self) -> Self:
        if (self.inline_data is None) == (self.file_data is None):
            raise ValueError("required oneof field 'data' must have one initialized field")
        return self


class FunctionResponse(Message):
    """What a function returned."""

    name: Annotated[str, Field(min_length=1)]
    response: dict[str, Any]
    id: str | None = None
    parts: tuple[ResponsePart, ...] = ()
    will_continue: StrictBool | None = None
    scheduling: str | None = None

    def answers(self, call: FunctionCall) -> bool:
        """Tell whether this is the response to `call`: the same name, and the same id where both have one."""
        return self.name == call.name and (None in (self.id, call.id) or self.id == call.id)


class Part(Message):
    """One piece of a content: exactly one kind of data, and what is known of it."""

    text: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    executable_code: dict[str, Any] | None = None
    code_execution_result: dict[str, Any] | None = None
    tool_call: dict[str, Any] | None = None
    tool_response: dict[str, Any] | None = None

    thought: StrictBool | None = None
    thought_signature: _Bytes | None = None
    video_metadata: dict[str, Any] | None = None
    media_resolution: dict[str, Any] | None = None
    part_metadata: dict[str, Any] | None = None

    @property
    def media(self) -> Blob | FileData | None:
        """The file that the part is, if it is one."""
        return self.inline_data or self.file_data

    @model_validator(mode="after")
    def _one_kind_of_data(self) -> Self:
        kinds = [name for name in _DATA_FIELDS if getattr(self, name) is not None]
        if not kinds:
            raise ValueError("required oneof field 'data' must have one initialized field")
        if len(kinds) > 1:
            raise ValueError(f"oneof field 'data' is already set. Cannot set '{to_camel(kinds[1])}'")
        return self


class Content(Message):
    """What one side said in one turn."""

    role: Literal["user", "model"] = "user"
    parts: Annotated[list[Part], Field(min_length=1)]

    @property
    def texts(self) -> list[str]:
        """The texts of the parts that are not thoughts."""
        return [part.text for part in self.parts if part.text is not None and not part.thought]

    @property
    def calls(self) -> list[FunctionCall]:
        """The functions that the model called in this turn."""
        return [part.function_call for part in self.parts if part.function_call is not None]

    @property
    def responses(self) -> list[FunctionResponse]:
        """What functions returned in this turn."""
        return [part.function_response for part in self.parts if part.function_response is not None]

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.calls and self.role != "model":
            raise ValueError("Please ensure that function call parts come in a turn of the role 'model'.")
        if self.responses and self.role != "user":
            raise ValueError("Please ensure that function response parts come in a turn of the role 'user'.")
        return self
