"""Bedrock's runtime plane, through boto3: the answer proves which bytes arrived."""

import hashlib
import json
import struct
import zlib
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EventStreamError
from urllib3.exceptions import ProtocolError

from tests.support.sandbox import Switchboard

_NOVA = "amazon.nova-lite-v1:0"
_SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
_ADAPTIVE = "anthropic.claude-sonnet-4-6"
_LLAMA = "meta.llama3-3-70b-instruct-v1:0"
_THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
_PDF = b"%PDF-1.4 not really"


@contextmanager
def _boto(sandbox, service="bedrock-runtime", key="AKIASANDBOX", path="bedrock", **config):
    client = boto3.client(
        service,
        endpoint_url=f"{sandbox.base_url}/{path}",
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, **config),
    )
    with closing(client):
        yield client


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
def raw(sandbox):
    """For what boto3 does not send; it takes no API key over plain HTTP either."""
    url = f"{sandbox.base_url}/bedrock"
    with httpx.Client(base_url=url, headers={"authorization": "Bearer one"}) as raw:
        yield raw


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


def test_the_frames_of_a_stream(raw):
    answer = raw.post(f"/model/{_NOVA}/converse-stream", json={"messages": [_user("hi")]})
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
    stream = client.converse_stream(modelId=_NOVA, messages=[_user("well throttle: now")])["stream"]
    with closing(stream), pytest.raises(EventStreamError, match="throttlingException"):
        received.extend(stream)
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


def _thought_about(client, text="call:search", **more):
    """A conversation that stands at a call that the model has thought about."""
    config = {"model": _SONNET, "toolConfig": _tools("search"), "additionalModelRequestFields": _THINKING, **more}
    thought, call = _content(_converse(client, text, **config))
    return config, _user(text), thought, call, _user(_result(call["toolUse"]["toolUseId"], "found"))


@pytest.mark.parametrize("text", ["call:search", "redacted: call:search"])
def test_thoughts_come_back_unchanged(client, text):
    config, asked, thought, call, result = _thought_about(client, text)
    answer = _converse(client, asked, _says("assistant", thought, call), result, **config)
    assert _text(answer) == "found"
    # Nobody asks for it when the model does not think any more.
    _converse(client, asked, _says("assistant", call), result, model=_SONNET, toolConfig=_tools("search"))


def test_streamed_thoughts_come_back_unchanged(client):
    config, asked, *_ = _thought_about(client)
    called = _assembled(_events(client, asked, **config))["output"]["message"]
    result = _user(_result(called["content"][1]["toolUse"]["toolUseId"], "found"))
    assert _text(_converse(client, asked, called, result, **config)) == "found"


@pytest.mark.parametrize("thinking", [_THINKING, {"thinking": {"type": "adaptive"}}])
def test_a_thought_that_is_missing_or_another_is_refused(client, thinking):
    config, asked, thought, call, result = _thought_about(
        client, model=_ADAPTIVE, additionalModelRequestFields=thinking
    )
    _config, _asked, another, *_ = _thought_about(client)
    forged = {"reasoningContent": {"reasoningText": {**thought["reasoningContent"]["reasoningText"], "text": "else"}}}
    unsigned = {"reasoningContent": {"reasoningText": {"text": "thinking about it"}}}
    for blocks, message in (
        ([call], "Expected `thinking` or `redacted_thinking`, but found `tool_use`"),
        ([call, thought], "Expected `thinking`"),
        ([another, call], "cannot be modified"),
        ([forged, call], "Invalid `signature`"),
        ([unsigned, call], "Invalid `signature`"),
    ):
        with pytest.raises(client.exceptions.ValidationException, match=message):
            _converse(client, asked, _says("assistant", *blocks), result, **config)


