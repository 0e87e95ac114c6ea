"""Function calls, their signatures, and thinking: what each generation of Gemini does about them."""

import base64
import json

import httpx
import pytest
from google.genai import types

from tests.sandbox.conftest import Sandbox
from tests.sandbox.gemini_client import (
    PDF,
    SECOND,
    THIRD,
    ask,
    assert_refused,
    line,
    open_client,
    parts_of,
    post,
    stream,
    upload,
)

_SEARCH = types.FunctionDeclaration(name="search", parameters_json_schema={"type": "object"})
_LOOKUP = types.FunctionDeclaration(
    name="lookup", parameters=types.Schema(type="OBJECT", properties={"q": types.Schema(type="STRING")})
)
_TOOLS = [types.Tool(function_declarations=[_LOOKUP, _SEARCH])]


@pytest.fixture
def client(sandbox: Sandbox):
    with open_client(sandbox.base_url) as client:
        yield client


def _without_calling(**config) -> dict:
    return {"automatic_function_calling": {"disable": True}, "tools": _TOOLS, **config}


@pytest.mark.parametrize("model", [SECOND, THIRD])
@pytest.mark.parametrize(
    ("text", "config", "called"),
    [
        ("call:search now", {}, ["search"]),
        ("call:search call:lookup", {}, ["search", "lookup"]),
        ("call:nothing", {}, []),
        ("hello", {}, []),
        ("hello", {"mode": "ANY"}, ["lookup"]),
        ("hello", {"mode": "ANY", "allowed_function_names": ["search"]}, ["search"]),
        ("call:search", {"mode": "NONE"}, []),
    ],
)
def test_functions(client, model, text, config, called):
    more = _without_calling(tool_config={"function_calling_config": config})
    answer = ask(client, text, model, **more).candidates[0]
    streamed = parts_of(stream(client, text, model, **more))
    calls = [part.function_call for part in answer.content.parts if part.function_call]
    assert [call.name for call in calls] == called
    assert [part.function_call.name for part in streamed if part.function_call] == called
    assert answer.finish_reason == types.FinishReason.STOP
    assert all(call.args == {"q": text} for call in calls)
    if not called:
        assert answer.content.parts[0].text == text
        return
    assert all((call.id is not None) == (model == THIRD) for call in calls)
    for parts in (answer.content.parts, streamed):
        signed = [part.thought_signature is not None for part in parts]
        assert signed == [model == THIRD, *[False] * (len(called) - 1)]


@pytest.mark.parametrize("model", [SECOND, THIRD])
def test_the_sdk_calls_functions_by_itself(client, model):
    asked = []

    def lookup(q: str) -> str:
        """Look something up."""
        asked.append(q)
        return f"found {q}"

    chat = client.chats.create(model=model, config={"tools": [lookup]})
    uploaded = upload(client, display_name="a.pdf")
    part = types.Part.from_uri(file_uri=uploaded.uri, mime_type="application/pdf")
    answer = chat.send_message([part, "call:lookup"])
    assert asked == ["call:lookup"]
    result = json.dumps({"result": "found call:lookup"}, separators=(",", ":"))
    assert answer.text.splitlines() == [line(PDF, "a.pdf"), result]
    assert chat.send_message("Thanks").text.splitlines() == [line(PDF, "a.pdf"), "Thanks"]


def _call(name: str = "lookup", call_id: str | None = None, **part) -> dict:
    return {"functionCall": {"name": name, "args": {"q": 1}, "id": call_id}, **part}


def _result(name: str = "lookup", call_id: str | None = None, **response) -> dict:
    return {"functionResponse": {"name": name, "id": call_id, "response": {"output": "found"}, **response}}


def _history(model_parts: list[dict], user_parts: list[dict]) -> dict:
    user, model = {"role": "user", "parts": [{"text": "call:lookup"}]}, {"role": "model", "parts": model_parts}
    contents = [user, model, *([{"role": "user", "parts": user_parts}] if user_parts else [])]
    return {"contents": contents, "tools": [{"functionDeclarations": [{"name": "lookup"}]}]}


async def _said(http: httpx.AsyncClient, body: dict, model: str = SECOND) -> str:
    answer = await post(http, body, model=model)
    assert answer.status_code == 200, answer.text
    return answer.json()["candidates"][0]["content"]["parts"][0]["text"]


@pytest.mark.parametrize(
    ("model_parts", "user_parts", "said"),
    [
        ([_call()], [_result()], "found"),
        ([_call()], [_result(response={"error": "nothing"})], "nothing"),
        ([_call()], [_result(response={"a": 1})], '{"a":1}'),
        ([_call(), _call("search")], [_result("search", response={"output": "b"}), _result()], "b\nfound"),
        ([_call(call_id="x"), _call(call_id="y")], [_result(call_id="y"), _result(call_id="x")], "found\nfound"),
        ([_call(call_id="x")], [_result()], "found"),
        ([_call()], [_result(), {"text": "Thanks"}], "Thanks"),
    ],
)
async def test_results_of_functions_are_answered(http: httpx.AsyncClient, model_parts, user_parts, said):
    assert await _said(http, _history(model_parts, user_parts)) == said


