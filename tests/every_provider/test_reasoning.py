"""What a vendor wants back of a model's thinking comes back through an OpenAI client, and goes to nobody else."""

import contextlib

import pytest

from app.formats.tool_calls import MARK
from app.sandbox.config import sandbox_configuration
from tests.conftest import Clients
from tests.support.chats import answer_of, text_part

THINKING = {
    "claude-with-budget": "anthropic/claude-sonnet-4-5",
    "claude-adaptive": "anthropic/claude-sonnet-5",
    "gemini-3": "gemini/gemini-3-pro",
    "vertex-3": "vertex_ai/gemini-3-pro",
    "claude-on-bedrock": "bedrock/us.anthropic.claude-sonnet-4-6",
}
OTHERS = {"mini": "openai/gpt-4o-mini", "nova": "bedrock/us.amazon.nova-lite-v1:0", "flash": "gemini/gemini-2.0-flash"}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}},
    }
]
CALL = {"role": "user", "content": [text_part("call:look_up please")]}


@pytest.fixture(scope="module")
def thinkers(make_gateway, sandbox_process):
    params = {
        one["custom_llm_provider"]: {key: value for key, value in one.items() if key != "custom_llm_provider"}
        for one in sandbox_configuration(sandbox_process.url)["files_settings"]
    }
    model_list = [
        {"model_name": name, "litellm_params": {"model": model, **params[model.partition("/")[0]]}}
        for name, model in {**THINKING, **OTHERS}.items()
    ]
    with make_gateway(model_list=model_list) as running:
        yield running


@pytest.fixture
def client(thinkers, sandbox):
    with contextlib.closing(Clients(thinkers.url)) as opened:
        yield opened.member()


def asked(client, model_name, messages, **options):
    """The first choice of a streamed chat with the tool, as the SDK puts it together."""
    with client.chat.completions.stream(model=model_name, messages=messages, tools=TOOLS, **options) as stream:
        return stream.get_final_completion().choices[0]


def called(client, model_name):
    """A conversation in which the model has thought and then called the tool, up to the tool's answer."""
    choice = asked(client, model_name, [CALL], reasoning_effort="low")
    [call] = choice.message.tool_calls
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return [
        CALL,
        {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call.id, "content": "the answer is 42"},
    ]


@pytest.mark.parametrize("model_name", THINKING)
def test_a_call_made_after_thinking_goes_on_after_its_result(client, model_name):
    messages = called(client, model_name)
    assert MARK in messages[-1]["tool_call_id"]
    choice = asked(client, model_name, messages, reasoning_effort="low")
    assert "the answer is 42" in choice.message.content


@pytest.mark.parametrize("other", [*OTHERS, *THINKING])
@pytest.mark.parametrize("model_name", THINKING)
def test_a_conversation_may_go_on_with_another_model(client, model_name, other):
    messages = called(client, model_name)
    assert "the answer is 42" in asked(client, other, messages).message.content


@pytest.mark.parametrize("other", [*OTHERS, *THINKING])
def test_an_answer_comes_back_as_the_sdk_gives_it(client, other):
    """The message object itself, with all that filemux and the SDK add to it."""
    choice = asked(client, "claude-adaptive", [CALL], reasoning_effort="low")
    assert choice.message.reasoning_content
    result = {"role": "tool", "tool_call_id": choice.message.tool_calls[0].id, "content": "the answer is 42"}
    assert "the answer is 42" in asked(client, other, [CALL, choice.message, result]).message.content


@pytest.mark.parametrize("model_name", THINKING)
def test_what_it_thought_can_be_read(client, model_name):
    options = {"model": model_name, "messages": [{"role": "user", "content": "hello"}], "reasoning_effort": "low"}
    whole = client.chat.completions.create(**options)
    assert whole.choices[0].message.reasoning_content == "thinking about it"
    assert answer_of(whole) == "hello"
    chunks = list(client.chat.completions.create(**options, stream=True))
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "thinking about it"
    assert "".join(delta.content or "" for delta in deltas) == "hello"
