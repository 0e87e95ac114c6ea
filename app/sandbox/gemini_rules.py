"""What the single Gemini model accepts, beyond the shape of a request: thinking, calls and their signatures, types.

Every rule is a function that raises ValueError with the vendor's words, for the 400 that they come in.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from app.sandbox.gemini_chat import GenerateContentRequest
from app.sandbox.gemini_contents import Content, FunctionCall, decode_base64

# Google's word for a call that another model made; as bytes, and as the base64 that it happens to be
# (https://ai.google.dev/gemini-api/docs/thought-signatures).
_SKIP = "skip_thought_signature_validator"
_SKIPPING = frozenset({_SKIP.encode(), decode_base64(_SKIP)})
_HELP = "Please refer to https://ai.google.dev/gemini-api/docs/thought-signatures for more details."
_RESPONSE_TYPES = ("application/pdf", "text/plain", "image/png", "image/jpeg", "image/webp")


@dataclass(frozen=True)
class Model:
    """A Gemini model: how it can be told to think, and what it gives with a function call."""

    name: str
    # The thinking budgets that it takes besides -1; none for the models that do not think or think by levels.
    budgets: range = range(0)
    # The third generation thinks by levels, numbers its function calls and signs them.
    is_third: bool = False

    @property
    def can_think(self) -> bool:
        """Whether it thinks at all."""
        return self.is_third or bool(self.budgets)


MODELS = {
    model.name: model
    for model in (
        # Retired; Bifrost's examples name it.
        Model("gemini-1.5-flash"),
        Model("gemini-2.0-flash"),
        Model("gemini-2.5-flash", budgets=range(24_577)),
        Model("gemini-2.5-pro", budgets=range(128, 32_769)),
        Model("gemini-3-pro", is_third=True),
        Model("gemini-3-flash", is_third=True),
    )
}


def check(request: GenerateContentRequest, model: Model) -> None:
    """Refuse what `model` does not accept in `request`."""
    _check_thinking(request, model)
    _check_calls(request.contents)
    if request.functions and request.generation_config.response_mime_type != "text/plain" and not model.is_third:
        mime_type = request.generation_config.response_mime_type
        raise ValueError(f"Function calling with a response mime type: '{mime_type}' is unsupported")
    if model.is_third:
        _check_signatures(request.contents)
    for response in (response for content in request.contents for response in content.responses if response.parts):
        # https://ai.google.dev/gemini-api/docs/function-calling: "Multimodal function responses", Gemini 3 only.
        if not model.is_third:
            raise ValueError(f"Multimodal function responses are not supported by {model.name}.")
        for media in (part.media for part in response.parts):
            if media.mime_type not in _RESPONSE_TYPES:
                raise ValueError(f"Unsupported MIME type in a function response: {media.mime_type}")


def _check_thinking(request: GenerateContentRequest, model: Model) -> None:
    thinking = request.generation_config.thinking_config
    budget, level = thinking.thinking_budget, thinking.thinking_level
    if budget is not None and level is not None:
        raise ValueError("You can only set only one of thinking budget and thinking level.")
    if not model.can_think and thinking.model_fields_set:
        raise ValueError("Unable to submit request because thinking is not supported by this model.")
    if level is not None and not model.is_third:
        raise ValueError("Thinking level is not supported for this model.")
    if budget is None or budget == -1:
        return
    if model.is_third:
        raise ValueError("Thinking budget is not supported for this model.")
    if not budget and budget not in model.budgets:
        raise ValueError("Budget 0 is invalid. This model only works in thinking mode.")
    if budget not in model.budgets:
        first, last = model.budgets[0], model.budgets[-1]
        raise ValueError(f"The thinking budget {budget} is invalid. Please choose a value between {first} and {last}.")


def _check_calls(contents: Sequence[Content]) -> None:
    """Every function call follows what the user said and is answered in the very next turn; nothing else is."""
    pending: list[FunctionCall] = []
    for previous, content in zip((None, *contents), contents, strict=False):
        if content.calls and (previous is None or previous.role != "user"):
            raise ValueError(
                "Please ensure that function call turn comes immediately after a user turn or after a function "
                "response turn."
            )
        if len(pending) != len(content.responses):
            raise ValueError(
                "Please ensure that the number of function response parts is equal to the number of function call "
                "parts of the function call turn."
            )
        for response in content.responses:
            call = next((call for call in pending if response.answers(call)), None)
            if call is None:
                raise ValueError(f"The function response '{response.name}' answers no call of the preceding turn.")
            pending.remove(call)
        pending = content.calls
    if pending:
        raise ValueError("Please ensure that multiturn requests end with a user turn or a function response.")


def sign(call: FunctionCall) -> bytes:
    """Return the signature of the thoughts that led to `call`: of its name and arguments, not of its id."""
    return hashlib.sha256(orjson.dumps([call.name, call.args], option=orjson.OPT_SORT_KEYS)).digest()


def _check_signatures(contents: Sequence[Content]) -> None:
    """The first call of a turn comes back as it was signed; others may be unsigned, as they were given.

    Whether the vendor looks only at the current turn is unverified (wire.md §4d): this looks at all of them.
    """
    for position, content in enumerate(contents, 1):
        for index, (call, signature) in enumerate(_signed_calls(content)):
            if signature is None and not index:
                raise ValueError(
                    "Function call is missing a thought_signature in functionCall parts. This is required for tools "
                    "to work correctly, and missing thought_signature may lead to degraded model performance. "
                    f"Additional data, function call `default_api:{call.name}` , position {position}. {_HELP}"
                )
            if signature not in (None, sign(call), *_SKIPPING):
                raise ValueError(f"Corrupted thought signature. {_HELP}")


def _signed_calls(content: Content) -> Iterator[tuple[FunctionCall, bytes | None]]:
    for part in content.parts:
        if part.function_call is not None:
            yield part.function_call, part.thought_signature
