"""generateContent at Gemini, through google-genai; what the SDK would never send, by hand."""

import base64
import hashlib
import io
import json

import httpx
import pytest
from google import genai
from google.genai import errors, types

from tests.sandbox.conftest import Sandbox, Switchboard

_PDF = b"%PDF-1.4 not really"
_KEY = {"x-goog-api-key": "one"}
_SEARCH = types.FunctionDeclaration(name="search", parameters_json_schema={"type": "object"})
_LOOKUP = types.FunctionDeclaration(
    name="lookup", parameters=types.Schema(type="OBJECT", properties={"q": types.Schema(type="STRING")})
)
_TOOLS = [types.Tool(function_declarations=[_LOOKUP, _SEARCH])]
_SECOND, _THIRD = "gemini-2.5-flash", "gemini-3-pro"


@pytest.fixture
def client(sandbox: Sandbox):
    options = types.HttpOptions(base_url=f"{sandbox.base_url}/gemini")
    with genai.Client(api_key="one", http_options=options) as client:
        yield client


def _line(data: bytes, filename: str) -> str:
    return f"[file filename={filename} bytes={len(data)} sha256={hashlib.sha256(data).hexdigest()}]"


def _upload(client, data: bytes = _PDF, mime_type: str = "application/pdf", **config) -> types.File:
    return client.files.upload(file=io.BytesIO(data), config={"mime_type": mime_type, **config})


def _ask(client, contents, model: str = _SECOND, **config) -> types.GenerateContentResponse:
    return client.models.generate_content(model=model, contents=contents, config=config)


def _stream(client, contents, model: str = _SECOND, **config) -> list[types.GenerateContentResponse]:
    return [*client.models.generate_content_stream(model=model, contents=contents, config=config)]


def _parts(chunks) -> list[types.Part]:
    return [part for chunk in chunks for part in chunk.candidates[0].content.parts]


def _without_calling(**config) -> dict:
    return {"automatic_function_calling": {"disable": True}, "tools": _TOOLS, **config}


async def _post(http: httpx.AsyncClient, body, *, model: str = _SECOND, verb: str = "generateContent", **more):
    path = f"/gemini/v1beta/models/{model}:{verb}"
    return await http.post(path, **{"json": body, "headers": _KEY, **more})


def _error(answer: httpx.Response) -> dict:
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    return error


def test_the_answer_names_the_files_and_repeats_the_text(client):
    uploaded = _upload(client, display_name="a.pdf")
    contents = [
        uploaded,
        types.Part.from_bytes(data=b"png", mime_type="image/png"),
        types.Part.from_text(text='<file name="b.md">\n# hi\n</file>'),
        types.Part.from_uri(file_uri="https://example.org/c.pdf", mime_type="application/pdf"),
        types.Part.from_text(text="What is "),
        types.Part.from_text(text="this?"),
    ]
    answer = _ask(client, contents, system_instruction="Be kind.")
    lines = [_line(_PDF, "a.pdf"), _line(b"png", "upload"), _line(b"# hi", "b.md"), "What is this?"]
    assert answer.text.splitlines() == lines
    assert (answer.candidates[0].finish_reason, answer.model_version) == (types.FinishReason.STOP, _SECOND)
    usage = answer.usage_metadata
    assert usage.total_token_count == sum(
        (usage.prompt_token_count, usage.candidates_token_count, usage.thoughts_token_count)
    )
    assert usage.cached_content_token_count is None
    assert _ask(client, "cached: hi").usage_metadata.cached_content_token_count > 0