@pytest.mark.parametrize(
    ("model_parts", "user_parts"),
    [
        ([_call()], []),
        ([_call()], [{"text": "and?"}]),
        ([_call(), _call()], [_result()]),
        ([_call()], [_result(), _result()]),
        ([_call()], [_result("search")]),
        ([_call(call_id="x")], [_result(call_id="y")]),
        ([{"text": "no"}], [_result()]),
        ([_call()], [{"functionResponse": {"response": {}}}]),
        ([_call()], [{"functionResponse": {"name": "lookup", "response": "found"}}]),
        ([_result()], [{"text": "hi"}]),
    ],
)
async def test_calls_and_results_must_match(http: httpx.AsyncClient, model_parts, user_parts):
    assert_refused(await post(http, _history(model_parts, user_parts)))


async def test_calls_follow_the_user(http: httpx.AsyncClient):
    body = _history([_call()], [_result()])
    body["contents"].insert(1, {"role": "model", "parts": [{"text": "Let me see"}]})
    assert "immediately after a user turn" in assert_refused(await post(http, body))["message"]
    body["contents"] = body["contents"][2:]
    assert "immediately after a user turn" in assert_refused(await post(http, body))["message"]


async def test_files_of_functions_are_read_by_the_third_generation(client, http: httpx.AsyncClient):
    uploaded = upload(client, display_name="a.pdf")
    files = [
        {"inlineData": {"mimeType": "image/png", "data": "aGk=", "displayName": "b.png"}},
        {"fileData": {"fileUri": uploaded.uri, "mimeType": "application/pdf"}},
    ]
    body = _history([_call(thoughtSignature="skip_thought_signature_validator")], [_result(parts=files)])
    assert await _said(http, body, THIRD) == "\n".join([line(b"hi", "b.png"), line(PDF, "a.pdf"), "found"])
    assert "not supported" in assert_refused(await post(http, body))["message"]
    body = _history([_call()], [_result(), files[1]])
    assert await _said(http, body) == f"{line(PDF, 'a.pdf')}\nfound"
    wav = [{"inlineData": {"mimeType": "audio/wav", "data": "aGk="}}]
    body = _history([_call(thoughtSignature="skip_thought_signature_validator")], [_result(parts=wav)])
    assert "Unsupported MIME type" in assert_refused(await post(http, body, model=THIRD))["message"]


async def test_signatures_come_back_unchanged(http: httpx.AsyncClient):
    body = _history([{"text": "no"}], [{"text": "call:lookup"}])
    first = (await post(http, body, model=THIRD)).json()["candidates"][0]["content"]
    (part,) = first["parts"]
    result = _result(call_id=part["functionCall"]["id"])

    async def again(**changed) -> httpx.Response:
        call = {name: value for name, value in (part | changed).items() if value is not None}
        return await post(http, _history([call], [result]), model=THIRD)

    assert (await again()).status_code == 200
    for accepted in (
        "skip_thought_signature_validator",
        base64.b64encode(b"skip_thought_signature_validator").decode(),
    ):
        assert (await again(thoughtSignature=accepted)).status_code == 200
    assert "missing a thought_signature" in assert_refused(await again(thoughtSignature=None))["message"]
    assert "Corrupted thought signature" in assert_refused(await again(thoughtSignature="c2ln"))["message"]
    call = part["functionCall"] | {"args": {"q": "another"}}
    assert "Corrupted thought signature" in assert_refused(await again(functionCall=call))["message"]
    second = _history([part, _call("search")], [result, _result("search")])
    assert (await post(http, second, model=THIRD)).status_code == 200


@pytest.mark.parametrize("model", [SECOND, THIRD])
def test_thoughts_are_shown_on_request(client, model):
    shown = {"thinking_config": {"include_thoughts": True}}
    whole = ask(client, "hi", model, **shown)
    for parts in (whole.candidates[0].content.parts, parts_of(stream(client, "hi", model, **shown))):
        assert (parts[0].thought, parts[0].text) == (True, "thinking about it")
        assert not any(part.thought for part in parts[1:])
    assert whole.text == "hi"
    assert whole.usage_metadata.thoughts_token_count == 3
    called = ask(client, "call:lookup", model, **_without_calling(**shown)).candidates[0].content.parts
    assert called[0].thought and called[1].function_call
    hidden = ask(client, "hi", model)
    assert not any(part.thought for part in hidden.candidates[0].content.parts)
    assert hidden.usage_metadata.thoughts_token_count == 3


def test_thinking_can_be_turned_off(client):
    quiet = {"thinking_config": {"thinking_budget": 0, "include_thoughts": True}}
    assert ask(client, "hi", SECOND, **quiet).usage_metadata.thoughts_token_count is None
    assert ask(client, "hi", "gemini-2.0-flash").usage_metadata.thoughts_token_count is None


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("gemini-2.0-flash", {"includeThoughts": True}),
        ("gemini-2.0-flash", {"thinkingBudget": 0}),
        ("gemini-2.5-flash", {"thinkingLevel": "LOW"}),
        ("gemini-2.5-flash", {"thinkingBudget": 24_577}),
        ("gemini-2.5-pro", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", {"thinkingBudget": 127}),
        ("gemini-3-flash", {"thinkingBudget": 100}),
        ("gemini-3-flash", {"thinkingLevel": "HUGE"}),
        ("gemini-3-flash", {"thinkingLevel": "LOW", "thinkingBudget": -1}),
    ],
)
async def test_each_model_thinks_its_way(http: httpx.AsyncClient, model, thinking):
    body = {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"thinkingConfig": thinking}}
    assert_refused(await post(http, body, model=model))


def test_levels_of_thinking(client):
    assert ask(client, "hi", THIRD, thinking_config={"thinking_level": "LOW"}).text == "hi"
