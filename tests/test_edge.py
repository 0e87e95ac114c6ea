"""The outermost layer: paths and their prefixes, the envelope, request ids, and a log that tells no secret."""

import contextlib
import json

import openai
import pytest

from tests.conftest import MASTER_KEY, Clients
from tests.support.sandbox import eventually
from tests.support.uploads import upload
from tests.support.wire import Line

TELL_TALES = ("tell-tale-name", "tell-tale-content", "tell-tale-question")


@pytest.fixture(scope="module")
def logged(make_gateway):
    """A gateway whose log nobody else fills."""
    with make_gateway() as running:
        yield running


def line_of(gateway, answer):
    """The log's line about an answer."""

    def found():
        lines = [json.loads(line) for line in gateway.log if answer.headers["x-request-id"] in line]
        return [line for line in lines if line["message"] == "request"]

    (line,) = eventually(found)
    return line


@pytest.mark.parametrize("prefix", ["", "/v1", "/openai", "/openai/v1"])
@pytest.mark.parametrize("path", ["/files", "/models", "/models/mini"])
def test_every_path_answers_under_each_prefix(clients, prefix, path):
    assert clients.http.get(f"{prefix}{path}").status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v2/files", "/v1/v1/files", "/v1/files/", "/files/a/b/c", "//files"]
)
def test_an_unknown_path_is_a_404_in_the_envelope(clients, path):
    answer = clients.http.get(f"{clients.url}{path}")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (404, "route_not_found")
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "path", ["/v1/files/a%2Fb", "/files/a%2fb/content", "/gemini/v1/files/files%2Fx", "/v1/files/%252F"]
)
def test_an_encoded_slash_is_part_of_an_id(clients, path):
    """The admin may ask for a provider's own id, so it is looked for, here at no provider."""
    answer = clients.http.get(path)
    assert answer.json()["error"]["code"] == ("unknown_provider" if "gemini" in path else "not_found")
    assert answer.status_code == (400 if "gemini" in path else 404)


@pytest.mark.parametrize("provider", ["azure", "anthropic", "gemini", "vertex_ai", "bedrock"])
@pytest.mark.parametrize(
    ("version", "rest"), [("", "/files"), ("/v1", "/files"), ("/v1", "/files/a"), ("", "/files/a/content")]
)
def test_a_provider_may_stand_before_its_files(clients, provider, version, rest):
    answer = clients.http.get(f"/{provider}{version}{rest}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_provider")
    assert f"{provider!r}" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "path", ["/azure/v1/models", "/azure/v2/files", "/groq/v1/files", "/azure/v1/v1/files", "/azure/filesx"]
)
def test_a_provider_stands_before_nothing_else(clients, path):
    assert clients.http.get(path).json()["error"]["code"] == "route_not_found"


@pytest.mark.parametrize(("verb", "path"), [("PUT", "/v1/files"), ("PATCH", "/files/a"), ("DELETE", "/v1/models")])
def test_another_verb_is_a_405_in_the_envelope(clients, verb, path):
    answer = clients.http.request(verb, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")


def test_every_answer_has_a_request_id_of_its_own(clients):
    answers = [clients.http.get(path) for path in ("/healthz", "/v1/models", "/none", "/v1/files/none")]
    found = {answer.headers["x-request-id"] for answer in answers}
    assert len(found) == len(answers)
    assert all(one.startswith("req_") for one in found)


def test_the_log_has_one_line_for_each_request_under_its_id(logged):
    with contextlib.closing(Clients(logged.url)) as clients:
        key = clients.new_key()
        headers = {"authorization": f"Bearer {key['key']}"}
        for verb, path, route, error in (
            ("GET", "/healthz", "health.alive", None),
            ("GET", "/v1/files", "files.read.list", None),
            ("GET", "/v1/files/none", "files.read", "not_found"),
            ("GET", "/none", "none", "route_not_found"),
            ("PUT", "/files", None, "method_not_allowed"),
            ("POST", "/v1/chat/completions", "chat.complete", "invalid_json"),
        ):
            answer = clients.http.request(verb, path, headers=headers)
            line = line_of(logged, answer)
            assert (line["method"], line["status"], line["error"]) == (verb, answer.status_code, error)
            assert line["route"] == (route or line["route"])
            assert line["level"] == "info"
            assert 0 <= line["seconds"] < 60
            assert line["timestamp"].endswith("Z")
            if "v1" in path:
                assert line["key"] == key["id"]
                assert line["team"].startswith("team-")


@pytest.mark.usefixtures("sandbox")
def test_the_log_never_holds_a_key_a_file_name_or_content(logged, sandbox):
    name, content, question = TELL_TALES
    with contextlib.closing(Clients(logged.url)) as clients:
        secret = clients.new_key()["key"]
        member = clients.client(secret)
        sandbox.fault("openai", "upload_file", status=503, times=2)
        file = upload(member, "mini,azure", content.encode() * 100, filename=f"{name}.txt", purpose="user_data")
        parts = [{"type": "file", "file": {"file_id": file.id}}, {"type": "text", "text": question}]
        arguments = {"model": "mini", "messages": [{"role": "user", "content": parts}]}
        sandbox.fault("openai", "chat", status=503, times=1)
        with pytest.raises(openai.APIStatusError):
            member.chat.completions.create(**arguments)
        assert name in member.chat.completions.create(**arguments).choices[0].message.content
        sandbox.fault("azure", "upload_file", status=400, times=1)
        with pytest.raises(openai.BadRequestError):
            upload(member, "mini,azure", content.encode(), filename=f"{name}.txt")
        sandbox.fault("azure", "delete_file", status=503, times=1)
        member.files.delete(file.id)
        last = clients.http.get(f"/v1/files?after={name}", headers={"authorization": "Bearer wrong-tell-tale-key"})
        assert line_of(logged, last)["status"] == 401
    log = "\n".join(logged.log)
    for told in (secret, MASTER_KEY, "sk-first", "tell-tale"):
        assert told not in log
    assert all(isinstance(json.loads(line), dict) for line in logged.log), "every line is JSON"


def test_a_caller_that_hangs_up_is_logged_as_499(logged, sandbox):
    sandbox.fault("openai", "chat", delay_seconds=3600, times=1)
    body = json.dumps({"model": "mini", "messages": [{"role": "user", "content": "hello"}]}).encode()
    with Line(logged.url) as line:
        line.send_head("POST", "/v1/chat/completions", MASTER_KEY, content_length=len(body))
        line.send(body)
        assert eventually(lambda: sandbox.calls("openai.chat"))
    assert eventually(lambda: any('"status":499' in line for line in logged.log))


def test_a_caller_that_leaves_in_the_middle_of_a_body_is_no_bug(logged):
    with Line(logged.url) as line:
        line.send_head("POST", "/v1/batches", MASTER_KEY, content_length=100)
        line.send(b'{"input_file_id"')
    assert eventually(lambda: any('"error":"client_disconnected"' in line for line in logged.log))