@pytest.mark.parametrize("model", ["gemini-2.0-flash", _SECOND, _THIRD])
def test_a_stream_says_the_same_in_pieces(client, model):
    contents = [_upload(client, display_name="a.pdf"), "What is this?"]
    whole = _ask(client, contents, model)
    chunks = _stream(client, contents, model)
    assert len(chunks) > 3
    assert "".join(chunk.text or "" for chunk in chunks) == whole.text
    assert len({chunk.response_id for chunk in chunks}) == 1
    assert [chunk.candidates[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
    assert chunks[-1].usage_metadata == whole.usage_metadata
    signature = whole.candidates[0].content.parts[-1].thought_signature
    assert _parts(chunks)[-1].thought_signature == signature
    assert (signature is not None) == (model == _THIRD)


async def test_a_stream_is_events_or_a_list(http: httpx.AsyncClient):
    body = {"contents": [{"parts": [{"text": "hi there"}]}]}
    events = await _post(http, body, verb="streamGenerateContent?alt=sse")
    assert events.headers["content-type"].startswith("text/event-stream")
    *framed, end = events.text.split("\r\n\r\n")
    assert end == ""
    chunks = [json.loads(event.removeprefix("data: ")) for event in framed]
    assert [chunk["candidates"][0]["content"]["parts"] for chunk in chunks] == [[{"text": "hi "}], [{"text": "there"}]]
    listed = (await _post(http, body, verb="streamGenerateContent")).json()
    assert [chunk["candidates"] for chunk in listed] == [chunk["candidates"] for chunk in chunks]


@pytest.mark.parametrize("version", ["v1", "v1beta", "v1alpha", "v1main"])
def test_a_file_is_good_under_every_version(client, version):
    uploaded = _upload(client)
    uri = uploaded.uri.replace("v1beta", version)
    part = types.Part.from_uri(file_uri=uri, mime_type="application/pdf")
    assert _ask(client, part).text == _line(_PDF, uploaded.name.removeprefix("files/"))


async def test_a_file_that_is_gone_or_foreign_is_forbidden(client, http: httpx.AsyncClient, switchboard: Switchboard):
    foreign, deleted, expired = [_upload(client).uri for _ in range(3)]
    client.files.delete(name=f"files/{deleted.rpartition('/')[2]}")

    async def status(uri: str, key: str) -> tuple[int, str]:
        body = {"contents": [{"parts": [{"fileData": {"fileUri": uri, "mimeType": "application/pdf"}}]}]}
        answer = await _post(http, body, headers={"x-goog-api-key": key})
        return answer.status_code, answer.json().get("error", {}).get("status")

    assert await status(expired, "one") == (200, None)
    assert await status(foreign, "two") == (403, "PERMISSION_DENIED")
    assert await status(deleted, "one") == (403, "PERMISSION_DENIED")
    await switchboard.advance(48 * 3600)
    assert await status(expired, "one") == (403, "PERMISSION_DENIED")


async def test_a_file_must_be_active(client, switchboard: Switchboard):
    slow = _upload(client, mime_type="video/mp4")
    failed = _upload(client, display_name="it fails")
    for file in (slow, failed):
        with pytest.raises(errors.ClientError) as refused:
            _ask(client, file)
        assert (refused.value.code, refused.value.status) == (400, "FAILED_PRECONDITION")
    await switchboard.advance(2)
    assert _ask(client, slow).text == _line(_PDF, slow.name.removeprefix("files/"))
    with pytest.raises(errors.ClientError):
        _ask(client, failed)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"fileData": {"fileUri": "gs://bucket/a.pdf", "mimeType": "application/pdf"}}, "unsupported file uri"),
        ({"fileData": {"fileUri": "files/abc", "mimeType": "application/pdf"}}, "unsupported file uri"),
        ({"fileData": {"fileUri": "https://example.org/a.pdf"}}, "contents[0].parts[0].file_data.mime_type"),
        ({"inlineData": {"mimeType": "application/zip", "data": "aGk="}}, "Unsupported MIME type: application/zip"),
        ({"inlineData": {"mimeType": "image/png", "data": "a"}}, "Base64 decoding failed"),
        ({"inlineData": {"mimeType": "image/png", "data": "é"}}, "Base64 decoding failed"),
        ({"inlineData": {"data": "aGk="}}, "contents[0].parts[0].inline_data.mime_type"),
        ({}, "required oneof field 'data'"),
        ({"thought": True}, "required oneof field 'data'"),
        ({"text": "a", "inlineData": {"mimeType": "image/png", "data": "aGk="}}, "Cannot set 'inlineData'"),
        ({"text": 1}, "contents[0].parts[0].text"),
        ({"type": "text", "text": "a"}, "Unknown name \"type\" at 'contents[0].parts[0]': Cannot find field."),
        ({"functionCall": {"name": "a"}}, "of the role 'model'"),
    ],
)
async def test_a_bad_part_is_refused(http: httpx.AsyncClient, part, message):
    assert message in _error(await _post(http, {"contents": [{"role": "user", "parts": [part]}]}))["message"]


