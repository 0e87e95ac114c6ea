"""Chats in another format: server-sent events in any pieces, streams without an end, and requests that are large."""

import asyncio
import json
import threading
from contextlib import AsyncExitStack

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import Rejected, Unavailable
from app.formats.batch_lines import MAX_LINE_BYTES, BatchResult
from app.providers.anthropic import Anthropic, AnthropicParams
from app.providers.protocol import ChatRequest
from app.providers.translated import LARGE_BODY_BYTES, batch_results, sse_events
from tests.support.providers import canned

HEAD = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x"}
END = {"stop_reason": "end_turn", "stop_sequence": None}
COUNTS = {"input_tokens": 1, "output_tokens": 1}
ANSWER = json.dumps({**HEAD, "content": [{"type": "text", "text": "hi"}], "usage": COUNTS, **END}).encode()
EVENTS = [
    {"type": "message_start", "message": {**HEAD, "content": [], "usage": COUNTS}},
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": END, "usage": COUNTS},
    {"type": "message_stop"},
]


def account(http, url, kind=Anthropic):
    return kind(AnthropicParams(api_base=url, api_key="key"), http)


def chat_request(content="hello", *, stream=False, **parameters):
    messages = [{"role": "user", "content": content}]
    body = {"model": "claude-x", "messages": messages, "stream": stream, **parameters}
    return ChatRequest("claude-x", json.dumps(body).encode())


def sse(events, line_end="\n"):
    lines = [line for event in events for line in (f"event: {event['type']}", f"data: {json.dumps(event)}", "")]
    return "".join(line + line_end for line in lines).encode()


# --- events -----------------------------------------------------------------------------------------------------


async def collected(chunks):
    return [event async for event in sse_events(chunks)]


async def each_of(chunks):
    for chunk in chunks:
        yield chunk


def events_in(*chunks):
    """What is read from a stream that comes in these pieces."""
    return asyncio.run(collected(each_of(chunks)))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
objects = st.dictionaries(texts, texts | st.integers(-9, 9) | st.lists(texts, max_size=2), max_size=3)
# What stands between the lines that matter, and is passed over.
asides = st.sampled_from([": a comment", ":", "event: content_block_delta", "id: 7", "retry: 10", "dataset: {}"])
line_ends = st.sampled_from(["\n", "\r\n"])


@st.composite
def streams(draw):
    """Some objects, and a stream of them as the specification allows it."""
    sent, written = draw(st.lists(objects, max_size=5)), ""
    for one in sent:
        # Over several lines, as a `data` each; JSON has no line end but between its values.
        text = json.dumps(one, indent=draw(st.none() | st.just(1)), ensure_ascii=draw(st.booleans()))
        field = draw(st.sampled_from(["data:", "data: "]))
        lines = [line for part in text.split("\n") for line in (*draw(st.lists(asides, max_size=1)), field + part)]
        empty = draw(st.integers(1, 3)) * [""]
        written += "".join(line + draw(line_ends) for line in (*lines, *empty))
    return sent, written.encode()


@settings(max_examples=300)
@given(streams(), st.data())
def test_every_cut_of_a_stream_gives_the_same_events(stream, data):
    sent, written = stream
    assert events_in(written) == sent
    places = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=8)))
    pieces = [written[a:b] for a, b in zip([0, *places], [*places, len(written)], strict=True)]
    assert events_in(*pieces) == sent


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_stream_may_come_byte_by_byte(line_end):
    written = sse(EVENTS, line_end)
    assert events_in(*(written[at : at + 1] for at in range(len(written)))) == EVENTS


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_the_last_event_needs_no_blank_line(end):
    assert events_in(b'data: {"a": 1}' + end.encode()) == [{"a": 1}]


