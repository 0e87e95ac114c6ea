"""One upload, every model: the same bytes reach each of the six providers, whatever their way of taking them."""

import pytest

from tests.support.chats import MODEL_NAMES, answer_of, ask, file_part, streamed_answer, text_part
from tests.support.sandbox import eventually
from tests.support.uploads import sha256

PNG = b"\x89PNG\r\n\x1a\n and the picture"
FILES = {
    "report.pdf": (b"%PDF-1.7 a report", "application/pdf"),
    "photo.png": (PNG, "image/png"),
    "notes.txt": ("plain words, größer\n".encode(), "text/plain"),
    "readme.md": (b"# A heading\n\nand words", "text/markdown"),
    "table.csv": (b"a,b\n1,2\n", "text/csv"),
    "page.html": (b"<p>a page</p>", "text/html"),
}
every_model = pytest.mark.parametrize("model_name", MODEL_NAMES)


def upload(client, filename, model_names=MODEL_NAMES):
    content, mime_type = FILES[filename]
    return client.files.create(
        file=(filename, content, mime_type),
        purpose="user_data",
        extra_body={"target_model_names": ",".join(model_names)},
    )


def test_the_gateway_serves_all_six(client):
    assert [model.id for model in client.models.list()] == list(MODEL_NAMES)


@pytest.mark.parametrize("filename", FILES)
def test_every_model_sees_the_same_bytes_streamed_or_not(client, sandbox, filename):
    content, _ = FILES[filename]
    file = upload(client, filename)
    assert {one["provider"] for one in sandbox.files} == {
        "openai",
        "azure",
        "anthropic",
        "gemini",
        "vertex_ai",
        "bedrock",
    }
    assert {one["sha256"] for one in sandbox.files} == {sha256(content)}
    for model_name in MODEL_NAMES:
        question = (text_part("What is in it?"), file_part(file.id))
        whole = answer_of(ask(client, model_name, *question))
        assert f"bytes={len(content)} sha256={sha256(content)}" in whole, model_name
        assert whole.endswith("What is in it?")
        assert streamed_answer(ask(client, model_name, *question, stream=True)) == whole, model_name
    assert client.files.content(file.id).content == content
    client.files.delete(file.id)
    assert eventually(lambda: not sandbox.files)


def test_the_example_of_the_unified_file_id(client):
    """LiteLLM's page, its two model names: one file, two chat completions."""
    content, mime_type = FILES["report.pdf"]
    file = client.files.create(
        file=("report.pdf", content, mime_type),
        purpose="user_data",
        extra_body={"target_model_names": "gpt-4o-mini-openai, gemini-2.0-flash"},
    )
    for model_name in ("gpt-4o-mini-openai", "gemini-2.0-flash"):
        completion = client.chat.completions.create(
            model=model_name,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is in this document?"},
                        {"type": "file", "file": {"file_id": file.id}},
                    ],
                }
            ],
        )
        assert sha256(content) in completion.choices[0].message.content


@every_model
def test_a_conversation_with_tools_and_a_file(client, model_name):
    """Three turns through the SDK's streaming helper: a call, its result, and a question about what was said."""
    file = upload(client, "report.pdf", [model_name])
    tools = [
        {
            "type": "function",
            "function": {
                "name": "look_up",
                "description": "Looks a word up.",
                "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
            },
        }
    ]
    messages = [
        {"role": "system", "content": "You are careful."},
        {"role": "user", "content": [text_part("call:look_up for me"), file_part(file.id)]},
    ]

    def answered():
        options = {"stream_options": {"include_usage": True}}
        with client.chat.completions.stream(model=model_name, messages=messages, tools=tools, **options) as stream:
            completion = stream.get_final_completion()
        assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
        return completion.choices[0]

    first = answered()
    assert first.finish_reason == "tool_calls"
    [call] = first.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("look_up", '{"q":"call:look_up for me"}')
    function = {"name": call.function.name, "arguments": call.function.arguments}
    messages += [
        {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call.id, "content": "the answer is 42"},
    ]

    second = answered()
    assert second.finish_reason == "stop"
    assert "the answer is 42" in second.message.content
    messages += [
        {"role": "assistant", "content": second.message.content},
        {"role": "user", "content": "Thank you."},
    ]

    third = answered()
    assert third.message.content.splitlines()[-1] == "Thank you."
    assert sha256(FILES["report.pdf"][0]) in third.message.content
