"""What must fit together in a Messages request: the API's version, tools and their results, thinking (wire.md §3d)."""

from collections.abc import Iterable, Sequence
from itertools import takewhile

from app.sandbox.anthropic_blocks import (
    Block,
    DocumentBlock,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from app.sandbox.anthropic_errors import bad_request
from app.sandbox.anthropic_messages import (
    AssistantMessage,
    EnabledThinking,
    MessagesRequest,
    NamedChoice,
    Turn,
    UserMessage,
)
from app.sandbox.anthropic_thoughts import is_sealed, led_to, was_thought_about

NEWEST_VERSION = "2026-10-21"
VERSIONS = (NEWEST_VERSION, "2023-06-01")


def check(request: MessagesRequest, version: str) -> None:
    """Refuse what is well-formed but makes no sense, or none any more."""
    if version == NEWEST_VERSION:
        _check_removals(request)
    _check_thinking(request)
    _check_tools(request)
    _check_turns(request.turns)
    _check_seals(request)
    if request.thinks:
        _check_thoughts(request)


def _check_removals(request: MessagesRequest) -> None:
    """Refuse what 2026-10-21 has removed (wire.md §0.1, fact 1: read in summaries of the migration guide)."""
    for name in ("temperature", "top_p", "top_k"):
        if name in request.model_fields_set:
            raise bad_request(f"{name}: Extra inputs are not permitted")
    for number, message in enumerate(request.messages):
        for position, block in enumerate(message.content):
            where = f"messages.{number}.content.{position}"
            if isinstance(message, AssistantMessage) and isinstance(block, DocumentBlock):
                raise bad_request(f"{where}: `document` blocks are not permitted in assistant turns")
            if isinstance(message, UserMessage) and isinstance(block, TextBlock) and block.citations is not None:
                raise bad_request(f"{where}.text.citations: Extra inputs are not permitted")


def _check_thinking(request: MessagesRequest) -> None:
    if isinstance(request.thinking, EnabledThinking) and request.thinking.budget_tokens >= request.max_tokens:
        raise bad_request("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if request.thinks and request.temperature not in (None, 1):
        raise bad_request("`temperature` may only be set to 1 when thinking is enabled.")
    if request.thinks and request.must_call:
        raise bad_request("Thinking may not be enabled when tool_choice forces tool use.")


def _check_tools(request: MessagesRequest) -> None:
    names = [tool.name for tool in request.tools]
    if len({*names}) < len(names):
        raise bad_request("tools: Tool names must be unique.")
    if request.tool_choice is not None and not names:
        raise bad_request("tool_choice: may only be specified while providing tools")
    if isinstance(request.tool_choice, NamedChoice) and request.tool_choice.name not in names:
        raise bad_request(f"Tool '{request.tool_choice.name}' not found in provided tools")


def _check_turns(turns: Iterable[Turn]) -> None:
    """Refuse calls without results, results without calls, and a conversation that the model should go on writing."""
    pending: set[str] = set()
    seen: set[str] = set()
    for number, turn in enumerate(turns):
        results = _results(turn.blocks)
        # They come first [U, wire.md §3d]: this is the stricter reading.
        first = {*_results(turn.blocks[: len(results)])}
        if missing := sorted(pending - first):
            raise bad_request(
                f"messages.{number - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
                "next message."
            )
        if unexpected := sorted({*results} - pending):
            raise bad_request(
                f"messages.{number}: unexpected `tool_use_id` found in `tool_result` blocks: {', '.join(unexpected)}. "
                "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        if len({*results}) < len(results):
            raise bad_request(f"messages.{number}: each tool_use must have a single result.")
        calls = [block.id for block in turn.blocks if isinstance(block, ToolUseBlock)]
        pending = {*calls}
        if len(pending) < len(calls) or pending & seen:
            raise bad_request(f"messages.{number}: `tool_use` ids must be unique")
        seen |= pending
    if turn.role == "assistant":
        raise bad_request(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )


def _results(blocks: Sequence[Block]) -> list[str]:
    return [block.tool_use_id for block in blocks if isinstance(block, ToolResultBlock)]


def _check_seals(request: MessagesRequest) -> None:
    for number, message in enumerate(request.messages):
        for position, block in enumerate(message.content):
            where = f"messages.{number}.content.{position}"
            if isinstance(block, ThinkingBlock) and not is_sealed(block.signature, block.thinking):
                raise bad_request(f"{where}: Invalid `signature` in `thinking` block")
            if isinstance(block, RedactedThinkingBlock) and not is_sealed(block.data, ""):
                raise bad_request(f"{where}: Invalid `data` in `redacted_thinking` block")


def _check_thoughts(request: MessagesRequest) -> None:
    """Refuse a turn with calls that does not begin with the thought that led to them, while they are being answered.

    Under `enabled` Anthropic wants a thought there whether or not there was one; under `adaptive` only the one it had.
    """
    for turn in _turns_in_progress(request.turns):
        calls = [block.id for block in turn.blocks if isinstance(block, ToolUseBlock)]
        thought_about = [call_id for call_id in calls if was_thought_about(call_id)]
        match turn.blocks[0]:
            case ThinkingBlock(signature=seal) | RedactedThinkingBlock(data=seal):
                if not all(led_to(seal, call_id) for call_id in thought_about):
                    raise bad_request(
                        "`thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified. "
                        "These blocks must remain as they were in the original response."
                    )
            case first if thought_about or (calls and isinstance(request.thinking, EnabledThinking)):
                raise bad_request(
                    f"Expected `thinking` or `redacted_thinking`, but found `{first.type}`. When `thinking` is "
                    "enabled, a final `assistant` message must start with a thinking block (preceeding the lastmost "
                    "set of `tool_use` and `tool_result` blocks)."
                )


def _turns_in_progress(turns: list[Turn]) -> Iterable[Turn]:
    """Return the assistant's turns since the user last spoke without answering a call."""
    recent = takewhile(lambda turn: turn.role == "assistant" or _results(turn.blocks), reversed(turns))
    return [turn for turn in recent if turn.role == "assistant"]
