"""Anthropic's Messages API, through the official client: the answer proves which bytes arrived."""

import base64
import hashlib
import json

import anthropic
import httpx
import httpx2
import pytest

from tests.sandbox.conftest import Sandbox, Switchboard

_PDF, _PNG = b"%PDF-1.4 not really", b"\x89PNG not really"
_MODEL = "claude-sonnet-5"
_THINKING = {"type": "enabled", "budget_tokens": 1024}
_OLDER = {"anthropic-version": "2023-06-01"}
_HEADERS = {"x-api-key": "one", "anthropic-version": "2026-10-21"}


@pytest.fixture
async def client(sandbox: Sandbox):
    url = f"{sandbox.base_url}/anthropic"
    async with anthropic.AsyncAnthropic(base_url=url, api_key="one", max_retries=0) as client:
        yield client


def _line(data: bytes, filename: str = "upload") -> str:
    return f"[file filename={filename} bytes={len(data)} sha256={hashlib.sha256(data).hexdigest()}]"


def _inline(data: bytes, media_type: str) -> dict:
    return {"type": "base64", "media_type": media_type, "data": base64.b64encode(data).decode()}


def _file(file_id: str) -> dict:
    return {"type": "file", "file_id": file_id}


def _document(source: dict, **more) -> dict:
    return {"type": "document", "source": source, **more}


def _image(source: dict) -> dict:
    return {"type": "image", "source": source}


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


def _user(*blocks: dict | str) -> dict:
    return {"role": "user", "content": [_text(block) if isinstance(block, str) else block for block in blocks]}


def _tools(*names: str) -> list[dict]:
    return [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in names]


def _result(call_id: str, content: object = "1") -> dict:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content}


async def _message(client: anthropic.AsyncAnthropic, *messages: dict | str, **more):
    told = [_user(message) if isinstance(message, str) else message for message in messages]
    return await client.messages.create(**{"model": _MODEL, "max_tokens": 4096, "messages": told} | more)


async def _streamed(client: anthropic.AsyncAnthropic, *messages: dict, **more):
    async with client.messages.stream(model=_MODEL, max_tokens=4096, messages=[*messages], **more) as stream:
        return await stream.get_final_message()


async def _upload(client: anthropic.AsyncAnthropic, data: bytes, filename: str, mime_type: str) -> dict:
    return _file((await client.files.upload(file=(filename, data, mime_type))).id)


async def test_the_answer_names_the_files_and_repeats_the_text(client):
    pdf = await _upload(client, _PDF, "a.pdf", "application/pdf")
    plain = await _upload(client, b"plain", "a.txt", "text/plain; charset=utf-8")
    png = await _upload(client, _PNG, "a.png", "image/png")
    content = [_text("in "), _image(_inline(_PNG, "image/png")), _text("blocks")]
    answer = await _message(
        client,
        _user(
            _document(pdf, title="A"),
            _document(plain),
            _image(png),
            _document(_inline(b"inline", "application/pdf"), title="b.pdf", citations={"enabled": False}),
            _document({"type": "text", "media_type": "text/plain", "data": "é"}, title="b.txt", context="c"),
            _document({"type": "content", "content": content}, title="c"),
            _document({"type": "content", "content": "short"}),
            _document({"type": "url", "url": "https://example.org/a.pdf"}),
            _image({"type": "url", "url": "https://example.org/a.png"}),
            '<file name="d.csv">\n1,2\n</file>',
            "What is ",
            "this?",
        ),
    )
    (said,) = answer.content
    assert said.text.splitlines() == [
        _line(_PDF, "a.pdf"),
        _line(b"plain", "a.txt"),
        _line(_PNG, "a.png"),
        _line(b"inline", "b.pdf"),
        _line("é".encode(), "b.txt"),
        _line(b"in blocks", "c"),
        _line(_PNG),
        _line(b"short"),
        _line(b"1,2", "d.csv"),
        "What is this?",
    ]
    assert (answer.stop_reason, answer.stop_sequence, answer.model) == ("end_turn", None, _MODEL)


