"""What the gateway does against what /openapi.json says it does."""

import json
import re
from dataclasses import dataclass
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
from app.sandbox.config import sandbox_configuration
from tests.conftest import MASTER_KEY
from tests.support.awkward import ANCHOR, AWKWARD, answered, part, upload
from tests.support.openapi_document import DOCUMENT, PATH, SCHEMA, assert_envelope, assert_request_id, described

# Operations whose well-formed requests may still be wrong in a way that no schema can say.
MAY_REFUSE = {
    "cancelBatch": "the body may name a provider that has no account",
    "createBatch": "the lines may name any model",
    "createChatCompletion": "the provider judges the messages",
    "createDeploymentChatCompletion": "the provider judges the messages",
    "createTeam": "the name may be taken",
    "updateTeam": "the name may be taken",
    "createKey": "the expiry may be in the past",
    "syncFiles": "the model name may have no account with files",
    "retrieveFileSync": "the model name may have no account with files",
}
# Parameters that name an account, which may not be there.
OF_ACCOUNTS = {"model", "provider", "x-filemux-model", "custom-llm-provider"}


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


def test_the_gateways_own_error_codes_are_described_and_nothing_else():
    modules = [path for path in PATH.parent.rglob("*.py") if "sandbox" not in path.parts]
    source = "".join(path.read_text() for path in modules)
    codes = {one["const"] for one in DOCUMENT["components"]["schemas"]["ErrorCode"]["anyOf"] if "const" in one}
    given = re.findall(r'(?:\bcode=|\bdefault_code = |"code": |\bBadLine\([^,]+, )"(\w+)"', source)
    assert set(given) <= codes
    assert [code for code in codes if f'"{code}"' not in source] == []


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
    named = OF_ACCOUNTS & {*(case.query or ()), *(case.headers or ())}
    refuses = bool(named) or case.operation.definition.raw["operationId"] in MAY_REFUSE
    case.call_and_validate(
        base_url=gateway.url,
        session=session,
        headers={"Authorization": f"Bearer {MASTER_KEY}"},
        timeout=120,
        excluded_checks=[schemathesis.checks.positive_data_acceptance] if refuses else [],
    )


# Whose files each model name can refer to; `vllm` has no Files API.
ACCOUNTS = {"mini": "first", "four": "first", "other": "second", "azure": "azure", "vllm": None}
# What the files of the machine are, and whether the providers take that in a chat.
TYPES = {
    "a.pdf": ("application/pdf", True),
    "a.png": ("image/png", True),
    "a.txt": ("text/plain", True),
    "a.zip": ("application/zip", False),
}


@dataclass
class Uploaded:
    """A file as the client knows it."""

    filename: str
    content: bytes

    @property
    def refusal(self):
        """The code with which a chat about it is refused, if it is. Where it has no replica, one is made."""
        return None if TYPES[self.filename][1] else "unsupported_file_type"


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
        text=st.text(min_size=5, max_size=30),
        filename=st.sampled_from(sorted(TYPES)),
        names=st.sets(st.sampled_from(sorted(ACCOUNTS)), min_size=1, max_size=2),
        purpose=st.sampled_from(["user_data", "fine-tune"]),
    )
    def upload(self, text, filename, names, purpose):
        content = text.encode()
        form = {"purpose": purpose, "target_model_names": sorted(names)}
        part = (filename, content, TYPES[filename][0])
        file = described("createFile", self.http.post(f"{self.url}/files", data=form, files={"file": part})).json()
        accounts = {ACCOUNTS[name] for name in names}
        assert len(file["filemux"]["targets"]) == len(accounts - {None})
        self.alive[file["id"]] = Uploaded(filename, content)
        return file["id"]

    @rule(file_id=files)
    def retrieve(self, file_id):
        answer = described("retrieveFile", self.http.get(f"{self.url}/files/{file_id}"))
        assert answer.status_code == (200 if file_id in self.alive else 404)

    def _read(self, file_id, **headers):
        answer = self.http.get(f"{self.url}/files/{file_id}/content", headers=headers)
        return described("retrieveFileContent", answer)

    @rule(file_id=files)
    def read(self, file_id):
        answer = self._read(file_id)
        if file := self.alive.get(file_id):
            assert (answer.status_code, answer.content) == (200, file.content)
            assert answer.headers["accept-ranges"] == "bytes"
        else:
            assert answer.status_code == 404

    @rule(file_id=files, first=st.integers(0, 30), length=st.none() | st.integers(1, 20))
    def read_a_range(self, file_id, first, length):
        answer = self._read(file_id, range=f"bytes={first}-{first + length - 1 if length else ''}")
        file = self.alive.get(file_id)
        if file is None:
            assert answer.status_code == 404
        elif wanted := file.content[first:][:length]:
            assert (answer.status_code, answer.content) == (206, wanted)
            assert answer.headers["content-range"] == f"bytes {first}-{first + len(wanted) - 1}/{len(file.content)}"
        else:
            assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(file.content)}")

    @rule(file_id=files)
    def read_what_is_known(self, file_id):
        file = self.alive.get(file_id)
        digest = sha256(file.content).hexdigest() if file else "0" * 64
        answer = self._read(file_id, **{"if-none-match": f'"{digest}"'})
        assert answer.status_code == (304 if file else 404)

    @rule(file_id=files, model=st.sampled_from(sorted(ACCOUNTS)), stream=st.booleans())
    def chat(self, file_id, model, stream):
        messages = [{"role": "user", "content": [{"type": "file", "file": {"file_id": file_id}}]}]
        body = {"model": model, "messages": messages, "stream": stream}
        answer = described("createChatCompletion", self.http.post(f"{self.url}/chat/completions", json=body))
        file = self.alive.get(file_id)
        refusal = file.refusal if file else "file_not_found"
        if refusal:
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, refusal)
        else:
            assert answer.status_code == 200
            assert stream or f"sha256={sha256(file.content).hexdigest()}" in answer.text

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
    bounds = settings(max_examples=50, stateful_step_count=25)
    run_state_machine_as_test(lambda: FileLives(clients), settings=bounds)


def test_what_other_formats_add_to_an_answer_is_described(make_gateway, sandbox_process, session):
    """The model's thinking, and what was left out of the request."""
    model_list = sandbox_configuration(sandbox_process.url)["model_list"]
    [claude] = [one for one in model_list if one["model_name"] == "claude-sonnet"]
    claude["litellm_params"]["drop_params"] = True
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": "claude-sonnet", "messages": messages, "reasoning_effort": "low", "seed": 1}
    with make_gateway(model_list=[claude]) as running:
        headers = {"Authorization": f"Bearer {MASTER_KEY}"}
        answer = session.post(f"{running.url}/v1/chat/completions", json=body, headers=headers)
    completion = described("createChatCompletion", answer).json()
    message = completion["choices"][0]["message"]
    assert completion["filemux"] == {"dropped_params": ["seed"]} and message["reasoning_content"]
    shape = DOCUMENT["components"]["schemas"]["ChatCompletion"]["properties"]
    assert completion.keys() <= shape.keys()
    assert message.keys() <= shape["choices"]["items"]["properties"]["message"]["properties"].keys()


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
