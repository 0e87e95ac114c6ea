"""Bedrock's runtime plane, through boto3: the answer proves which bytes arrived."""

import base64
import hashlib
import json
import struct
import zlib
from datetime import UTC, datetime, timedelta

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EventStreamError

from tests.support.sandbox import Switchboard

_NOVA = "amazon.nova-lite-v1:0"
_SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
_ADAPTIVE = "anthropic.claude-sonnet-4-6"
_LLAMA = "meta.llama3-3-70b-instruct-v1:0"
_THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
_PDF = b"%PDF-1.4 not really"


def _boto(sandbox, service="bedrock-runtime", key="AKIASANDBOX", path="bedrock", **config):
    return boto3.client(
        service,
        endpoint_url=f"{sandbox.base_url}/{path}",
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, **config),
    )


@pytest.fixture(scope="module")
def client(sandbox):
    # botocore would refuse much of what the sandbox is to refuse itself.
    with _boto(sandbox, parameter_validation=False) as client:
        yield client


@pytest.fixture
def board(sandbox):
    board = Switchboard(sandbox.base_url)
    yield board
    board.close()


@pytest.fixture
def http(sandbox):
    """For what boto3 does not send; it takes no API key over plain HTTP either."""
    url = f"{sandbox.base_url}/bedrock"
    with httpx.Client(base_url=url, headers={"authorization": "Bearer one"}) as http:
        yield http


def _line(data, filename="upload"):
    return f"[file filename={filename} bytes={len(data)} sha256={hashlib.sha256(data).hexdigest()}]"


def _says(role, *blocks):
    return {"role": role, "content": [{"text": block} if isinstance(block, str) else block for block in blocks]}


def _user(*blocks):
    return _says("user", *blocks)


def _document(data=_PDF, name="doc 1", form="pdf", **more):
    return {"document": {"format": form, "name": name, "source": {"bytes": data}, **more}}


def _image(data=b"png", form="png"):
    return {"image": {"format": form, "source": {"bytes": data}}}


def _s3(kind, form, uri, **more):
    return {kind: {"format": form, "source": {"s3Location": {"uri": uri}}, **more}}


def _tools(*names, choice=None):
    specs = [{"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object"}}}} for name in names]
    return {"tools": specs, **({"toolChoice": choice} if choice else {})}


def _call(call_id="c1", name="search", **arguments):
    return {"toolUse": {"toolUseId": call_id, "name": name, "input": arguments}}


def _result(call_id="c1", *content, **more):
    blocks = [{"text": block} if isinstance(block, str) else block for block in content]
    return {"toolResult": {"toolUseId": call_id, "content": blocks, **more}}


def _converse(client, *messages, model=_NOVA, **more):
    told = [_user(message) if isinstance(message, str) else message for message in messages]
    return client.converse(modelId=model, messages=told, **more)


def _events(client, *messages, model=_NOVA, **more):
    told = [_user(message) if isinstance(message, str) else message for message in messages]
    stream = client.converse_stream(modelId=model, messages=told, **more)["stream"]
    return [(name, payload) for event in stream for name, payload in event.items()]


def _assembled(events):
    """What a stream says when its pieces are put together, in the shape of the whole answer."""
    blocks = {}
    for name, payload in events:
        if name == "contentBlockStart":
            blocks[payload["contentBlockIndex"]] = {"toolUse": {**payload["start"]["toolUse"], "input": ""}}
        elif name == "contentBlockDelta":
            match payload["delta"]:
                case {"text": text}:
                    block = blocks.setdefault(payload["contentBlockIndex"], {"text": ""})
                    block["text"] += text
                case {"toolUse": {"input": text}}:
                    blocks[payload["contentBlockIndex"]]["toolUse"]["input"] += text
                case {"reasoningContent": {"redactedContent": sealed}}:
                    blocks[payload["contentBlockIndex"]] = {"reasoningContent": {"redactedContent": sealed}}
                case {"reasoningContent": {**piece}}:
                    block = blocks.setdefault(payload["contentBlockIndex"], {"reasoningContent": {"reasoningText": {}}})
                    thought = block["reasoningContent"]["reasoningText"]
                    thought |= {key: thought.get(key, "") + text for key, text in piece.items()}
    for block in blocks.values():
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"]["input"])
    ends = dict(events)
    return {
        "output": {"message": {**ends["messageStart"], "content": [*blocks.values()]}},
        **ends["messageStop"],
        **ends["metadata"],
    }


def _content(answer):
    return answer["output"]["message"]["content"]


def _text(answer):
    return "".join(block["text"] for block in _content(answer) if "text" in block)