_HI = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
_DECLARED = {"tools": [{"functionDeclarations": [{"name": "a"}]}]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": "hi"}, "contents"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "hi"}]}]}, "contents[0].role"),
        ({"contents": [{"role": "user", "parts": []}]}, "contents[0].parts"),
        (_HI | {"mood": 1}, "mood"),
        (_HI | {"labels": {"a": "b"}}, "labels"),
        (_HI | {"generationConfig": {"mood": 1}}, "generation_config.mood"),
        (_HI | {"generationConfig": {"temperature": 2.1}}, "generation_config.temperature"),
        (_HI | {"generationConfig": {"topP": 1.1}}, "generation_config.top_p"),
        (_HI | {"generationConfig": {"topK": 0}}, "generation_config.top_k"),
        (_HI | {"generationConfig": {"maxOutputTokens": 0}}, "generation_config.max_output_tokens"),
        (_HI | {"generationConfig": {"stopSequences": ["a"] * 6}}, "generation_config.stop_sequences"),
        (_HI | {"generationConfig": {"candidateCount": 9}}, "generation_config.candidate_count"),
        (_HI | {"generationConfig": {"seed": 2**31}}, "generation_config.seed"),
        (_HI | {"generationConfig": {"responseMimeType": "text/html"}}, "generation_config.response_mime_type"),
        (_HI | {"generationConfig": {"responseJsonSchema": {}}}, "generation_config"),
        (_HI | {"generationConfig": {"logprobs": 1}}, "generation_config"),
        (_HI | {"generationConfig": {"responseLogprobs": "yes"}}, "generation_config.response_logprobs"),
        (_HI | {"generationConfig": {"responseModalities": ["AUDIO"]}}, "generation_config.response_modalities[0]"),
        (_HI | {"safetySettings": [{"category": "HARM_CATEGORY_X"}]}, "safety_settings[0].threshold"),
        (_HI | {"serviceTier": "flux"}, "service_tier"),
        (_HI | {"systemInstruction": "hi"}, "system_instruction"),
        (_HI | {"tools": [{"functionDeclarations": [{"name": "1a"}]}]}, "tools[0].function_declarations[0].name"),
        (
            _HI | {"tools": [{"functionDeclarations": [{"name": "a", "parameters": {"$ref": "b"}}]}]},
            "tools[0].function_declarations[0].parameters.$ref",
        ),
        (
            _HI | {"tools": [{"functionDeclarations": [{"name": "a", "parameters": {}, "parametersJsonSchema": {}}]}]},
            "tools[0].function_declarations[0]",
        ),
        (_HI | _DECLARED | {"toolConfig": {"functionCallingConfig": {"mode": "MAYBE"}}}, None),
        (_HI | _DECLARED | {"toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["a"]}}}, None),
        (
            _HI | _DECLARED | {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["b"]}}},
            None,
        ),
        (_HI | {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, None),
        (_HI | {"tools": [{"functionDeclarations": [{"name": "a"}, {"name": "a"}]}]}, None),
        (_HI | _DECLARED | {"generationConfig": {"responseMimeType": "application/json"}}, None),
    ],
)
async def test_a_bad_body_is_refused(http: httpx.AsyncClient, body, field):
    error = _error(await _post(http, body))
    if field is not None:
        assert error["details"][0]["fieldViolations"][0]["field"] == field


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null"])
async def test_a_body_is_an_object(http: httpx.AsyncClient, content):
    headers = _KEY | {"content-type": "application/json"}
    assert _error(await _post(http, None, json=None, content=content, headers=headers))["message"]


