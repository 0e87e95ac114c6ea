"""POST /chat/completions, answered whole."""

import httpx
import openai
import pytest

from tests.support.chats import answer_of, ask, file_part, seen, text_part
from tests.support.recorder import ANSWER
from tests.support.sandbox import eventually
from tests.support.uploads import PDF, refusal, upload

MODELS = ["mini", "four", "other", "azure", "azure-v1", "pair"]
HELLO = {"model": "mini", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize("model", [*MODELS, "vllm"])
def test_a_chat_without_files(member, model):
    completion = ask(member, model, text_part("Hello, you"))
    assert answer_of(completion) == "Hello, you"
    assert completion.usage.total_tokens > 0


def test_one_file_with_every_model(member):
    file = upload(member, ",".join(MODELS))
    for model in MODELS:
        answer = answer_of(ask(member, model, text_part("What is this?"), file_part(file.id)))
        assert answer == f"{seen('a.pdf', PDF)}\nWhat is this?"


@pytest.mark.parametrize("prefix", ["", "/v1", "/openai", "/openai/v1"])
def test_every_prefix(gateway, member, prefix):
    with openai.OpenAI(base_url=gateway.url + prefix, api_key=member.api_key) as client:
        file = upload(client)
        assert seen("a.pdf", PDF) in answer_of(ask(client, "azure", file_part(file.id)))
        assert client.files.list().data[0].id == file.id
        assert "mini" in [model.id for model in client.models.list()]


def test_azures_own_client(gateway, member, sandbox):
    with openai.AzureOpenAI(
        azure_endpoint=gateway.url, api_version="2024-10-21", api_key=member.api_key, max_retries=0
    ) as client:
        file = upload(client)
        for model in ("mini", "azure"):
            assert seen("a.pdf", PDF) in answer_of(ask(client, model, file_part(file.id)))
        stream = ask(client, "azure", file_part(file.id), stream=True)
        assert any(chunk.choices for chunk in stream)
        assert client.files.retrieve(file.id).bytes == len(PDF)
        assert [one.id for one in client.files.list()] == [file.id]
        client.files.delete(file.id)
    assert eventually(lambda: sandbox.files == [])


def test_a_model_name_that_does_not_exist(clients):
    member = clients.member(models=["mini", "azure"])
    with pytest.raises(openai.NotFoundError) as refused:
        ask(member, "nope", text_part("Hello"))
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert "mini, azure" in refused.value.message


def test_a_model_name_that_the_key_may_not_use(clients, sandbox):
    with pytest.raises(openai.PermissionDeniedError) as refused:
        ask(clients.member(models=["mini"]), "azure", text_part("Hello"))
    assert (refused.value.code, refused.value.param) == ("model_name_not_allowed", "model")
    assert sandbox.calls("azure.chat") == 0


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{'model': 'mini'}", b'{"model": "mini"} and more', b"\xff\xfe", b"[NaN]"]
)
def test_a_body_that_is_no_json(http, body):
    refusal(http.post("/chat/completions", content=body), 400, "invalid_json")


@pytest.mark.parametrize(
    "body",
    ["[]", '"text"', "1", "null", "{}", '{"messages":[]}', '{"model":null}', '{"model":5}', '{"model":["mini"]}'],
)
def test_a_body_without_a_model_name(http, body):
    refusal(http.post("/chat/completions", content=body), 400, None, "model")


def test_what_the_provider_refuses_is_passed_on_in_its_words(member):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(member, "mini", text_part("Hello"), temperature=3)
    assert refused.value.param == "temperature"
    assert "temperature" in refused.value.message


@pytest.mark.parametrize(
    ("status", "answered", "code"),
    [
        (401, 502, "provider_credentials_refused"),
        (403, 502, "provider_credentials_refused"),
        (429, 429, "provider_rate_limited"),
        (500, 503, "provider_unavailable"),
        (503, 503, "provider_unavailable"),
        (404, 400, "provider_file_missing"),
        (400, 400, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_a_provider_fails_with(http, sandbox, status, answered, code, stream):
    sandbox.fault("openai", "stream_chat" if stream else "chat", status=status, times=-1)
    answer = http.post("/chat/completions", json={**HELLO, "stream": stream})
    message = refusal(answer, answered, code)
    assert "Incorrect API key" not in message


def test_a_request_of_many_megabytes(member):
    text = "x" * 5_000_000
    assert answer_of(ask(member, "mini", text_part(text))) == text


BODIES = {
    "spaces": b'\n{ "model" :\t"recorded" ,\r\n"messages" : [ ] }\n ',
    "escapes": rb'{"model":"recorded","messages":[{"role":"user","content":"\u00fc \ud83c\udf89 \/ \" \\"}]}',
    "unicode": '{"model":"recorded","messages":[{"role":"user","content":"Übersicht 報告 🎉"}]}'.encode(),
    "numbers": b'{"model":"recorded","seed":123456789012345678901234567890,"temperature":1.0E-2,"top_p":0.10000}',
    "duplicates": b'{"a":1,"a":2,"model":"recorded","messages":[],"messages":[{"role":"user"}]}',
    "model elsewhere": b'{"messages":[{"model":"recorded"}],"metadata":{"model":"recorded"},"model":"recorded"}',
    "model as text": b'{"user":"\\"model\\":\\"recorded\\"","model":"recorded","stop":"recorded"}',
    "unknown keys": b'{"zzz":{"file_id":"file-abc"},"model":"recorded","tools":[{"file_id":"file-abc"}]}',
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_reaches_the_provider_to_the_byte_but_for_its_model(recorded_http, recorder, name):
    body = BODIES[name]
    answer = recorded_http.post("/chat/completions", content=body)
    assert answer.status_code == 200, answer.text
    [chat] = recorder.chats
    before, name, after = chat.body.partition(b"the-provider's-name")
    assert name, chat.body
    assert before + b"recorded" + after == body


def test_a_model_that_is_given_twice_or_escaped_is_the_providers_everywhere(recorded_http, recorder):
    body = rb'{"model":"azure","messages":[],"mod\u0065l":"recorded","model":"rec\u006frded"}'
    assert recorded_http.post("/chat/completions", content=body).status_code == 200
    theirs = b'"the-provider\'s-name"'
    expected = b'{"model":%s,"messages":[],"mod\\u0065l":%s,"model":%s}' % (theirs, theirs, theirs)
    assert recorder.chats[0].body == expected


def test_an_answer_reaches_the_caller_to_the_byte(recorded_http, recorder):
    answer = recorded_http.post("/chat/completions", json={"model": "recorded", "messages": []})
    assert answer.content == ANSWER
    assert answer.headers["content-type"] == "application/json"


def test_the_provider_is_told_nothing_of_the_caller(recorded_http, recorder):
    headers = {"cookie": "a=b", "openai-organization": "theirs", "x-secret": "s", "user-agent": "theirs"}
    recorded_http.post("/chat/completions", json={"model": "recorded", "messages": []}, headers=headers)
    [chat] = recorder.chats
    sent = {name.lower(): value for name, value in chat.headers.items()}
    assert sent["authorization"] == "Bearer sk-r"
    assert not sent.keys() & {"cookie", "openai-organization", "x-secret", "api-key"}
    assert sent["user-agent"] == "filemux"


def test_a_verb_that_is_not_possible(gateway, member):
    headers = {"authorization": f"Bearer {member.api_key}"}
    answer = httpx.get(f"{gateway.url}/v1/chat/completions", headers=headers, timeout=60)
    refusal(answer, 405, "method_not_allowed")