@pytest.mark.parametrize(
    ("text", "more", "stop_reason"),
    [
        ("one two  three\n", {}, "end_turn"),
        ("one two three", {"stop_sequences": ["three", "tw"]}, "stop_sequence"),
        ("call:a and call:b", {"tools": _tools("a", "b")}, "tool_use"),
        ("call:a", {"tools": _tools("a"), "thinking": {"type": "adaptive"}}, "tool_use"),
        ("hm", {"thinking": _THINKING}, "end_turn"),
        ("hm", {"thinking": {"type": "adaptive", "display": "omitted"}}, "end_turn"),
        ("redacted: hm", {"thinking": _THINKING}, "end_turn"),
        ("refuse: hm", {}, "refusal"),
        ("cached: hm", {"output_config": {"format": {"type": "json_schema", "schema": {}}}}, "end_turn"),
    ],
)
async def test_a_stream_says_the_same(client, text, more, stop_reason):
    whole, streamed = await _message(client, text, **more), await _streamed(client, _user(text), **more)
    assert whole.stop_reason == stop_reason
    for field in ("stop_reason", "stop_sequence", "stop_details", "usage", "model", "role"):
        assert getattr(streamed, field) == getattr(whole, field)
    unlike = {"id", "signature", "data", "parsed_output"}
    said = [[block.model_dump(exclude=unlike) for block in message.content] for message in (whole, streamed)]
    assert said[0] == said[1]


async def test_the_events_are_those_of_the_vendor(http: httpx.AsyncClient):
    body = {
        "model": _MODEL,
        "max_tokens": 99,
        "stream": True,
        "thinking": {"type": "adaptive"},
        "tools": _tools("a"),
        "messages": [_user("call:a")],
    }
    answer = await http.post("/anthropic/v1/messages", headers=_HEADERS, json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = [frame.split("\n") for frame in answer.text.removesuffix("\n\n").split("\n\n")]
    events = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [name for name, _ in frames] == [f"event: {event['type']}" for event in events]
    deltas = ["content_block_delta"] * 3
    assert [event["type"] for event in events] == [
        *("message_start", "ping"),
        *("content_block_start", *deltas, "content_block_delta", "content_block_stop"),
        *("content_block_start", *deltas, "content_block_stop"),
        *("message_delta", "message_stop"),
    ]
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert starts[0] == {"type": "thinking", "thinking": "", "signature": ""}
    assert (starts[1]["name"], starts[1]["input"]) == ("a", {})
    assert events[0]["message"]["stop_reason"] is None
    assert "".join(event["delta"].get("partial_json", "") for event in events if "delta" in event) == '{"q":"call:a"}'
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("text", "choice", "called"),
    [
        ("call:search now", {"type": "auto"}, ["search"]),
        ("call:search call:lookup call:search", None, ["search", "lookup"]),
        ("call:search call:lookup", {"type": "auto", "disable_parallel_tool_use": True}, ["search"]),
        ("call:nothing", {"type": "auto"}, []),
        ("hello", {"type": "any"}, ["lookup"]),
        ("hello", {"type": "tool", "name": "search"}, ["search"]),
        ("call:lookup", {"type": "tool", "name": "search", "disable_parallel_tool_use": True}, ["search"]),
        ("call:search", {"type": "none"}, []),
    ],
)
async def test_tools_are_called(client, text, choice, called):
    more = {} if choice is None else {"tool_choice": choice}
    answer = await _message(client, text, tools=_tools("lookup", "search"), **more)
    calls = [block for block in answer.content if block.type == "tool_use"]
    assert [call.name for call in calls] == called
    assert all(call.input == {"q": text} for call in calls)
    assert (answer.stop_reason == "tool_use") == bool(called)


async def test_results_are_answered_with_the_files_in_them(client):
    pdf = await _upload(client, _PDF, "a.pdf", "application/pdf")
    asked = _user(_document(pdf), "call:a call:b")
    called = await _message(client, asked, tools=_tools("a", "b"))
    first, second = (block.id for block in called.content)
    framed = [_text('<file name="r.md">\nr\n</file>'), _image(_inline(_PNG, "image/png")), _text("two")]
    results = _user(_result(first, "one"), _result(second, framed))
    answer = await _message(client, asked, called.to_param(), results, tools=_tools("a", "b"))
    lines = [_line(_PDF, "a.pdf"), _line(b"r", "r.md"), _line(_PNG)]
    assert answer.content[0].text.splitlines() == [*lines, "one", "two"]
    goes_on = _user(_result(first, ""), {"type": "tool_result", "tool_use_id": second, "is_error": True}, "And?")
    answer = await _message(client, asked, called.to_param(), goes_on)
    assert answer.content[0].text.splitlines() == [_line(_PDF, "a.pdf"), "And?"]