async def test_a_body_is_json(http: httpx.AsyncClient):
    body = json.dumps(_HI).encode()
    answer = await _post(http, None, json=None, content=body, headers=_KEY | {"content-type": "text/plain"})
    assert _error(answer)["message"]


async def test_names_may_be_snake_case_and_nulls_are_absent(http: httpx.AsyncClient):
    data = base64.urlsafe_b64encode(b"\xfb\xef\xff?").decode().rstrip("=")
    body = {
        "contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": data}, "text": None}]}],
        "system_instruction": {"parts": [{"text": "Be kind."}]},
        "generation_config": {"max_output_tokens": "100", "topP": None, "thinking_config": {"include_thoughts": False}},
        "tool_config": {"function_calling_config": {"mode": "none"}},
        "service_tier": "flex",
    }
    parts = (await _post(http, body)).json()["candidates"][0]["content"]["parts"]
    assert parts == [{"text": _line(b"\xfb\xef\xff?", "upload")}]


def test_every_known_argument_is_accepted(client):
    answer = _ask(
        client,
        "hi",
        temperature=0,
        top_p=1,
        top_k=40,
        seed=1,
        presence_penalty=1,
        frequency_penalty=-1,
        response_modalities=["TEXT"],
        media_resolution="MEDIA_RESOLUTION_LOW",
        safety_settings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        service_tier="priority",
        thinking_config={"thinking_budget": -1},
        tools=[{"google_search": {}}],
        store=False,
    )
    assert answer.text == "hi"


@pytest.mark.parametrize("model", [_SECOND, _THIRD])
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
    answer = _ask(client, text, model, **more).candidates[0]
    streamed = _parts(_stream(client, text, model, **more))
    calls = [part.function_call for part in answer.content.parts if part.function_call]
    assert [call.name for call in calls] == called
    assert [part.function_call.name for part in streamed if part.function_call] == called
    assert answer.finish_reason == types.FinishReason.STOP
    assert all(call.args == {"q": text} for call in calls)
    if not called:
        assert answer.content.parts[0].text == text
        return
    assert all((call.id is not None) == (model == _THIRD) for call in calls)
    for parts in (answer.content.parts, streamed):
        signed = [part.thought_signature is not None for part in parts]
        assert signed == [model == _THIRD, *[False] * (len(called) - 1)]


@pytest.mark.parametrize("model", [_SECOND, _THIRD])
def test_the_sdk_calls_functions_by_itself(client, model):
    asked = []

    def lookup(q: str) -> str:
        """Look something up."""
        asked.append(q)
        return f"found {q}"

    chat = client.chats.create(model=model, config={"tools": [lookup]})
    uploaded = _upload(client, display_name="a.pdf")
    part = types.Part.from_uri(file_uri=uploaded.uri, mime_type="application/pdf")
    answer = chat.send_message([part, "call:lookup"])
    assert asked == ["call:lookup"]
    result = json.dumps({"result": "found call:lookup"}, separators=(",", ":"))
    assert answer.text.splitlines() == [_line(_PDF, "a.pdf"), result]
    assert chat.send_message("Thanks").text.splitlines() == [_line(_PDF, "a.pdf"), "Thanks"]


def _call(name: str = "lookup", call_id: str | None = None, **part) -> dict:
    return {"functionCall": {"name": name, "args": {"q": 1}, "id": call_id}, **part}


def _result(name: str = "lookup", call_id: str | None = None, **response) -> dict:
    return {"functionResponse": {"name": name, "id": call_id, "response": {"output": "found"}, **response}}


