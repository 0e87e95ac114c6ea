"""Chat completions, through the official clients: the answer proves which bytes arrived."""

import base64
import hashlib
import json

import httpx
import openai
import pytest

_PDF = b"%PDF-1.4 not really"


def _line(data: bytes, filename: str) -> str:
    return f"[file filename={filename} bytes={len(data)} sha256={hashlib.sha256(data).hexdigest()}]"


def _data_url(data: bytes, mime_type: str) -> str:
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def _user(*parts: dict | str) -> list[dict]:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return [{"role": "user", "content": content}]


def _tool(name: str) -> dict:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


async def _chat(client: openai.AsyncOpenAI, messages: list[dict], **more):
    return await client.chat.completions.create(model="gpt-4o", messages=messages, **more)


async def test_the_answer_names_the_files_and_repeats_the_text(client):
    uploaded = await client.files.create(file=("a.pdf", _PDF), purpose="assistants")
    answer = await _chat(
        client,
        _user(
            {"type": "file", "file": {"file_id": uploaded.id}},
            {"type": "file", "file": {"file_data": _data_url(b"inline", "application/pdf"), "filename": "b.pdf"}},
            {"type": "image_url", "image_url": {"url": _data_url(b"png", "image/png")}},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"wav").decode(), "format": "wav"}},
            "What is ",
            "this?",
        ),
    )
    assert answer.choices[0].message.content.splitlines() == [
        _line(_PDF, "a.pdf"),
        _line(b"inline", "b.pdf"),
        _line(b"png", "upload"),
        _line(b"wav", "upload"),
        "What is this?",
    ]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "gpt-4o"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_the_answer_can_be_sent_back(client):
    first = await _chat(client, [{"role": "developer", "content": "Be kind."}, *_user("One")])
    second = await _chat(client, [*_user("One"), first.choices[0].message.model_dump(), *_user("Two")])
    assert second.choices[0].message.content == "Two"