def _seals_aside(answer):
    """The answer without what differs from one time to the next: metadata, ids and signatures."""
    blocks = json.loads(json.dumps(_content(answer), default=repr))
    for block in blocks:
        block.get("toolUse", {}).pop("toolUseId", None)
        block.get("reasoningContent", {}).get("reasoningText", {}).pop("signature", None)
        block.get("reasoningContent", {}).pop("redactedContent", None)
    return blocks, answer["stopReason"], answer["usage"], answer["metrics"]


def test_the_answer_names_the_files_and_repeats_the_text(client):
    answer = _converse(
        client,
        _user(
            _document(name="a (1) [x]"),
            {"text": '<file name="b.csv">\n1,2\n</file>'},
            _image(),
            {"video": {"format": "mp4", "source": {"bytes": b"film"}}},
            {"audio": {"format": "wav", "source": {"bytes": b"sound"}}},
            "What is ",
            "this?",
            {"cachePoint": {"type": "default"}},
        ),
        system=[{"text": "Be kind."}, {"cachePoint": {"type": "default"}}],
    )
    assert _text(answer).splitlines() == [
        _line(_PDF, "a (1) [x]"),
        _line(b"1,2", "b.csv"),
        _line(b"png"),
        _line(b"film"),
        _line(b"sound"),
        "What is this?",
    ]
    assert answer["stopReason"] == "end_turn"
    usage = answer["usage"]
    assert usage["totalTokens"] == usage["inputTokens"] + usage["outputTokens"]
    assert answer["metrics"]["latencyMs"] > 0
    assert answer["ResponseMetadata"]["RequestId"]


def test_documents_as_text_want_citations(client):
    cited = {"citations": {"enabled": True}, "format": "txt"}
    written = {"document": {"name": "a", "source": {"text": "plain"}, **cited}}
    pieces = {"document": {"name": "b", "source": {"content": [{"text": "one "}, {"text": "two"}]}, **cited}}
    answer = _converse(client, _user(written, pieces, "hi"))
    assert _text(answer).splitlines() == [_line(b"plain", "a"), _line(b"one two", "b"), "hi"]
    del written["document"]["citations"]
    with pytest.raises(client.exceptions.ValidationException, match="bytes, s3Location"):
        _converse(client, _user(written, "hi"))


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("What is this?", {}),
        ("call:search call:lookup", {"toolConfig": _tools("search", "lookup")}),
        ("think", {"model": _SONNET, "additionalModelRequestFields": _THINKING}),
        ("redacted: think", {"model": _SONNET, "additionalModelRequestFields": _THINKING}),
        ("call:search", {"model": _SONNET, "additionalModelRequestFields": _THINKING, "toolConfig": _tools("search")}),
        ("refuse: no", {}),
        ("one two three four", {"inferenceConfig": {"maxTokens": 2}}),
        ("tiered", {"serviceTier": {"type": "flex"}, "performanceConfig": {"latency": "optimized"}}),
    ],
)
def test_a_stream_says_the_same_in_pieces(client, text, more):
    whole = _converse(client, _user(_document(), text), **more)
    streamed = _assembled(_events(client, _user(_document(), text), **more))
    assert _seals_aside(streamed) == _seals_aside(whole)
    for name in ("serviceTier", "performanceConfig"):
        assert streamed.get(name) == whole.get(name) == more.get(name)


def test_the_events_of_a_stream(client):
    names = [name for name, _payload in _events(client, "one two")]
    texts = ["contentBlockDelta", "contentBlockDelta"]
    assert names == ["messageStart", *texts, "contentBlockStop", "messageStop", "metadata"]
    called = [name for name, _payload in _events(client, "call:search", toolConfig=_tools("search"))]
    assert called == ["messageStart", "contentBlockStart", *texts, "contentBlockStop", "messageStop", "metadata"]


def test_the_frames_of_a_stream(http):
    answer = http.post(f"/model/{_NOVA}/converse-stream", json={"messages": [_user("hi")]})
    assert answer.headers["content-type"] == "application/vnd.amazon.eventstream"
    data, frames = answer.content, []
    while data:
        total, head_bytes, prelude_crc = struct.unpack_from(">III", data)
        frame, data = data[:total], data[total:]
        assert prelude_crc == zlib.crc32(frame[:8])
        assert struct.unpack(">I", frame[-4:])[0] == zlib.crc32(frame[:-4])
        frames.append((frame[12 : 12 + head_bytes], json.loads(frame[12 + head_bytes : -4])))
    assert [payload for _head, payload in frames[:2]] == [
        {"role": "assistant"},
        {"contentBlockIndex": 0, "delta": {"text": "hi"}},
    ]
    expected = b"\x0d:message-type\x07\x00\x05event\x0b:event-type\x07\x00\x0cmessageStart"
    assert frames[0][0] == expected + b"\x0d:content-type\x07\x00\x10application/json"


