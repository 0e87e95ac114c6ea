"""What the gateway does against what /openapi.json says it does."""

import json
from hashlib import sha256
from importlib.metadata import version

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from app.routes import ROUTES
from tests.conftest import MASTER_KEY
from tests.support.awkward import ANCHOR, AWKWARD, answered, part, upload
from tests.support.openapi_document import (
    DOCUMENT,
    PATH,
    SCHEMA,
    assert_envelope,
    assert_request_id,
    described,
)

# Operations whose well-formed requests may still be wrong in a way that no schema can say.
MAY_REFUSE = {
    "createChatCompletion": "the provider judges the messages",
    "createDeploymentChatCompletion": "the provider judges the messages",
    "createTeam": "the name may be taken",
    "updateTeam": "the name may be taken",
    "createKey": "the expiry may be in the past",
}


def test_the_routes_are_described_and_nothing_else():
    # HEAD comes with GET (RFC 9110 §9.3.2).
    served = {(route.path.replace(":path}", "}"), verb) for route in ROUTES for verb in route.methods - {"HEAD"}}
    in_document = {
        (path, verb.upper()) for path, item in DOCUMENT["paths"].items() for verb in item if verb != "parameters"
    }
    assert in_document == served


def test_the_document_is_valid_and_has_no_dead_part():
    SCHEMA.validate()
    assert DOCUMENT["info"]["version"] == version("filemux")
    text = json.dumps(DOCUMENT)
    unused = [
        f"{kind}/{name}"
        for kind, parts in DOCUMENT["components"].items()
        for name in parts
        if kind != "securitySchemes" and f'"#/components/{kind}/{name}"' not in text
    ]
    assert unused == []


def test_the_document_is_served_without_a_key(gateway):
    answer = httpx.get(f"{gateway.url}/openapi.json")
    assert (answer.status_code, answer.content) == (200, PATH.read_bytes())


@schemathesis.check
def one_error_shape(_, response, case):
    """Whatever is wrong, the answer has OpenAI's envelope."""
    assert_request_id({"x-request-id": response.headers["x-request-id"][0]})
    if response.status_code >= 400:
        assert_envelope(response.headers["content-type"][0], response.json())


@pytest.fixture(scope="module")
def session():
    with requests.Session() as opened:
        yield opened


@SCHEMA.parametrize()
@settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    # Negating a schema filters much, and is slow to do.
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
def test_every_operation_answers_as_described(case, gateway, session):
    refuses = case.operation.definition.raw["operationId"] in MAY_REFUSE
    case.call_and_validate(
        base_url=gateway.url,
        session=session,
        headers={"Authorization": f"Bearer {MASTER_KEY}"},
        excluded_checks=[schemathesis.checks.positive_data_acceptance] if refuses else [],
    )


ACCOUNTS = {"mini": "first", "four": "first", "other": "second", "azure": "azure"}


