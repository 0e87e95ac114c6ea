"""References, one shape of OpenAI's payloads each."""

import time
import tracemalloc

import orjson
import pytest

from app.files.references import Found, Reference, find, position, rewrite

FILE_PART = {"type": "file", "file": {"file_id": "file-mux-1"}}


def body_of(*messages, **members):
    return orjson.dumps({"model": "mini", "messages": list(messages), **members})


def positions(body):
    return [position(body, one) for one in find(body).references]


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool"])
def test_any_role_may_mention_a_file(role):
    assert positions(body_of({"role": role, "content": [FILE_PART]})) == ["messages[0].content[0].file.file_id"]


def test_nested_tool_content_and_several_files():
    nested = {"role": "tool", "content": [{"type": "tool_result", "content": [FILE_PART, FILE_PART]}]}
    body = body_of({"role": "user", "content": "hello"}, {"role": "user", "content": [FILE_PART]}, nested)
    assert positions(body) == [
        "messages[1].content[0].file.file_id",
        "messages[2].content[0].content[0].file.file_id",
        "messages[2].content[0].content[1].file.file_id",
    ]


@pytest.mark.parametrize(
    "body",
    [
        body_of(metadata={"file_id": "file-mux-1"}),
        body_of(tools=[{"type": "function", "function": {"parameters": {"file_id": "file-mux-1"}}}]),
        body_of({"role": "user", "content": 'text with "file_id": "file-mux-1"'}),
        body_of({"role": "assistant", "tool_calls": [{"function": {"arguments": '{"file_id":"file-mux-1"}'}}]}),
        body_of({"role": "user", "file_id": None}, {"role": "user", "file_id": 1}),
    ],
)
def test_whatever_else_looks_like_a_file_is_let_through(body):
    found = find(body)
    assert found.references == ()
    assert rewrite(body, found, "mini", {}.get) == body


def test_spans_are_of_the_callers_own_bytes():
    body = b'{"model": "m", "messages": [{"file_id" : "file-\\u006dux"}], "seed": 123456789012345678901234567890}'
    found = find(body)
    assert found == Found(((10, 13),), (Reference("file-mux", 41, 56),))
    assert rewrite(body, found, "n", {"file-mux": "file-1"}.get) == (
        b'{"model": "n", "messages": [{"file_id" : "file-1"}], "seed": 123456789012345678901234567890}'
    )


def test_a_model_inside_a_message_is_not_the_model():
    body = b'{"messages":[{"model":"x","content":"y"}],"model":"mini"}'
    assert rewrite(body, find(body), "gpt-4o", {}.get) == b'{"messages":[{"model":"x","content":"y"}],"model":"gpt-4o"}'


def test_a_reference_of_another_body_has_no_position():
    with pytest.raises(ValueError, match="not of this body"):
        position(body_of(), Reference("file-mux-1", 0, 3))


def test_thousands_of_parts_are_replaced_in_one_pass():
    """A request of 150 KB must not keep the gateway's other callers waiting."""
    body = body_of({"role": "user", "content": [FILE_PART] * 3_000})
    started = time.thread_time()
    rewritten = rewrite(body, find(body), "gpt-4o", lambda _: b'{"type":"text","text":"short"}')
    assert time.thread_time() - started < 2
    [message] = orjson.loads(rewritten)["messages"]
    assert message["content"] == [{"type": "text", "text": "short"}] * 3_000


def test_a_long_text_costs_no_memory_of_its_own():
    """A few megabytes of source code in a chat, with an escape at each line's end."""
    body = body_of({"role": "user", "content": [{"type": "text", "text": "a\n" * 1_000_000}, FILE_PART]})
    tracemalloc.start()
    try:
        assert [one.file_id for one in find(body).references] == ["file-mux-1"]
        assert tracemalloc.get_traced_memory()[1] < len(body)
    finally:
        tracemalloc.stop()