def test_only_enabled_thinking_wants_thoughts_that_there_were_not(client):
    told = (_user("a"), _says("assistant", _call()), _user(_result("c1", "found")))
    config = {"model": _ADAPTIVE, "toolConfig": _tools("search")}
    _converse(client, *told, **config, additionalModelRequestFields={"thinking": {"type": "adaptive"}})
    with pytest.raises(client.exceptions.ValidationException, match="Expected `thinking`"):
        _converse(client, *told, **config, additionalModelRequestFields=_THINKING)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [_NOVA, "amazon.nova-pro-v1:0"])
def test_nova_fetches_files_from_s3(sandbox, client, model, stream):
    """Every credential may read the bucket."""
    with _boto(sandbox, "s3", "AKIAANOTHER", "s3") as s3:
        s3.put_object(Bucket="filemux-sandbox", Key="team/a.pdf", Body=_PDF)
        s3.put_object(Bucket="filemux-sandbox", Key="b.png", Body=b"png")
    document = _s3("document", "pdf", "s3://filemux-sandbox/team/a.pdf", name="a")
    message = _user(document, _s3("image", "png", "s3://filemux-sandbox/b.png"), "hi")
    answer = _assembled(_events(client, message, model=model)) if stream else _converse(client, message, model=model)
    digests = [hashlib.sha256(data).hexdigest() in _text(answer) for data in (_PDF, b"png")]
    assert digests == [True, True]


def test_an_object_that_is_not_there(client):
    for uri in ("s3://filemux-sandbox/none.pdf", "s3://another-bucket/a.pdf"):
        with pytest.raises(client.exceptions.ValidationException, match=uri):
            _converse(client, _user(_s3("document", "pdf", uri, name="a"), "hi"))