def _history(model_parts: list[dict], user_parts: list[dict]) -> dict:
    user, model = {"role": "user", "parts": [{"text": "call:lookup"}]}, {"role": "model", "parts": model_parts}
    contents = [user, model, *([{"role": "user", "parts": user_parts}] if user_parts else [])]
    return {"contents": contents, "tools": [{"functionDeclarations": [{"name": "lookup"}]}]}


async def _said(http: httpx.AsyncClient, body: dict, model: str = _SECOND) -> str:
    answer = await _post(http, body, model=model)
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
    assert _error(await _post(http, _history(model_parts, user_parts)))["message"]


async def test_files_of_functions_are_read_by_the_third_generation(client, http: httpx.AsyncClient):
    uploaded = _upload(client, display_name="a.pdf")
    files = [
        {"inlineData": {"mimeType": "image/png", "data": "aGk=", "displayName": "b.png"}},
        {"fileData": {"fileUri": uploaded.uri, "mimeType": "application/pdf"}},
    ]
    body = _history([_call(thoughtSignature="skip_thought_signature_validator")], [_result(parts=files)])
    assert await _said(http, body, _THIRD) == "\n".join([_line(b"hi", "b.png"), _line(_PDF, "a.pdf"), "found"])
    assert "not supported" in _error(await _post(http, body))["message"]
    body = _history([_call()], [_result(), files[1]])
    assert await _said(http, body) == f"{_line(_PDF, 'a.pdf')}\nfound"
    wav = [{"inlineData": {"mimeType": "audio/wav", "data": "aGk="}}]
    body = _history([_call(thoughtSignature="skip_thought_signature_validator")], [_result(parts=wav)])
    assert "Unsupported MIME type" in _error(await _post(http, body, model=_THIRD))["message"]


async def test_signatures_come_back_unchanged(http: httpx.AsyncClient):
    body = _history([{"text": "no"}], [{"text": "call:lookup"}])
    first = (await _post(http, body, model=_THIRD)).json()["candidates"][0]["content"]
    (part,) = first["parts"]
    result = _result(call_id=part["functionCall"]["id"])

    async def again(**changed) -> httpx.Response:
        call = {name: value for name, value in (part | changed).items() if value is not None}
        return await _post(http, _history([call], [result]), model=_THIRD)

    assert (await again()).status_code == 200
    for accepted in (
        "skip_thought_signature_validator",
        base64.b64encode(b"skip_thought_signature_validator").decode(),
    ):
        assert (await again(thoughtSignature=accepted)).status_code == 200
    assert "missing a thought_signature" in _error(await again(thoughtSignature=None))["message"]
    assert "Corrupted thought signature" in _error(await again(thoughtSignature="c2ln"))["message"]
    call = part["functionCall"] | {"args": {"q": "another"}}
    assert "Corrupted thought signature" in _error(await again(functionCall=call))["message"]
    second = _history([part, _call("search")], [result, _result("search")])
    assert (await _post(http, second, model=_THIRD)).status_code == 200


@pytest.mark.parametrize("model", [_SECOND, _THIRD])
def test_thoughts_are_shown_on_request(client, model):
    shown = {"thinking_config": {"include_thoughts": True}}
    whole = _ask(client, "hi", model, **shown)
    for parts in (whole.candidates[0].content.parts, _parts(_stream(client, "hi", model, **shown))):
        assert (parts[0].thought, parts[0].text) == (True, "thinking about it")
        assert not any(part.thought for part in parts[1:])
    assert whole.text == "hi"
    assert whole.usage_metadata.thoughts_token_count == 3
    called = _ask(client, "call:lookup", model, **_without_calling(**shown)).candidates[0].content.parts
    assert called[0].thought and called[1].function_call
    hidden = _ask(client, "hi", model)
    assert not any(part.thought for part in hidden.candidates[0].content.parts)
    assert hidden.usage_metadata.thoughts_token_count == 3


