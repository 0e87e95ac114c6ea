"""How Claude is told how hard to think: by a budget up to 4.5, by an effort since, under every spelling of its name."""

import pytest

from app.formats.claude import Thinking, thinking

# A model, as Anthropic itself, Vertex AI and Bedrock spell it.
WITH_BUDGET = [
    "claude-3-7-sonnet-20250219",
    "claude-3-7-sonnet-latest",
    "claude-3-7-sonnet@20250219",
    "us.anthropic.claude-3-7-sonnet-20250219-v1:0",
    "claude-opus-4-0",
    "claude-sonnet-4-20250514",
    "claude-sonnet-4@20250514",
    "anthropic.claude-sonnet-4-20250514-v1:0",
    "claude-opus-4-1",
    "claude-opus-4-1-20250805",
    "claude-opus-4-1@20250805",
    "us.anthropic.claude-opus-4-1-20250805-v1:0",
    "claude-haiku-4-5",
    "claude-haiku-4-5-20251001",
    "claude-haiku-4-5@20251001",
    "global.anthropic.claude-haiku-4-5-20251001-v1:0",
    "claude-sonnet-4-5",
    "anthropic/claude-sonnet-4-5@20250929",
    "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-4-5-20251101-v1:0",
]
ADAPTIVE = [
    "claude-opus-4-6",
    "claude-opus-4-6@20260205",
    "anthropic.claude-opus-4-6-v1",
    "us.anthropic.claude-sonnet-4-6",
    "claude-sonnet-4-6-20260217",
    "claude-opus-4-10",
    "claude-sonnet-5",
    "claude-sonnet-5@20260929",
    "us.anthropic.claude-sonnet-5-20260929-v1:0",
    "claude-haiku-10",
    "claude-x",
    # What stands behind a profile is not to be seen in its name.
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1",
]
EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
BUDGETS = {"minimal": 1024, "low": 1024, "medium": 4096, "high": 16384, "xhigh": 24576, "max": 24576}
efforts = pytest.mark.parametrize("effort", EFFORTS)


def with_budget(tokens):
    return Thinking({"type": "enabled", "budget_tokens": tokens}, None, tokens)


@efforts
@pytest.mark.parametrize("model", WITH_BUDGET)
def test_older_models_are_given_a_budget(model, effort):
    assert thinking(model, effort, None, forced_call=False) == with_budget(BUDGETS[effort])


@efforts
@pytest.mark.parametrize("model", ADAPTIVE)
@pytest.mark.parametrize("max_tokens", [None, 1])
def test_newer_and_unknown_models_adapt_to_an_effort(model, effort, max_tokens):
    expected = Thinking({"type": "adaptive"}, EFFORTS[effort])
    assert thinking(model, effort, max_tokens, forced_call=False) == expected


@pytest.mark.parametrize("model", [*WITH_BUDGET, *ADAPTIVE])
@pytest.mark.parametrize("forced_call", [False, True])
def test_every_model_can_be_told_not_to_think(model, forced_call):
    assert thinking(model, "none", 1, forced_call=forced_call) == Thinking({"type": "disabled"}, None)


@pytest.mark.parametrize(
    ("max_tokens", "budget_tokens"), [(1025, 1024), (3000, 2999), (16384, 16383), (16385, 16384), (64000, 16384)]
)
def test_a_budget_is_below_the_answers_limit(max_tokens, budget_tokens):
    assert thinking("claude-sonnet-4-5", "high", max_tokens, forced_call=False) == with_budget(budget_tokens)


@pytest.mark.parametrize("max_tokens", [1, 1024])
def test_a_limit_that_leaves_no_room_for_the_least_budget_is_the_reason_why_not(max_tokens):
    reason = thinking("claude-sonnet-4-5", "low", max_tokens, forced_call=False)
    assert reason == f"claude-sonnet-4-5 thinks with 1024 tokens or more, and its limit is {max_tokens}"


@efforts
def test_before_a_forced_call_newer_models_do_not_think_and_older_ones_refuse(effort):
    calm = EFFORTS[effort] if effort in ("minimal", "low", "medium") else "high"
    assert thinking("claude-sonnet-5", effort, None, forced_call=True) == Thinking(None, calm)
    reason = thinking("claude-sonnet-4-5", effort, None, forced_call=True)
    assert reason == "claude-sonnet-4-5 does not think before a tool call that it is forced to make"