_MANY_IMAGES = [_image() for _ in range(21)]
_FIVE = [_document(name=str(number)) for number in range(5)]
_CALLED = [_user("a"), _says("assistant", _call())]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "must start with a user message"),
        ([_says("assistant", "a")], "must start with a user message"),
        ([_says("system", "a"), _user("a")], "must start with a user message"),
        ([_user("a"), _says("assistant", "a")], "must end with a user message"),
        ([_user("a"), _user("b")], "must alternate"),
        ([_user("a"), _says("system", "s"), _user("b")], "must alternate"),
        ([_user()], "content field in the Message object at messages.0 is empty"),
        ([_user("a", " \n")], "text field in the ContentBlock object at messages.0.content.1 is blank"),
        ([_user("a"), _says("assistant", _image()), _user("b")], "can't have image at messages.1.content.0"),
        ([_user("a"), _says("assistant", "b", _document()), _user("c")], "can't have document"),
        ([_user("a", _call())], "can't have toolUse"),
        ([_user("a"), _says("assistant", _result()), _user("c")], "can't have toolResult"),
        ([_user("a"), _says("assistant", "b"), _says("system", _image()), _user("c")], "can't have image"),
        ([_user(_document())], "A text block must be included when using documents"),
        ([_user(_document(), " ")], "is blank"),
        ([_user(_document(name="a.pdf"), "a")], "The document file name can only contain"),
        ([_user(_document(name="a  b"), "a")], "The document file name can only contain"),
        ([_user(_document(name="a_b"), "a")], "The document file name can only contain"),
        ([_user(_document(name="é"), "a")], "The document file name can only contain"),
        ([_user(_document(name="a" * 201), "a")], "at most 200 characters"),
        ([_user(_document(), _document(), "a")], "duplicate document names"),
        ([_user(_document(), "a"), _says("assistant", "b"), _user(_document(), "c")], "duplicate document names"),
        ([*_CALLED, _user(_result("c1", _document(), _document()))], "duplicate document names"),
        ([_user(*_FIVE, _document(), "a")], "more than 5 documents"),
        ([_user(*_FIVE, "a"), _says("assistant", "b"), _user(_document(), "c")], "more than 5 documents"),
        ([_user(*_MANY_IMAGES)], r"too many images and documents: 21 \+ 0 > 20"),
        ([_user(_document(bytes(4_718_593)), "a")], "document exceeds the maximum of 4.5 MB"),
        ([_user(_image(bytes(3_932_161)))], "image exceeds the maximum of 3.75 MB"),
        ([*_CALLED, _user("b")], "Expected toolResult blocks at messages.2.content for the following Ids: c1"),
        ([*_CALLED, _user(_result("c2", "b"))], "Expected toolResult blocks"),
        ([*_CALLED, _user(_result(), _result())], "exceeds the number of toolUse blocks of previous turn"),
        ([_user(_result("c1", "b"))], "exceeds the number of toolUse blocks of previous turn"),
        ([*_CALLED, _user(_result(status="error"))], "cannot be empty when status value is error"),
        ([_user("a"), _says("assistant", _call(), _call()), _user(_result())], "toolUseIds at messages.1.content"),
        ([_user("a"), _says("assistant", _call("a b")), _user(_result("a b"))], "toolUseId"),
        ([_user("a"), _says("assistant", _call("a" * 65)), _user(_result("a" * 65))], "toolUseId"),
        ([_user("a"), _says("assistant", {"reasoningContent": {"redactedContent": b"x"}}), _user("b")], "reasoning"),
    ],
)
def test_a_conversation_that_makes_no_sense_is_refused(client, messages, message):
    for call in (client.converse, client.converse_stream):
        with pytest.raises(client.exceptions.ValidationException, match=message) as refused:
            call(modelId=_NOVA, messages=messages, toolConfig=_tools("search"))
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_what_is_just_small_enough(client):
    message = _user(*_FIVE[:4], _document(bytes(4_718_592), "last"), *_MANY_IMAGES[:19], _image(bytes(3_932_160)), "a")
    assert len(_text(_converse(client, message)).splitlines()) == 26


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"modelId": "amazon.nova-huge-v1:0"}, "The provided model identifier is invalid"),
        ({"modelId": "jp." + _NOVA}, "The provided model identifier is invalid"),
        ({"inferenceConfig": {"temperature": 1.1}}, "'inferenceConfig.temperature'"),
        ({"inferenceConfig": {"topP": -0.1}}, "'inferenceConfig.topP'"),
        ({"inferenceConfig": {"maxTokens": 0}}, "'inferenceConfig.maxTokens'"),
        ({"inferenceConfig": {"maxTokens": 10_001}}, "exceeds the model limit of 10000"),
        ({"inferenceConfig": {"stopSequences": list("abcde")}}, "at most 4 stopSequences"),
        ({"inferenceConfig": {"stopSequences": [""]}}, "'inferenceConfig.stopSequences.1.member'"),
        ({"toolConfig": {"tools": []}}, "'toolConfig.tools'"),
        ({"toolConfig": _tools("a", "a")}, "already defined at toolConfig.tools.0"),
        ({"toolConfig": _tools("a b")}, "'toolConfig.tools.1.member.toolSpec.name'"),
        ({"toolConfig": _tools("a", choice={"tool": {"name": "b"}})}, "not defined"),
        ({"toolConfig": _tools("a", choice={"any": {}}), "modelId": _LLAMA}, "toolConfig.toolChoice.any"),
        ({"toolConfig": {"tools": [{"toolSpec": {"name": "a", "inputSchema": {"json": {}}}}]}}, "following: object"),
        (
            {"toolConfig": {"tools": [{"toolSpec": {"name": "a", "description": "", "inputSchema": {"json": {}}}}]}},
            "'toolConfig.tools.1.member.toolSpec.description'",
        ),
        ({"system": [{"text": ""}]}, "'system.1.member.text'"),
        ({"outputConfig": {"effort": "huge"}}, "'outputConfig.effort'"),
        ({"outputConfig": {"effort": "max"}}, "effort is capped"),
        (
            {"outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": "{"}}}}},
            "'outputConfig.textFormat.structure.jsonSchema.schema'",
        ),
        ({"requestMetadata": {"a": "é"}}, "requestMetadata"),
        ({"serviceTier": {"type": "gold"}}, "'serviceTier.type'"),
        ({"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "0"}}, "guardrailVersion"),
        ({"additionalModelRequestFields": _THINKING}, r"extraneous key \[thinking\] is not permitted"),
        ({"additionalModelRequestFields": {"mood": 1}}, "additionalModelRequestFields.mood"),
        ({"additionalModelRequestFields": {"thinking": {"type": "adaptive"}}, "modelId": _SONNET}, "not supported"),
        ({"additionalModelRequestFields": {"thinking": {"type": "enabled"}}, "modelId": _SONNET}, "budget_tokens"),
        (
            {"additionalModelRequestFields": _THINKING, "modelId": _SONNET, "inferenceConfig": {"maxTokens": 1024}},
            "must be greater than",
        ),
        (
            {"additionalModelRequestFields": _THINKING, "modelId": _SONNET, "inferenceConfig": {"temperature": 0.5}},
            "only be set to 1",
        ),
        (
            {
                "additionalModelRequestFields": _THINKING,
                "modelId": _SONNET,
                "toolConfig": _tools("a", choice={"any": {}}),
            },
            "may not be enabled when tool_choice forces tool use",
        ),
        ({"modelId": _SONNET, "inferenceConfig": {"temperature": 1, "topP": 1}}, "cannot both be specified"),
        ({"modelId": _LLAMA, "messages": [_user("a", _image())]}, "doesn't support the image"),
        ({"messages": [*_CALLED, _user(_result("c1", "b"))]}, "The toolConfig field must be defined"),
        (
            {
                "modelId": _SONNET,
                "messages": [*_CALLED, _user("b", _result("c1", "b"))],
                "toolConfig": _tools("search"),
            },
            "at the beginning of this message",
        ),
        (
            {
                "modelId": _LLAMA,
                "messages": [*_CALLED, _user(_result("c1", "b", status="success"))],
                "toolConfig": _tools("search"),
            },
            "doesn't support the status field",
        ),
        (
            {"modelId": _SONNET, "messages": [_user(_s3("document", "pdf", "s3://filemux-sandbox/a", name="a"), "b")]},
            "doesn't support the s3Location",
        ),
    ],
)
def test_what_a_model_does_not_take_is_refused(client, more, message):
    with pytest.raises(client.exceptions.ValidationException, match=message):
        client.converse(**{"modelId": _NOVA, "messages": [_user("hi")]} | more)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"mood": 1}, "mood"),
        ({"promptVariables": {}}, "promptVariables"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": []}]}, "messages.1.member.role"),
        ({"messages": [_user({"text": "a", "mood": 1})]}, "messages.1.member.content.1.member.mood"),
        ({"messages": [_user({"text": 1})]}, "messages.1.member.content.1.member.text"),
        ({"messages": [_user({})]}, "messages.1.member.content.1.member"),
        ({"messages": [_user({"text": "a", "image": {"format": "png", "source": {"bytes": "aGk="}}})]}, "content.1"),
        ({"messages": [_user({"image": {"format": "tiff", "source": {"bytes": "aGk="}}})]}, "image.format"),
        ({"messages": [_user({"image": {"format": "png", "source": {"bytes": "%"}}})]}, "image.source.bytes"),
        ({"messages": [_user({"image": {"format": "png", "source": {"bytes": ""}}})]}, "image.source.bytes"),
        ({"messages": [_user({"image": {"format": "png", "source": {}}})]}, "image.source"),
        ({"messages": [_user(_document("aGk=", form="rtf"), "a")]}, "document.format"),
        ({"messages": [_user(_s3("document", "pdf", "https://a", name="a"), "b")]}, "document.source.s3Location.uri"),
        ({"guardrailConfig": {"streamProcessingMode": "sync"}}, "guardrailConfig.streamProcessingMode"),
        ({"inferenceConfig": {"maxTokens": "5"}}, "inferenceConfig.maxTokens"),
        (
            {"outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": {}}}}}},
            "schema",
        ),
    ],
)
def test_a_body_that_does_not_fit_its_shape_is_refused(raw, body, where):
    answer = raw.post(f"/model/{_NOVA}/converse", json={"messages": [_user("hi")]} | body)
    assert (answer.status_code, answer.headers["x-amzn-errortype"].partition(":")[0]) == (400, "ValidationException")
    assert where in answer.json()["message"].partition("'")[2].partition("'")[0]