def test_thinking_can_be_turned_off(client):
    quiet = {"thinking_config": {"thinking_budget": 0, "include_thoughts": True}}
    assert _ask(client, "hi", _SECOND, **quiet).usage_metadata.thoughts_token_count is None
    assert _ask(client, "hi", "gemini-2.0-flash").usage_metadata.thoughts_token_count is None


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
    body = _HI | {"generationConfig": {"thinkingConfig": thinking}}
    assert _error(await _post(http, body, model=model))["message"]


def test_levels_of_thinking(client):
    assert _ask(client, "hi", _THIRD, thinking_config={"thinking_level": "LOW"}).text == "hi"


@pytest.mark.parametrize(
    ("config", "text", "finish_reason"),
    [
        ({"max_output_tokens": 2}, "one two ", "MAX_TOKENS"),
        ({"max_output_tokens": 3}, "one two three", "STOP"),
        ({"stop_sequences": ["three", "two"]}, "one ", "STOP"),
        ({"response_mime_type": "application/json"}, '{"answer":"one two three"}', "STOP"),
        (
            {"response_mime_type": "application/json", "response_json_schema": {"type": "object"}},
            '{"answer":"one two three"}',
            "STOP",
        ),
    ],
)
def test_how_an_answer_ends(client, config, text, finish_reason):
    whole, chunks = _ask(client, "one two three", **config), _stream(client, "one two three", **config)
    assert whole.text == "".join(chunk.text for chunk in chunks) == text
    for last in (whole, chunks[-1]):
        assert last.candidates[0].finish_reason.value == finish_reason


def test_a_refusal(client):
    for answer in (_ask(client, "refuse: that"), *_stream(client, "refuse: that")):
        (candidate,) = answer.candidates
        assert (candidate.finish_reason, candidate.content) == (types.FinishReason.SAFETY, None)
    for answer in (_ask(client, "refuse:prompt"), *_stream(client, "refuse:prompt")):
        assert answer.candidates is None
        assert answer.prompt_feedback.block_reason == types.BlockedReason.PROHIBITED_CONTENT


def test_candidates_and_their_tokens(client):
    config = {"candidate_count": 2, "response_logprobs": True, "logprobs": 2}
    answer = _ask(client, "hi there", **config)
    assert [(one.index, one.content.parts[0].text) for one in answer.candidates] == [(0, "hi there"), (1, "hi there")]
    logprobs = answer.candidates[0].logprobs_result
    assert [one.token for one in logprobs.chosen_candidates] == ["hi ", "there"]
    assert [len(one.candidates) for one in logprobs.top_candidates] == [2, 2]
    chunks = _stream(client, "hi there", **config)
    assert [chunk.candidates[0].index for chunk in chunks if chunk.candidates[0].finish_reason] == [0, 1]


def test_models(client):
    pager = client.models.list(config={"page_size": 2})
    assert [model.name for model in pager] == [
        "models/gemini-2.0-flash",
        "models/gemini-2.5-flash",
        "models/gemini-2.5-pro",
        "models/gemini-3-flash",
        "models/gemini-3-pro",
    ]
    assert client.models.get(model=_THIRD).name == f"models/{_THIRD}"
    for ask in (lambda: client.models.get(model="gemini-1"), lambda: _ask(client, "hi", "gemini-1")):
        with pytest.raises(errors.ClientError) as refused:
            ask()
        assert (refused.value.code, refused.value.status) == (404, "NOT_FOUND")


def test_there_are_no_cached_contents(client):
    with pytest.raises(errors.ClientError) as refused:
        _ask(client, "hi", cached_content="cachedContents/a")
    assert refused.value.code == 403


async def test_faults_of_chats(client, switchboard: Switchboard):
    await switchboard.fault(provider="gemini", operation="stream_chat", status=429, retry_after_seconds=3)
    assert _ask(client, "hi").text == "hi"
    with pytest.raises(errors.ClientError) as refused:
        _stream(client, "hi")
    assert (refused.value.code, refused.value.status) == (429, "RESOURCE_EXHAUSTED")
    requests = await switchboard.requests()
    assert (requests["gemini.chat"], requests["gemini.stream_chat"]) == (1, 1)