async def test_messages_of_one_role_are_one_turn(client):
    called = await _message(client, "call:a call:b", tools=_tools("a", "b"))
    one, two = called.to_param()["content"]
    conversation = [
        "call:a call:b",
        *({"role": "assistant", "content": [call]} for call in (one, two)),
        *(_user(_result(call.id, call.name)) for call in (one, two)),
    ]
    assert (await _message(client, *conversation)).content[0].text == "a\nb"


@pytest.mark.parametrize(
    ("more", "text", "stop_reason", "stop_sequence"),
    [
        ({"max_tokens": 2}, "one two ", "max_tokens", None),
        ({"max_tokens": 3}, "one two three", "end_turn", None),
        ({"max_tokens": 0}, "", "max_tokens", None),
        ({"stop_sequences": ["x", " three", "two"]}, "one ", "stop_sequence", "two"),
        ({"max_tokens": 1, "stop_sequences": ["three"]}, "one ", "max_tokens", None),
    ],
)
async def test_an_answer_is_cut_where_the_request_says(client, more, text, stop_reason, stop_sequence):
    answer = await _message(client, "one two three", **more)
    assert "".join(block.text for block in answer.content) == text
    assert (answer.stop_reason, answer.stop_sequence) == (stop_reason, stop_sequence)
    assert answer.usage.output_tokens == len(text.split())


async def test_a_refusal_says_why(client):
    answer = await _message(client, "refuse: this")
    assert (answer.content, answer.stop_details.category) == ([], "general_harms")
    assert answer.stop_details.explanation


async def test_json_is_answered_when_a_schema_asks_for_it(client):
    output = {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}}
    answer = await _message(client, "hello", output_config=output)
    assert json.loads(answer.content[0].text) == {"answer": "hello"}


async def test_usage_adds_up(client):
    plain, cached = await _message(client, "x" * 7 + " hm"), await _message(client, "cached: hm")
    assert (plain.usage.cache_read_input_tokens, cached.usage.cache_creation_input_tokens) == (0, 0)
    assert cached.usage.cache_read_input_tokens > 0
    assert cached.usage.input_tokens + cached.usage.cache_read_input_tokens == plain.usage.input_tokens
    thinking = (await _message(client, "hm", thinking=_THINKING)).usage
    assert (thinking.output_tokens, thinking.output_tokens_details.thinking_tokens) == (4, 3)


# Thinking


async def _thought(client, text: str = "call:a", thinking: dict = _THINKING) -> list[dict]:
    """The question and the model's thoughtful call."""
    called = await _message(client, text, tools=_tools("a"), thinking=thinking)
    blocks = [block.model_dump(exclude_none=True) for block in called.content]
    assert blocks[-1]["type"] == "tool_use"
    return [_user(text), {"role": "assistant", "content": blocks}, _user(_result(blocks[-1]["id"]))]


@pytest.mark.parametrize(
    ("text", "thinking", "kind"),
    [
        ("call:a", _THINKING, "thinking"),
        ("call:a", {"type": "adaptive"}, "thinking"),
        ("call:a", {"type": "adaptive", "display": "omitted"}, "thinking"),
        ("call:a redacted:", _THINKING, "redacted_thinking"),
    ],
)
async def test_thoughts_come_back_unchanged(client, text, thinking, kind):
    conversation = await _thought(client, text, thinking)
    assert conversation[1]["content"][0]["type"] == kind
    answer = await _message(client, *conversation, tools=_tools("a"), thinking=thinking)
    assert [block.type for block in answer.content] == [kind, "text"]
    assert answer.content[1].text == "1"