def test_null_is_nothing(raw):
    block = {"text": "hi", "image": None}
    answer = raw.post(f"/model/{_NOVA}/converse", json={"messages": [_user(block)], "toolConfig": None})
    assert answer.json()["output"]["message"]["content"] == [{"text": "hi"}]


def test_a_body_is_json(raw):
    answer = raw.post(f"/model/{_NOVA}/converse", content=b"{")
    assert (answer.status_code, answer.headers["x-amzn-errortype"].partition(":")[0]) == (400, "SerializationException")


def test_every_known_member_is_accepted(client):
    more = {
        "system": [{"text": "Be kind."}],
        "inferenceConfig": {"maxTokens": 2000, "temperature": 1.0, "stopSequences": ["x"]},
        "toolConfig": {
            "tools": [
                {
                    "toolSpec": {
                        "name": "a",
                        "description": "d",
                        "strict": True,
                        "inputSchema": {"json": {"type": "object"}},
                    }
                },
                {"cachePoint": {"type": "default", "ttl": "5m"}},
            ],
            "toolChoice": {"auto": {}},
        },
        "guardrailConfig": {
            "guardrailIdentifier": "abc",
            "guardrailVersion": "DRAFT",
            "trace": "enabled",
            "streamProcessingMode": "async",
        },
        "additionalModelRequestFields": {**_THINKING, "top_k": 5, "anthropic_beta": ["a"]},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
        "requestMetadata": {"team": "a b:c_d@e$f#g=h/i+j,k-l.m"},
        "performanceConfig": {"latency": "standard"},
        "serviceTier": {"type": "default"},
        "outputConfig": {"effort": "max"},
    }
    assert _assembled(_events(client, "hi", model=_SONNET, **more))["output"]["message"]["content"][1] == {"text": "hi"}
    del more["guardrailConfig"]["streamProcessingMode"]
    assert _text(_converse(client, "hi", model=_SONNET, **more)) == "hi"