class FileLives(RuleBasedStateMachine):
    """Files that are uploaded, described, listed, read, chatted about and deleted, in any order."""

    files = Bundle("files")

    def __init__(self, clients):
        super().__init__()
        self.url = f"{clients.url}/v1"
        self.http = requests.Session()
        # A team of its own: its list is empty whatever an earlier run has left.
        self.http.headers["Authorization"] = f"Bearer {clients.new_key()['key']}"
        self.alive = {}

    @rule(
        target=files,
        content=st.binary(min_size=1, max_size=100),
        names=st.sets(st.sampled_from(sorted(ACCOUNTS)), min_size=1),
        purpose=st.sampled_from(["user_data", "batch"]),
    )
    def upload(self, content, names, purpose):
        form = {"purpose": purpose, "target_model_names": sorted(names)}
        answer = self.http.post(f"{self.url}/files", data=form, files={"file": ("a.jsonl", content)})
        file = described("createFile", answer).json()
        self.alive[file["id"]] = (content, {ACCOUNTS[name] for name in names}, purpose)
        return file["id"]

    @rule(file_id=files)
    def retrieve(self, file_id):
        answer = described("retrieveFile", self.http.get(f"{self.url}/files/{file_id}"))
        assert answer.status_code == (200 if file_id in self.alive else 404)

    @rule(file_id=files)
    def read(self, file_id):
        answer = described("retrieveFileContent", self.http.get(f"{self.url}/files/{file_id}/content"))
        content, _, purpose = self.alive.get(file_id, (None, None, None))
        if content is None:
            assert answer.status_code == 404
        elif purpose == "user_data":
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_not_available")
        else:
            assert (answer.status_code, answer.content) == (200, content)

    @rule(file_id=files, model=st.sampled_from(sorted(ACCOUNTS)), stream=st.booleans())
    def chat(self, file_id, model, stream):
        messages = [{"role": "user", "content": [{"type": "file", "file": {"file_id": file_id}}]}]
        body = {"model": model, "messages": messages, "stream": stream}
        answer = described("createChatCompletion", self.http.post(f"{self.url}/chat/completions", json=body))
        content, accounts, _ = self.alive.get(file_id, (None, (), None))
        if content is None:
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "file_not_found")
        elif ACCOUNTS[model] not in accounts:
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "file_without_replica")
        else:
            assert answer.status_code == 200
            assert stream or f"sha256={sha256(content).hexdigest()}" in answer.text

    @rule(file_id=files)
    def delete(self, file_id):
        answer = described("deleteFile", self.http.delete(f"{self.url}/files/{file_id}"))
        assert answer.status_code == (404 if self.alive.pop(file_id, None) is None else 200)

    @invariant()
    def the_list_is_what_is_alive(self):
        answer = described("listFiles", self.http.get(f"{self.url}/files"))
        assert [file["id"] for file in answer.json()["data"]] == sorted(self.alive, reverse=True)

    def teardown(self):
        for file_id in list(self.alive):
            self.delete(file_id)
        self.http.close()


def test_files_live_as_described(clients):
    bounds = settings(max_examples=30, stateful_step_count=20, derandomize=True, database=None, deadline=None)
    run_state_machine_as_test(lambda: FileLives(clients), settings=bounds)


@pytest.mark.parametrize(("status", "request_parts"), [(one[0], one[1:]) for one in AWKWARD.values()], ids=AWKWARD)
def test_an_awkward_request_is_refused_in_the_envelope(gateway, sandbox, status, request_parts):
    found, headers, body = answered(gateway.url, *request_parts)
    assert found == status, body
    assert_request_id(headers)
    assert_envelope(headers["content-type"], json.loads(body))


def test_a_verb_that_is_not_possible_is_told_which_are(gateway):
    assert answered(gateway.url, b"PUT /v1/files")[1]["allow"] == "GET, HEAD, POST"
    assert answered(gateway.url, b"GET /admin/keys/x")[1]["allow"] == "DELETE"


@pytest.mark.parametrize(("line", "status"), [(b"HEAD /files", 200), (b"HEAD /files/x", 404), (b"HEAD /files/", 404)])
def test_head_answers_as_get_without_a_body(gateway, line, status):
    found, headers, body = answered(gateway.url, line)
    assert (found, headers["content-type"], body) == (status, "application/json", b"")
    assert_request_id(headers)


def test_control_characters_are_left_out_of_a_filename(gateway, sandbox):
    status, _, body = answered(gateway.url, *upload(file=b'; filename="a\0\x1b.jsonl"'))
    assert (status, json.loads(body)["filename"]) == (200, "a.jsonl")


@pytest.mark.parametrize("media_type", [b"a\0b/c", b"text/plain\nset-cookie: a=b", "text/日本".encode(), b"pdf", b"/"])
def test_a_media_type_that_is_none_never_becomes_a_header(gateway, sandbox, media_type):
    file_part = b'; filename="a.pdf"\r\ncontent-type: ' + media_type
    status, _, body = answered(gateway.url, *upload(file=file_part))
    assert status == 200, body
    file = json.loads(body)
    assert file["filemux"]["mime_type"] == "application/pdf"
    status, headers, body = answered(gateway.url, b"GET /files/%s/content" % file["id"].encode())
    assert (status, headers["content-type"], body) == (200, "application/pdf", b"{}")


def test_a_file_may_stand_between_the_parts_of_its_expiry(gateway, sandbox):
    line, headers, body = upload(ANCHOR)
    body = body.removesuffix(b"--b--\r\n") + part(b"expires_after[seconds]", b"3600") + b"--b--\r\n"
    status, _, body = answered(gateway.url, line, headers, body)
    assert status == 200, body
    file = json.loads(body)
    assert file["expires_at"] - file["created_at"] == 3600