async def test_a_stream_says_the_same_in_pieces(client):
    uploaded = await client.files.create(file=("a.pdf", _PDF), purpose="assistants")
    messages = _user({"type": "file", "file": {"file_id": uploaded.id}}, "What is this?")
    whole = await _chat(client, messages)
    stream = await _chat(client, messages, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert len([delta for delta in deltas if delta.content]) > 3
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_a_stream_is_framed_as_events(http: httpx.AsyncClient):
    body = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    answer = await http.post("/openai/v1/chat/completions", json=body, headers={"authorization": "Bearer sk"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, last, empty = answer.text.split("\n\n")
    assert (last, empty) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", "hi", None]
    assert not any("usage" in chunk for chunk in chunks)


async def test_choices(openai_client):
    answer = await _chat(openai_client, _user("hi"), n=2)
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [(0, "hi"), (1, "hi")]
    stream = await _chat(openai_client, _user("hi"), n=2, stream=True)
    finished = [chunk.choices[0] async for chunk in stream if chunk.choices[0].finish_reason]
    assert [choice.index for choice in finished] == [0, 1]


@pytest.mark.parametrize(
    ("text", "choice", "called"),
    [
        ("call:search now", "auto", "search"),
        ("call:nothing", "auto", None),
        ("hello", "auto", None),
        ("hello", "required", "lookup"),
        ("hello", {"type": "function", "function": {"name": "search"}}, "search"),
        ("call:search", "none", None),
    ],
)
async def test_tools(client, text, choice, called):
    more = {"tools": [_tool("lookup"), _tool("search")], "tool_choice": choice}
    answer = (await _chat(client, _user(text), **more)).choices[0]
    stream = await _chat(client, _user(text), stream=True, **more)
    deltas = [chunk.choices[0].delta async for chunk in stream if chunk.choices]
    streamed = [call.function for delta in deltas for call in delta.tool_calls or ()]
    if called is None:
        assert (answer.message.content, answer.message.tool_calls, streamed) == (text, None, [])
        return
    assert answer.finish_reason == "tool_calls"
    (call,) = answer.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (called, {"q": text})
    assert streamed[0].name == called
    assert "".join(function.arguments for function in streamed) == call.function.arguments


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("more", "called"), [({}, ["search", "lookup"]), ({"parallel_tool_calls": False}, ["search"])])
async def test_several_tools_are_called_at_once_unless_that_is_forbidden(client, stream, more, called):
    text = "call:search call:lookup call:search"
    options = {"model": "gpt-4o", "messages": _user(text), "tools": [_tool("lookup"), _tool("search")], **more}
    if stream:
        async with client.chat.completions.stream(**options) as events:
            completion = await events.get_final_completion()
    else:
        completion = await client.chat.completions.create(**options)
    [choice] = completion.choices
    calls = choice.message.tool_calls
    assert [call.function.name for call in calls] == called
    assert {call.function.arguments for call in calls} == {json.dumps({"q": text}, separators=(",", ":"))}
    assert len({call.id for call in calls}) == len(called)
    assert choice.finish_reason == "tool_calls"


@pytest.mark.parametrize("choice", ["auto", "required"])
async def test_a_tools_result_is_answered_and_never_with_a_call(client, choice):
    more = {"tools": [_tool("lookup"), _tool("search")], "tool_choice": choice}
    asked = _user(f'<file name="a.txt">\n{"text"}\n</file>', "call:search and call:lookup")
    called = (await _chat(client, asked, **more)).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": [{"type": "text", "text": text} for text in texts]}
        for call, texts in zip(
            called.tool_calls, [["call:lookup ", "found"], ['<file name="b.csv">\n1,2\n</file>', "two"]], strict=True
        )
    ]
    messages = [*asked, called.model_dump(), *results]
    answer = (await _chat(client, messages, **more)).choices[0]
    lines = [_line(b"text", "a.txt"), _line(b"1,2", "b.csv"), "call:lookup found", "two"]
    assert (answer.message.content.splitlines(), answer.finish_reason) == (lines, "stop")
    assert answer.message.tool_calls is None
    asked_again = (await _chat(client, [*messages, *_user("call:lookup")], **more)).choices[0]
    assert [call.function.name for call in asked_again.message.tool_calls] == ["lookup"]


async def test_a_file_may_travel_as_text(client):
    text = "a,b\n1,ü\n"
    answer = await _chat(client, _user("Look: ", f'<file name="a.csv">\n{text}\n</file>', "what is this?"))
    assert answer.choices[0].message.content.splitlines() == [_line(text.encode(), "a.csv"), "Look: what is this?"]


@pytest.mark.parametrize(
    ("filename", "mime_type", "taken"),
    [
        ("a.pdf", "application/pdf", True),
        ("a.pdf", "application/octet-stream", True),
        ("nameless", "application/octet-stream", True),
        ("a.unheard-of", "application/octet-stream", True),
        ("nameless", "APPLICATION/PDF; version=1.7", True),
        ("a.txt", "application/octet-stream", False),
        ("a.png", "application/pdf", False),
        ("a.pdf", "text/plain; charset=utf-8", False),
        ("nameless", "image/png", False),
        ("a.docx", "application/octet-stream", False),
    ],
)
async def test_a_file_part_takes_nothing_but_pdf(client, filename, mime_type, taken):
    """What is of another type by its name or by what its sender says is refused, by id and inline."""
    uploaded = await client.files.create(file=(filename, _PDF, mime_type), purpose="assistants")
    inline = {"filename": filename, "file_data": _data_url(_PDF, mime_type.replace(" ", ""))}
    for file, part in (({"file_id": uploaded.id}, ".file_id"), (inline, "")):
        messages = _user("Hello", {"type": "file", "file": file})
        if taken:
            assert _line(_PDF, filename) in (await _chat(client, messages)).choices[0].message.content
            continue
        with pytest.raises(openai.BadRequestError, match="expected a PDF") as refused:
            await _chat(client, messages)
        assert refused.value.param.startswith(f"messages[0].content[1].file{part}")


_MESSAGES = _user("hi")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "hi", "mood": 1}]}, "messages[0].mood"),
        ({"messages": [{"role": "tool", "content": "hi"}]}, "messages[0].tool_call_id"),
        ({"messages": _user({"type": "video"})}, "messages[0].content[0]"),
        ({"messages": _user({"type": "text", "text": 1})}, "messages[0].content[0].text"),
        ({"messages": _user({"type": "file", "file": {}})}, "messages[0].content[0].file"),
        (
            {
                "messages": _user(
                    {"type": "file", "file": {"file_id": "a", "file_data": _data_url(b"", "application/pdf")}}
                )
            },
            "messages[0].content[0].file",
        ),
        ({"messages": _user({"type": "file", "file": {"file_data": "aGk="}})}, "messages[0].content[0].file.file_data"),
        (
            {"messages": _user({"type": "image_url", "image_url": {"url": "file-123"}})},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": _user({"type": "image_url", "image_url": {"file_id": "file-1"}})},
            "messages[0].content[0].image_url.url",
        ),
        ({"messages": _MESSAGES, "temperature": 2.1}, "temperature"),
        ({"messages": _MESSAGES, "n": 0}, "n"),
        ({"messages": _MESSAGES, "stop": ["a"] * 5}, "stop"),
        ({"messages": _MESSAGES, "stream": "yes"}, "stream"),
        ({"messages": _MESSAGES, "metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"messages": _MESSAGES, "metadata": {str(key): "x" for key in range(17)}}, "metadata"),
        ({"messages": _MESSAGES, "reasoning_effort": "huge"}, "reasoning_effort"),
        ({"messages": _MESSAGES, "tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"messages": _MESSAGES, "tools": [_tool("a")], "tool_choice": "maybe"}, "tool_choice"),
        ({"messages": _MESSAGES, "tool_choice": "auto"}, None),
        ({"messages": _MESSAGES, "stream_options": {"include_usage": True}}, None),
        ({"messages": _MESSAGES, "file_ids": ["file-1"]}, None),
    ],
)
async def test_a_bad_body_is_refused(client, body, param):
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="gpt-4o", messages=body["messages"], extra_body=body)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    if "file_ids" in body:
        assert refused.value.body["message"] == "Unrecognized request argument supplied: file_ids"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"messages": [{"role": "user", "content": "hi"}]}'])