@pytest.mark.parametrize("thinking", [_THINKING, {"type": "adaptive"}])
async def test_a_call_without_the_thought_that_led_to_it_is_refused(client, thinking):
    conversation = await _thought(client, thinking=thinking)
    thought, call = conversation[1]["content"]
    other, _ = (await _thought(client))[1]["content"]
    for blocks, message in (
        ([call], "Expected `thinking` or `redacted_thinking`, but found `tool_use`"),
        ([_text("so"), thought, call], "Expected `thinking` or `redacted_thinking`, but found `text`"),
        ([other, call], "blocks in the latest assistant message cannot be modified"),
        ([thought | {"thinking": "something else"}, call], "Invalid `signature` in `thinking` block"),
        ([thought | {"signature": "c2ln"}, call], "Invalid `signature` in `thinking` block"),
        ([thought | {"signature": "?"}, call], "Invalid `signature` in `thinking` block"),
        ([thought | {"signature": "é"}, call], "Invalid `signature` in `thinking` block"),
        ([{"type": "redacted_thinking", "data": "c2ln"}, call], "Invalid `data` in `redacted_thinking` block"),
        ([{"type": "redacted_thinking", "data": "é"}, call], "Invalid `data` in `redacted_thinking` block"),
    ):
        conversation[1]["content"] = blocks
        with pytest.raises(anthropic.BadRequestError) as refused:
            await _message(client, *conversation, tools=_tools("a"), thinking=thinking)
        assert message in refused.value.api_message


async def test_a_thought_may_be_left_out_where_nothing_depends_on_it(client):
    conversation = await _thought(client)
    del conversation[1]["content"][0]
    # Without thinking nothing is to be continued, and a turn that is over is not continued either.
    assert (await _message(client, *conversation)).content[0].text == "1"
    over = [*conversation, {"role": "assistant", "content": "done"}, _user("next")]
    assert (await _message(client, *over, thinking=_THINKING)).content[-1].text == "next"


async def test_only_enabled_thinking_wants_a_thought_that_never_was(client):
    called = await _message(client, "call:a", tools=_tools("a"))
    conversation = ["call:a", called.to_param(), _user(_result(called.content[0].id))]
    assert (await _message(client, *conversation, thinking={"type": "adaptive"})).content[-1].text == "1"
    with pytest.raises(anthropic.BadRequestError, match="must start with a thinking block"):
        await _message(client, *conversation, thinking=_THINKING)


# Refusals


def _call(call_id: str = "t1") -> dict:
    return {"type": "tool_use", "id": call_id, "name": "a", "input": {}}