def test_a_stream_breaks_off(client):
    received = []
    with pytest.raises(EventStreamError, match="throttlingException"):
        for event in client.converse_stream(modelId=_NOVA, messages=[_user("well throttle: now")])["stream"]:
            received.append(event)  # noqa: PERF402
    assert received == [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "well "}}},
    ]
    assert _text(_converse(client, "well throttle: now")) == "well throttle: now"


@pytest.mark.parametrize(
    ("text", "choice", "called"),
    [
        ("call:search now", {"auto": {}}, ["search"]),
        ("call:search call:lookup", None, ["search", "lookup"]),
        ("call:nothing", None, []),
        ("hello", {"any": {}}, ["lookup"]),
        ("hello", {"tool": {"name": "search"}}, ["search"]),
    ],
)
def test_tools(client, text, choice, called):
    answer = _converse(client, text, toolConfig=_tools("lookup", "search", choice=choice))
    calls = [block["toolUse"] for block in _content(answer) if "toolUse" in block]
    assert [(call["name"], call["input"]) for call in calls] == [(name, {"q": text}) for name in called]
    assert answer["stopReason"] == ("tool_use" if called else "end_turn")
    assert bool(_text(answer)) is not bool(called)


def test_claude_can_be_kept_from_parallel_calls(client):
    fields = {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
    config = {"toolConfig": _tools("a", "b"), "additionalModelRequestFields": fields}
    assert len(_content(_converse(client, "call:a call:b", model=_SONNET, **config))) == 1


def test_a_conversation_with_tools_and_files(client):
    config = {"toolConfig": _tools("search", "lookup")}
    first = _user(_document(), "call:search call:lookup")
    called = _converse(client, first, **config)["output"]["message"]
    ids = [block["toolUse"]["toolUseId"] for block in called["content"]]
    results = _user(
        _result(ids[0], "found", _image(b"chart"), status="success"),
        _result(ids[1], {"json": {"n": 1}}, _document(b"found", "found"), status="error"),
    )
    answer = _converse(client, first, called, results, **config)
    files = [_line(_PDF, "doc 1"), _line(b"chart"), _line(b"found", "found")]
    assert _text(answer).splitlines() == [*files, "found", '{"n":1}']
    assert answer["stopReason"] == "end_turn"
    # Blank texts and no content at all are fine in a result that is no error; who goes on speaking is answered.
    again = _user(_result(ids[0], ""), _result(ids[1]), "call:search again")
    called_again = _converse(client, first, called, again, **config)
    assert [block["toolUse"]["input"]["q"] for block in _content(called_again)] == ["call:search again"]


def test_instructions_in_between(client):
    messages = [_user("One"), _says("assistant", "1"), _says("system", "Be kind."), _user("Two")]
    assert _text(_converse(client, *messages)) == "Two"


def test_limits(client):
    cut = _converse(client, "one two three", inferenceConfig={"maxTokens": 2})
    assert (_text(cut), cut["stopReason"], cut["usage"]["outputTokens"]) == ("one two ", "max_tokens", 2)
    stopped = _converse(client, "one two three", inferenceConfig={"stopSequences": ["three", "tw"]})
    assert (_text(stopped), stopped["stopReason"]) == ("one ", "stop_sequence")


def test_json_output(client):
    schema = {"schema": json.dumps({"type": "object"}), "name": "answer"}
    output = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}, "effort": "low"}
    assert json.loads(_text(_converse(client, 'say "hi"', outputConfig=output))) == {"answer": 'say "hi"'}


def test_refusals_and_cached_tokens(client):
    refused = _converse(client, "refuse: no")
    assert refused["stopReason"] == "content_filtered"
    assert "no" not in _text(refused).split()
    usage = _converse(client, "cached: " + "word " * 100)["usage"]
    assert usage["cacheReadInputTokens"] > 0
    disjoint = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
    assert usage["totalTokens"] == sum(usage[name] for name in disjoint)


@pytest.mark.parametrize("text", ["call:search", "redacted: call:search"])
def test_thoughts_come_back_unchanged(client, text):
    more = {"model": _SONNET, "toolConfig": _tools("search"), "additionalModelRequestFields": _THINKING}
    first = _user(text)
    called = _converse(client, first, **more)["output"]["message"]
    thought, call = called["content"]
    result = _user(_result(call["toolUse"]["toolUseId"], "found"))
    assert _text(_converse(client, first, called, result, **more)) == "found"
    assert _text(_converse(client, first, _assembled(_events(client, first, **more))["output"]["message"], _user(
        _result("nobody's", "found")), **more)) if False else True


def _thought_through(client, **more):
    config = {"model": _SONNET, "toolConfig": _tools("search"), "additionalModelRequestFields": _THINKING, **more}
    first = _user("call:search")
    called = _converse(client, first, **config)["output"]["message"]
    return config, first, called["content"]
