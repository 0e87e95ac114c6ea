"""What thinking demands of a Converse request: Claude's signed thoughts come back as they were.

Signatures are Anthropic's own, as they are compatible across the platforms that serve Claude
(https://platform.claude.com/docs/en/build-with-claude/extended-thinking).
"""

from collections.abc import Iterator
from itertools import takewhile

from app.sandbox.anthropic_thoughts import is_sealed, led_to, was_thought_about
from app.sandbox.bedrock_blocks import Message, ReasoningContent
from app.sandbox.bedrock_catalog import Model
from app.sandbox.bedrock_request import ConverseRequest

_ERRORS = "The model returned the following errors: "


def check_thinking(request: ConverseRequest, model: Model) -> None:
    """Refuse to think as the model cannot, and thoughts that did not come back as they were."""
    thoughts = [block.reasoning_content for message in request.messages for block in message.content]
    for thought in filter(None, thoughts):
        if not model.is_claude:  # [U]
            raise ValueError("This model doesn't support the reasoningContent content block that you provided.")
        if not is_sealed(*_seal(thought)):
            raise ValueError(f"{_ERRORS}Invalid `signature` in `thinking` block")
    if request.thinking is not None:
        _check_limits(request, model)
        _check_progress(request)
    # "Capped at high" says the service model; that more is refused is the stricter reading [U].
    elif request.output_config.effort in ("xhigh", "max"):
        raise ValueError(f"{_ERRORS}effort is capped at `high` when thinking is disabled.")


def _seal(thought: ReasoningContent) -> tuple[str, str]:
    """Return a thought's seal, and what it showed."""
    if thought.reasoning_text:
        return thought.reasoning_text.signature or "", thought.reasoning_text.text
    return thought.redacted_content or "", ""


def _check_limits(request: ConverseRequest, model: Model) -> None:
    thinking, config = request.thinking, request.inference_config
    assert thinking is not None
    if thinking.type not in model.thinking:
        raise ValueError(f"{_ERRORS}{thinking.type} thinking is not supported on this model")
    if (thinking.type == "enabled") != (thinking.budget_tokens is not None):
        raise ValueError(f"{_ERRORS}thinking.budget_tokens: required when thinking is enabled, and only then")
    if (thinking.budget_tokens or 0) >= (config.max_tokens or model.max_tokens):
        raise ValueError(f"{_ERRORS}`max_tokens` must be greater than `thinking.budget_tokens`.")
    if config.temperature not in (None, 1):
        raise ValueError(f"{_ERRORS}`temperature` may only be set to 1 when thinking is enabled.")
    if request.must_call:
        raise ValueError(f"{_ERRORS}Thinking may not be enabled when tool_choice forces tool use.")


def _check_progress(request: ConverseRequest) -> None:
    """Refuse a turn with calls that does not begin with the thought that led to them, while they are being answered.

    With `enabled` Claude wants a thought there whether or not there was one; with `adaptive` only the one it had.
    """
    for number, message in _turns_in_progress(request.messages):
        thought = message.content[0].reasoning_content
        thought_about = [call_id for call_id in message.calls if was_thought_about(call_id)]
        if thought is not None:
            if not all(led_to(_seal(thought)[0], call_id) for call_id in thought_about):
                raise ValueError(
                    f"{_ERRORS}messages.{number}.content.0: `thinking` or `redacted_thinking` blocks in the latest "
                    "assistant message cannot be modified. These blocks must remain as they were in the original "
                    "response."
                )
        elif thought_about or (message.calls and request.thinking and request.thinking.type == "enabled"):
            raise ValueError(
                f"{_ERRORS}messages.{number}.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
                "`tool_use`. When `thinking` is enabled, a final `assistant` message must start with a thinking block "
                "(preceeding the lastmost set of `tool_use` and `tool_result` blocks)."
            )


def _turns_in_progress(messages: list[Message]) -> Iterator[tuple[int, Message]]:
    """Yield the assistant's messages since the user last spoke without answering a call, and their numbers."""
    recent = takewhile(lambda turn: turn[1].role != "user" or turn[1].results, reversed([*enumerate(messages)]))
    return (turn for turn in recent if turn[1].role == "assistant")