@pytest.mark.parametrize("written", [b"", b"\n\n", b": nothing\n\n", b"event: ping\n\n", b"<html>\n\n</html>"])
def test_what_has_no_data_is_no_event(written):
    assert events_in(written) == []


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"data:", b"data: {", b"\n", b'{"a":', b"1}\n\n"])))
@example([b"data: [DONE]\n\n"])
@example([b"data: \xff\n\n"])
@example([b'data: {"a": 1}\ndata: {"b": 2}\n\n'])
def test_garbage_is_unavailable_or_nothing(pieces):
    written = b"".join(pieces)
    try:
        found = events_in(written)
    except Unavailable:
        # There was data, and no JSON in it.
        assert b"data:" in written
    else:
        assert len(found) <= written.count(b"data:")


# --- streams ----------------------------------------------------------------------------------------------------


async def streamed(http, body):
    """What a client would be sent of this stream, and the error that ended it."""
    received = bytearray()
    async with canned(body=body) as (url, _), AsyncExitStack() as stack:
        stream = await account(http, url).stream_chat(chat_request(stream=True))
        stack.push_async_callback(stream.aclose)
        try:
            async for chunk in stream:
                received += chunk
        except Unavailable as failure:
            return bytes(received), failure
    return bytes(received), None


async def test_a_stream_becomes_openais(http):
    received, failure = await streamed(http, sse(EVENTS))
    assert failure is None
    *events, done, rest = received.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "hi"


@pytest.mark.parametrize("count", range(len(EVENTS)))
@pytest.mark.parametrize("tail", [b"", b"event: ping\n", b'data: {"type": "mess'])
async def test_a_stream_that_ends_early_is_unavailable(http, count, tail):
    received, failure = await streamed(http, sse(EVENTS[:count]) + tail)
    assert failure.retryable
    # What came before is not lost, and nothing says that it was all.
    assert (b'"content":"hi"' in received) is (count > 3)
    assert b"[DONE]" not in received


@pytest.mark.parametrize(
    "event", [b"[]", b"7", b"null", b"{", b'{"type": "message_start"}', b'{"type": "content_block_delta", "delta": 7}']
)
async def test_an_event_that_is_not_as_documented_is_unavailable(http, event):
    received, failure = await streamed(http, sse(EVENTS[:4]) + b"data: " + event + b"\n\n")
    assert failure.message.startswith("the provider's answer cannot be read")
    assert b'"content":"hi"' in received


# --- whole ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"<html>welcome</html>", b"{}", b"[]", b'{"content": 7}', sse(EVENTS)])
async def test_an_answer_that_is_not_as_documented_is_unavailable(http, body):
    async with canned(body=body) as (url, _):
        with pytest.raises(Unavailable):
            await account(http, url).chat(chat_request())


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_is_wrong_is_not_sent(http, stream):
    async with canned(body=ANSWER) as (url, requests):
        provider = account(http, url)
        with pytest.raises(Rejected) as refused:
            await (provider.stream_chat if stream else provider.chat)(chat_request(7, stream=stream))
    assert (refused.value.param, requests) == ("messages[0].content", [])


async def test_a_number_that_is_too_large_for_json_is_a_rejection(http):
    schema = {"type": "object", "maximum": 2**64}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    with pytest.raises(Rejected, match="64-bit"):
        await account(http, "http://unused").chat(chat_request(tools=[tool]))


class Watched(Anthropic):
    """Says in which thread it translates."""

    def translated(self, request):
        self.thread = threading.current_thread()
        return super().translated(request)


@pytest.mark.parametrize(("size", "in_a_thread"), [(10, False), (LARGE_BODY_BYTES, True)])
async def test_a_large_request_is_translated_in_a_thread(http, size, in_a_thread):
    async with canned(body=ANSWER) as (url, requests):
        provider = account(http, url, Watched)
        answer = json.loads(await provider.chat(chat_request("x" * size)))
    assert (provider.thread is not threading.current_thread()) is in_a_thread
    assert answer["choices"][0]["message"]["content"] == "hi"
    assert b"x" * size in requests[0]


# --- results of batches -----------------------------------------------------------------------------------------


async def test_a_result_may_be_longer_than_a_line_that_is_sent():
    line = json.dumps({"key": "one", "image": "x" * MAX_LINE_BYTES}).encode()
    results = batch_results(each_of([line]), lambda found: BatchResult(found["key"]))
    assert [one.key async for several in results for one in several] == ["one"]
