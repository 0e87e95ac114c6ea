"""What the body of generateContent may be, and what is refused."""

import base64
import json

import httpx
import pytest
from google.genai import errors

from tests.sandbox.conftest import Sandbox
from tests.sandbox.gemini_client import (
    KEY,
    ask,
    assert_refused,
    line,
    open_client,
    post,
    upload,
)


@pytest.fixture
def client(sandbox: Sandbox):
    with open_client(sandbox.base_url) as client:
        yield client


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
    assert message in assert_refused(await post(http, {"contents": [{"role": "user", "parts": [part]}]}))["message"]


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
    error = assert_refused(await post(http, body))
    if field is not None:
        assert error["details"][0]["fieldViolations"][0]["field"] == field


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null"])
async def test_a_body_is_an_object(http: httpx.AsyncClient, content):
    headers = KEY | {"content-type": "application/json"}
    assert_refused(await post(http, None, json=None, content=content, headers=headers))


async def test_a_body_is_json(http: httpx.AsyncClient):
    body = json.dumps(_HI).encode()
    answer = await post(http, None, json=None, content=body, headers=KEY | {"content-type": "text/plain"})
    assert_refused(answer)


async def test_a_body_has_a_limit(http: httpx.AsyncClient):
    headers = KEY | {"content-type": "application/json"}
    answer = await post(http, None, json=None, content=bytes(100 * 1024**2 + 1), headers=headers)
    assert "payload size exceeds" in assert_refused(answer)["message"]


def test_a_document_has_a_limit(client):
    with pytest.raises(errors.ClientError, match="document exceeds"):
        ask(client, upload(client, bytes(50 * 1024**2 + 1)))


async def test_names_may_be_snake_case_and_nulls_are_absent(http: httpx.AsyncClient):
    data = base64.urlsafe_b64encode(b"\xfb\xef\xff?").decode().rstrip("=")
    body = {
        "contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": data}, "text": None}]}],
        "system_instruction": {"parts": [{"text": "Be kind."}]},
        "generation_config": {"max_output_tokens": "100", "topP": None, "thinking_config": {"include_thoughts": False}},
        "tool_config": {"function_calling_config": {"mode": "none"}},
        "service_tier": "flex",
    }
    parts = (await post(http, body)).json()["candidates"][0]["content"]["parts"]
    assert parts == [{"text": line(b"\xfb\xef\xff?", "upload")}]


def test_every_known_argument_is_accepted(client):
    answer = ask(
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