def _assistant(*blocks: dict) -> dict:
    return {"role": "assistant", "content": [*blocks]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"max_tokens": None}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": -1}, "max_tokens: "),
        ({"messages": []}, "messages: "),
        ({"messages": "hi"}, "messages: "),
        ({"messages": [{"role": "system", "content": "hi"}]}, "messages.0: "),
        ({"messages": [{"role": "user"}]}, "messages.0.user.content: Field required"),
        ({"messages": [_user()]}, "messages.0.user.content: "),
        ({"messages": [{"role": "user", "content": ""}]}, "text content blocks must contain non-whitespace text"),
        ({"messages": [_user(" \n")]}, "text content blocks must contain non-whitespace text"),
        ({"messages": [{"role": "user", "content": "hi", "name": "x"}]}, "name: Extra inputs are not permitted"),
        ({"messages": [_user({"type": "video"})]}, "messages.0.user.content.0: "),
        ({"messages": [_user(_image(_inline(b"x", "image/bmp")))]}, "media_type: "),
        ({"messages": [_user(_document(_inline(b"x", "text/csv")))]}, "media_type: "),
        ({"messages": [_user(_document({"type": "text", "media_type": "text/plain"}))]}, "data: Field required"),
        ({"messages": [_user(_image(_inline(b"x", "image/png") | {"data": "?"}))]}, "not valid base64"),
        ({"messages": [_user(_image({"type": "url", "url": "data:image/png;base64,"}))]}, "url: "),
        ({"messages": [_user(_image({"type": "file", "file_id": "f", "detail": "low"}))]}, "Extra inputs"),
        ({"messages": [_user(_call())]}, "messages.0.user.content.0: "),
        ({"messages": [_user("hi"), _assistant(_result("t1")), _user("hi")]}, "messages.1.assistant.content.0: "),
        ({"messages": [_user("hi"), _assistant(_text("Well"))]}, "does not support assistant message prefill"),
        ({"messages": [_user("hi"), _assistant(_call())]}, "does not support assistant message prefill"),
        ({"messages": [_user("hi"), _assistant(_call("?")), _user(_result("?"))]}, "id: String should match pattern"),
        ({"messages": [_user("hi"), _assistant(_call()), _user("hi")]}, "ids were found without `tool_result`"),
        ({"messages": [_user("a"), _assistant(_call()), _user("b", _result("t1"))]}, "without `tool_result`"),
        (
            {"messages": [_user("a"), _assistant(_call(), _call("t2")), _user(_result("t1"))]},
            "immediately after: t2.",
        ),
        ({"messages": [_user(_result("t1"))]}, "unexpected `tool_use_id`"),
        (
            {"messages": [_user("a"), _assistant(_call()), _user(_result("t1"), _result("t2"))]},
            "blocks: t2.",
        ),
        (
            {"messages": [_user("a"), _assistant(_call()), _user(_result("t1"), _result("t1"))]},
            "each tool_use must have a single result",
        ),
        ({"messages": [_user("a"), *[_assistant(_call()), _user(_result("t1"))] * 2]}, "ids must be unique"),
        ({"tools": [{"name": "a b", "input_schema": {"type": "object"}}]}, "tools.0.name: "),
        ({"tools": [{"name": "a", "input_schema": {}}]}, "tools.0.input_schema.type: Field required"),
        ({"tools": _tools("a", "a")}, "Tool names must be unique"),
        ({"tool_choice": {"type": "auto"}}, "while providing tools"),
        ({"tools": _tools("a"), "tool_choice": {"type": "tool"}}, "tool_choice.tool.name: Field required"),
        ({"tools": _tools("a"), "tool_choice": {"type": "tool", "name": "b"}}, "Tool 'b' not found"),
        (
            {"tools": _tools("a"), "tool_choice": {"type": "none", "disable_parallel_tool_use": True}},
            "tool_choice.none",
        ),
        ({"tools": _tools("a"), "tool_choice": "auto"}, "tool_choice"),
        ({"tools": _tools("a"), "tool_choice": {"type": "any"}, "thinking": _THINKING}, "Thinking may not be enabled"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1023}}, "thinking.enabled.budget_tokens: "),
        ({"thinking": {"type": "enabled"}}, "thinking.enabled.budget_tokens: Field required"),
        ({"thinking": _THINKING, "max_tokens": 1024}, "must be greater than `thinking.budget_tokens`"),
        ({"thinking": {"type": "disabled", "budget_tokens": 1024}}, "Extra inputs are not permitted"),
        ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format."),
        ({"output_config": {"effort": "minimal"}}, "output_config.effort: "),
        ({"stop_sequences": ["\n"]}, "each stop sequence must contain non-whitespace"),
        ({"stop_sequences": "x"}, "stop_sequences: "),
        ({"stream": "yes"}, "stream: "),
        ({"system": ""}, "text content blocks must contain non-whitespace text"),
        ({"service_tier": "flex"}, "service_tier: "),
        ({"metadata": {"user": "x"}}, "metadata.user: Extra inputs are not permitted"),
        ({"seed": 1}, "seed: Extra inputs are not permitted"),
        ({"n": 1}, "n: Extra inputs are not permitted"),
    ],
)
async def test_a_bad_body_is_refused(http: httpx.AsyncClient, body, message):
    good = {"model": _MODEL, "max_tokens": 4096, "messages": [_user("hi")]}
    answer = await http.post("/anthropic/v1/messages", headers=_HEADERS, json=good | body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"messages": [{"role": "user", "content": "hi"}]}'])
async def test_a_body_is_an_object_with_a_model_and_max_tokens(http: httpx.AsyncClient, body):
    headers = _HEADERS | {"content-type": "application/json"}
    assert (await http.post("/anthropic/v1/messages", content=body, headers=headers)).status_code == 400
    body = {"model": _MODEL, "messages": [_user("hi")]}
    answer = await http.post("/anthropic/v1/messages", json=body, headers=_HEADERS)
    assert answer.json()["error"]["message"] == "max_tokens: Field required"
    body["max_tokens"] = 1
    headers["content-type"] = "text/plain"
    assert (await http.post("/anthropic/v1/messages", json=body, headers=headers)).status_code == 400
    answer = await http.post("/anthropic/v1/messages", json=body, headers={"x-api-key": "one"})
    assert answer.json()["error"]["message"] == "anthropic-version: header is required"


async def test_a_body_of_more_than_32_mb_is_too_large(client):
    with pytest.raises(anthropic.APIStatusError) as refused:
        await _message(client, "x" * 32 * 1024**2)
    assert (refused.value.status_code, refused.value.type) == (413, "request_too_large")