async def test_a_body_is_an_object_with_a_model(http: httpx.AsyncClient, body):
    headers = {"authorization": "Bearer sk", "content-type": "application/json"}
    assert (await http.post("/openai/v1/chat/completions", content=body, headers=headers)).status_code == 400


async def test_every_known_argument_is_accepted(openai_client):
    await _chat(
        openai_client,
        [{"role": "system", "content": "Be kind."}, *_MESSAGES],
        temperature=0,
        top_p=1,
        stop="x",
        seed=1,
        user="u",
        store=False,
        metadata={"a": "b"},
        logit_bias={"50256": -100},
        max_completion_tokens=5,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {}}},
        reasoning_effort="low",
        verbosity="low",
        service_tier="auto",
        prompt_cache_key="k",
        safety_identifier="s",
        modalities=["text"],
        web_search_options={},
        parallel_tool_calls=True,
        tools=[_tool("a")],
    )


async def test_a_file_of_nobody_or_of_another_account_is_not_found(client):
    uploaded = await client.files.create(file=("a.pdf", _PDF), purpose="assistants")
    messages = _user({"type": "file", "file": {"file_id": uploaded.id}})
    with pytest.raises(openai.NotFoundError, match=f"No such File object: {uploaded.id}"):
        await _chat(client.with_options(api_key="another"), messages)
    await client.files.delete(uploaded.id)
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError):
            await _chat(client, messages, stream=stream)


async def test_unknown_models(openai_client, azure_client):
    for client, code in ((openai_client, "model_not_found"), (azure_client, "DeploymentNotFound")):
        with pytest.raises(openai.NotFoundError) as refused:
            await client.chat.completions.create(model="gpt-0", messages=_MESSAGES)
        assert refused.value.code == code


async def test_azure_tells_of_its_filters(azure_client, azure_v1_client, openai_client):
    for client in (azure_client, azure_v1_client):
        answer = await _chat(client, _MESSAGES)
        assert answer.model_extra["prompt_filter_results"]
        assert answer.choices[0].model_extra["content_filter_results"]
        first, *_ = [chunk async for chunk in await _chat(client, _MESSAGES, stream=True)]
        assert first.choices == []
        assert first.model_extra["prompt_filter_results"]
    assert "prompt_filter_results" not in (await _chat(openai_client, _MESSAGES)).model_extra