@pytest.mark.parametrize(
    "model",
    [
        *(profile + model for profile in ("", "us.", "eu.", "global.") for model in (_NOVA, _SONNET, _LLAMA)),
        f"arn:aws:bedrock:us-east-1::foundation-model/{_NOVA}",
        f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{_NOVA}",
    ],
)
def test_a_model_has_many_names(client, model):
    assert _text(_converse(client, "hi", model=model)) == "hi"


def test_the_list_of_models(sandbox):
    with _boto(sandbox, "bedrock") as control:
        models = control.list_foundation_models()["modelSummaries"]
        assert {_NOVA, _SONNET, _LLAMA} < {model["modelId"] for model in models}
        assert all(model["modelArn"].endswith(f"::foundation-model/{model['modelId']}") for model in models)
        only = control.list_foundation_models(byProvider="Meta", byOutputModality="TEXT", byInferenceType="ON_DEMAND")
        assert [model["modelId"] for model in only["modelSummaries"]] == [_LLAMA]
        assert control.list_foundation_models(byCustomizationType="FINE_TUNING")["modelSummaries"] == []


def test_wrong_credentials(sandbox, raw):
    with _boto(sandbox, "bedrock", "bad-key") as control, pytest.raises(ClientError) as refused:
        control.list_foundation_models()
    assert refused.value.response["Error"]["Code"] == "UnrecognizedClientException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    for authorization, kind in (
        ("Bearer bad", "AccessDeniedException"),
        ("Bearer", "MissingAuthenticationTokenException"),
        ("Basic b25lOnR3bw==", "MissingAuthenticationTokenException"),
    ):
        answer = raw.get("/foundation-models", headers={"authorization": authorization})
        assert (answer.status_code, answer.headers["x-amzn-errortype"].partition(":")[0]) == (403, kind)
    assert raw.get("/foundation-models").status_code == 200