_CITED = _text("hi") | {"citations": []}
_SHOWN = _document({"type": "text", "media_type": "text/plain", "data": "a"})


@pytest.mark.parametrize(
    ("messages", "more"),
    [
        (["hi"], {"temperature": 0.5}),
        (["hi"], {"top_p": 0.5}),
        (["hi"], {"top_k": 5}),
        ([_user(_CITED)], {}),
        (["hi", _assistant(_SHOWN), "and?"], {}),
    ],
)
async def test_the_newest_version_has_removed_some_things(client, messages, more):
    with pytest.raises(anthropic.BadRequestError) as refused:
        await _message(client, *messages, extra_body=more)
    assert refused.value.type == "invalid_request_error"
    assert (await _message(client, *messages, extra_body=more, extra_headers=_OLDER)).stop_reason == "end_turn"


@pytest.mark.parametrize(
    "more", [{"temperature": 1.1}, {"top_p": 2}, {"top_k": -1}, {"temperature": 0, "thinking": _THINKING}]
)
async def test_the_older_version_bounds_them(client, more):
    with pytest.raises(anthropic.BadRequestError, match=next(iter(more))):
        await _message(client, "hi", extra_body=more, extra_headers=_OLDER)


async def test_citations_of_the_assistant_come_back(client):
    said = {"role": "assistant", "content": [_CITED]}
    assert (await _message(client, "hi", said, "and?")).content[0].text == "and?"


async def test_every_known_argument_is_accepted(client):
    cache = {"type": "ephemeral", "ttl": "1h"}
    await _message(
        client,
        _user(_text("hi") | {"cache_control": cache}),
        system=[_text("Be kind.") | {"cache_control": cache}],
        tools=[_tools("a")[0] | {"type": "custom", "description": "d", "strict": True, "cache_control": cache}],
        tool_choice={"type": "auto", "disable_parallel_tool_use": False},
        thinking={"type": "disabled"},
        output_config={"effort": "max", "format": None},
        stop_sequences=["x"],
        metadata={"user_id": "u"},
        service_tier="standard_only",
        cache_control={"type": "ephemeral"},
        inference_geo="us",
    )


# Files


async def test_a_block_holds_a_file_of_its_type_only(client):
    pdf = await _upload(client, _PDF, "a.pdf", "application/pdf")
    png = await _upload(client, _PNG, "a.png", "image/png")
    csv = await _upload(client, b"1,2", "a.csv", "text/csv")
    bmp = await _upload(client, b"BM", "a.bmp", "image/bmp")
    for block in (_image(pdf), _document(png), _document(csv), _image(bmp)):
        with pytest.raises(anthropic.BadRequestError, match=block["source"]["file_id"]):
            await _message(client, _user(block))


async def test_a_file_of_nobody_or_of_another_account_is_not_found(client, switchboard: Switchboard):
    uploaded = await client.files.upload(file=("a.pdf", _PDF, "application/pdf"), expires_in_seconds=3600)
    message = _user(_document(_file(uploaded.id)))
    with pytest.raises(anthropic.NotFoundError, match=f"File not found: {uploaded.id}"):
        await _message(client.with_options(api_key="another"), message)
    await switchboard.advance(3600)
    for stream in (False, True):
        with pytest.raises(anthropic.NotFoundError) as refused:
            await _message(client, message, stream=stream)
        assert refused.value.error_code == "file_expired"


async def test_unknown_models(client):
    with pytest.raises(anthropic.NotFoundError, match="model: claude-0"):
        await _message(client, "hi", model="claude-0")


async def test_chat_and_its_stream_are_operations_of_their_own(client, switchboard: Switchboard):
    await switchboard.fault(provider="anthropic", operation="stream_chat", status=529)
    await _message(client, "hi")
    with pytest.raises(anthropic.InternalServerError) as failed:
        await _streamed(client, _user("hi"))
    assert failed.value.type == "overloaded_error"
    assert await switchboard.requests() == {"anthropic.chat": 1, "anthropic.stream_chat": 1}


async def test_a_stream_is_cut(client, switchboard: Switchboard):
    await switchboard.fault(provider="anthropic", operation="stream_chat", reset_after_bytes=600)
    with pytest.raises(httpx2.RemoteProtocolError):
        await _streamed(client, _user("one two three"))
