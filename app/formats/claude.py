"""How Claude is told how hard to think, which differs by model and not by who serves it (wire.md §3d, §6d)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# Up to 4.5 thinking has a budget; since then it adapts to an effort
# (https://docs.anthropic.com/en/docs/build-with-claude/adaptive-thinking). An unknown name is taken for a new one.
_WITH_BUDGET = re.compile(r"claude-(?:[123][-.]|instant|(?:opus|sonnet|haiku)-4(?:-[0-5])?(?=$|[@:]|-\d{8}|-v))")
# The highest leaves room for an answer in the 32,000 tokens of Opus 4.1, the fewest of them.
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 4096, "high": 16384, "xhigh": 24576, "max": 24576}
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
# What sampling may not go below where the model thinks
# (https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking#feature-compatibility).
LEAST_TO_THINK = {"temperature": 1.0, "top_p": 0.95}
# The vendor takes no smaller budget, and none that is not below the answer's limit.
MIN_BUDGET = 1024


@dataclass(frozen=True, slots=True)
class Thinking:
    """What stands for an effort: the model's `thinking` (None: not to be mentioned), its effort, and the tokens that
    the answer's limit has to leave for it."""

    thinking: dict[str, Any] | None
    effort: str | None
    budget_tokens: int = 0


def thinking(model: str, effort: str, max_tokens: int | None, *, forced_call: bool) -> Thinking | str:
    """How this model is told, or why it cannot be. `max_tokens` is the caller's own limit."""
    if effort == "none":
        return Thinking({"type": "disabled"}, None)
    if not _WITH_BUDGET.search(model):
        if forced_call:
            # A forced call leaves no room for thinking; above high, an effort is for models that think.
            return Thinking(None, _EFFORTS[effort] if effort in ("minimal", "low", "medium") else "high")
        return Thinking({"type": "adaptive"}, _EFFORTS[effort])
    if forced_call:
        return f"{model} does not think before a tool call that it is forced to make"
    budget = _BUDGETS[effort] if max_tokens is None else min(_BUDGETS[effort], max_tokens - 1)
    if budget < MIN_BUDGET:
        return f"{model} thinks with {MIN_BUDGET} tokens or more, and its limit is {max_tokens}"
    return Thinking({"type": "enabled", "budget_tokens": budget}, None, budget)