def _signed(service="bedrock", signed_headers="host;x-amz-date", day=None, at=None, signature="a" * 64):
    at = at or datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{day or at[:8]}/us-east-1/{service}/aws4_request"
    parameters = f"Credential=AKIASANDBOX/{scope}, SignedHeaders={signed_headers}, Signature={signature}"
    return {"authorization": f"AWS4-HMAC-SHA256 {parameters}", "x-amz-date": at}


def _minutes_from_now(minutes):
    return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y%m%dT%H%M%SZ")


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        (_signed, None),
        (lambda: _signed(at=_minutes_from_now(-13)), None),
        (lambda: _signed(service="s3"), "InvalidSignatureException"),
        (lambda: _signed(signed_headers="host"), "InvalidSignatureException"),
        (lambda: _signed(signed_headers="x-amz-date"), "InvalidSignatureException"),
        (lambda: _signed() | {"x-amz-security-token": "t"}, "InvalidSignatureException"),
        (lambda: _signed(signed_headers="host;x-amz-date;x-amz-security-token") | {"x-amz-security-token": "t"}, None),
        (lambda: _signed(at=_minutes_from_now(-20)), "InvalidSignatureException"),
        (lambda: _signed(at=_minutes_from_now(20)), "InvalidSignatureException"),
        (lambda: _signed(day="20200101"), "InvalidSignatureException"),
        (lambda: _signed(signature="nonsense"), "IncompleteSignatureException"),
        (lambda: _signed(at="today"), "IncompleteSignatureException"),
        (lambda: _signed() | {"x-amz-date": ""}, "IncompleteSignatureException"),
    ],
)
def test_what_is_wrong_with_a_signature(raw, headers, kind):
    # Signed when the test runs: all of them run for longer than a signature lives.
    answer = raw.get("/foundation-models", headers=headers())
    assert answer.status_code == (403 if kind else 200)
    assert answer.headers.get("x-amzn-errortype", "").partition(":")[0] == (kind or "")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "ValidationException"),
        (403, "AccessDeniedException"),
        (404, "ResourceNotFoundException"),
        (408, "ModelTimeoutException"),
        (424, "ModelErrorException"),
        (429, "ThrottlingException"),
        (500, "InternalServerException"),
        (503, "ServiceUnavailableException"),
        *((status, None) for status in (401, 409, 413, 422, 501, 504, 529)),
    ],
)
def test_faults_are_typed(client, board, status, kind):
    for operation, call in (("chat", client.converse), ("stream_chat", client.converse_stream)):
        board.fault("bedrock", operation, status=status)
        with pytest.raises(ClientError) as failed:
            call(modelId=_NOVA, messages=[_user("hi")])
        assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
        assert failed.value.response["Error"]["Message"]
        if kind:
            assert isinstance(failed.value, getattr(client.exceptions, kind))
    assert board.calls("bedrock.chat") == board.calls("bedrock.stream_chat") == 1


def test_other_faults(sandbox, client, board):
    board.fault("bedrock", "list_models", status=429, retry_after_seconds=7)
    with _boto(sandbox, "bedrock") as control, pytest.raises(ClientError) as throttled:
        control.list_foundation_models()
    assert throttled.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"
    board.fault("bedrock", "chat", lose_answer=True)
    with pytest.raises(ConnectionClosedError):
        _converse(client, "hi")
    board.fault("bedrock", "stream_chat", reset_after_bytes=200)
    with pytest.raises(ProtocolError):
        _events(client, "hi")
    assert _text(_converse(client, "hi")) == "hi"


def test_an_unknown_path(raw):
    answer = raw.post(f"/model/{_NOVA}/invoke", json={})
    assert (answer.status_code, answer.headers["x-amzn-errortype"].partition(":")[0]) == (
        404,
        "ResourceNotFoundException",
    )
    assert raw.get(f"/model/{_NOVA}/converse").status_code == 405
