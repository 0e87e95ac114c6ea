"""Whole lives of batches and direct files at all six providers, each answer held to /openapi.json."""

import contextlib
from urllib.parse import quote

import pytest
import requests

from tests.conftest import MASTER_KEY
from tests.support.batches import ENDED, ENDPOINT, jsonl, line, read_lines
from tests.support.chats import MODELS
from tests.support.openapi_document import described
from tests.support.sandbox import eventually
from tests.support.uploads import PDF

providers = pytest.mark.parametrize("provider", MODELS)


def in_path(own_id):
    """An id as it stands in a path: it may be an object's URI."""
    return quote(own_id, safe="")


class Described:
    """The operations of files and batches; each answer is as it is described, and has the status that is expected."""

    def __init__(self, url, key):
        self._url = f"{url}/v1"
        self._http = requests.Session()
        self._http.headers["authorization"] = f"Bearer {key}"

    def close(self):
        self._http.close()

    def __call__(self, operation_id, verb, path, status=200, **request):
        answer = described(operation_id, self._http.request(verb, f"{self._url}{path}", timeout=60, **request))
        assert answer.status_code == status, answer.text
        return answer

    def upload(self, content, purpose, **fields):
        form = {"purpose": purpose, **fields}
        return self("createFile", "POST", "/files", data=form, files={"file": ("a.jsonl", content)}).json()

    def file(self, file_id, status=200, **params):
        return self("retrieveFile", "GET", f"/files/{in_path(file_id)}", status, params=params).json()

    def content(self, file_id, status=200, **params):
        return self("retrieveFileContent", "GET", f"/files/{in_path(file_id)}/content", status, params=params).content

    def files(self, **params):
        return self("listFiles", "GET", "/files", params=params).json()["data"]

    def delete(self, file_id, status=200, **params):
        return self("deleteFile", "DELETE", f"/files/{in_path(file_id)}", status, params=params).json()

    def create(self, status=200, headers=None, **body):
        body = {"endpoint": ENDPOINT, "completion_window": "24h", **body}
        return self("createBatch", "POST", "/batches", status, json=body, headers=headers)

    def batch(self, batch_id, status=200, **params):
        return self("retrieveBatch", "GET", f"/batches/{in_path(batch_id)}", status, params=params).json()

    def batches(self, **params):
        return self("listBatches", "GET", "/batches", params=params).json()["data"]

    def cancel(self, batch_id, status=200, **body):
        return self("cancelBatch", "POST", f"/batches/{in_path(batch_id)}/cancel", status, json=body).json()

    def ended(self, batch_id, sandbox, **params):
        def look():
            sandbox.advance(1)
            found = self.batch(batch_id, **params)
            return found if found["status"] in ENDED else None

        return eventually(look, 120)


@pytest.fixture
def described_as(six_clients):
    """The operations with a key; closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda key: stack.enter_context(contextlib.closing(Described(six_clients.url, key)))


@pytest.fixture
def member(six_clients, described_as):
    return described_as(six_clients.new_key()["key"])


@pytest.fixture
def admin(described_as):
    return described_as(MASTER_KEY)


# --- batches ----------------------------------------------------------------------------------------------------


def test_a_batch_of_all_providers_lives_as_described(member, sandbox):
    good = [line(f"good {model}", model, "Hello") for model in MODELS.values()]
    bad = [line(f"bad {model}", model, "fail:400 please") for model in MODELS.values()]
    targets = ",".join(MODELS.values())
    file = member.upload(jsonl(good + bad), "batch", target_model_names=targets)
    wish = {"input_file_id": file["id"], "metadata": {"for": "a test"}, "headers": {"idempotency-key": "one"}}
    batch = member.create(**wish).json()
    again = member.create(**wish)
    assert (again.json()["id"], again.headers["idempotent-replayed"]) == (batch["id"], "true")
    assert {part["provider"] for part in batch["filemux"]["parts"]} == set(MODELS)
    ended = member.ended(batch["id"], sandbox)
    assert (ended["status"], ended["request_counts"]) == ("completed", {"total": 12, "completed": 6, "failed": 6})
    for name, lines in (("output", good), ("error", bad)):
        file_id = ended[f"{name}_file_id"]
        assert member.file(file_id)["purpose"] == "batch_output"
        assert read_lines(member.content(file_id)).keys() == {one["custom_id"] for one in lines}
    results = member.files(purpose="batch_output")
    assert {one["id"] for one in results} == {ended["output_file_id"], ended["error_file_id"]}
    assert [one["status"] for one in member.batches()] == ["completed"]
    member.cancel(batch["id"], 400)


def test_a_batch_is_cancelled_as_described(member, sandbox):
    slow = [{"custom_id": "1", "body": line("1", "claude-sonnet", "slow:80000")["body"]}]
    # What is refused is not kept.
    member.create(400, requests=slow, model="none")
    assert member.files() == []
    batch = member.create(requests=slow, output_expires_after={"anchor": "created_at", "seconds": 3600}).json()
    assert batch["model"] == "claude-sonnet"
    [kept] = member.files()
    assert kept["id"] == batch["input_file_id"]
    assert kept["expires_at"] - kept["created_at"] == 30 * 86400
    assert member.cancel(batch["id"])["status"] in ("cancelling", "cancelled")
    ended = member.ended(batch["id"], sandbox)
    assert (ended["status"], ended["model"]) == ("cancelled", "claude-sonnet")
    member.batch("batch_mux-" + "0" * 32, 404)


def test_a_batch_fails_as_described(member, sandbox):
    """Its errors name the lines."""
    lines = [line("1", "gemini-flash", "Hello", logit_bias={"1": 1}), line("2", "gemini-flash", "Hello", **{"a\0": 1})]
    file = member.upload(jsonl(lines), "batch", target_model_names="gemini-flash")
    ended = member.ended(member.create(input_file_id=file["id"]).json()["id"], sandbox)
    assert ended["status"] == "failed"
    errors = [(one["code"], one["line"], one["param"]) for one in ended["errors"]["data"]]
    code = "unsupported_parameter"
    assert errors == [(code, 1, "logit_bias"), (code, 2, "a\ufffd")]


@providers
def test_a_batch_at_one_account_lives_as_described(admin, sandbox, provider):
    made = [{"custom_id": one, "body": line(one, MODELS[provider], text)["body"]} for one, text in LINES.items()]
    batch = admin.create(requests=made, provider=provider, model=MODELS[provider]).json()
    _lives(admin, batch["id"], sandbox, provider=provider)
    slow = [{"custom_id": "1", "body": line("1", MODELS[provider], "slow:80000")["body"]}]
    batch = admin.create(requests=slow, provider=provider, model=MODELS[provider]).json()
    assert admin.cancel(batch["id"], provider=provider)["status"] in ("cancelling", "cancelled")
    assert len(admin.batches(provider=provider)) == 2


@pytest.mark.parametrize("provider", sorted(set(MODELS) - {"anthropic"}))
def test_a_batch_with_a_sealed_id_lives_as_described(admin, sandbox, provider):
    model = MODELS[provider]
    lines = [line(one, model, text) for one, text in LINES.items()]
    file = admin.upload(jsonl(lines), "batch", model=model)
    batch = admin.create(input_file_id=file["id"]).json()
    _lives(admin, batch["id"], sandbox)
    assert [one["id"] for one in admin.batches(model=model)] == [batch["id"]]
    admin.create(400, input_file_id=file["id"], headers={"idempotency-key": "one"})


LINES = {"good": "Hello", "bad": "fail:400 please"}


def _lives(admin, batch_id, sandbox, **params):
    ended = admin.ended(batch_id, sandbox, **params)
    assert ended["status"] == "completed"
    for name, custom_id in (("output", "good"), ("error", "bad")):
        file_id = ended[f"{name}_file_id"]
        assert admin.file(file_id, **params)["object"] == "file"
        assert read_lines(admin.content(file_id, **params)).keys() == {custom_id}


# --- direct files -----------------------------------------------------------------------------------------------


@providers
@pytest.mark.parametrize("named", ["model", "provider"])
def test_a_file_at_one_account_lives_as_described(admin, sandbox, provider, named):
    fields = {named: {"model": MODELS[provider], "provider": provider}[named]}
    file = admin.upload(PDF, "fine-tune", **fields)
    file_id, asked = file["id"], {} if named == "model" else fields
    assert admin.file(file_id, **asked)["filemux"]["provider"] == provider
    assert [one["id"] for one in admin.files(**fields)] == [file["id"]]
    # These never give an upload back.
    admin.content(file_id, 400 if provider in ("anthropic", "gemini") else 200, **asked)
    assert admin.delete(file_id, **asked)["id"] == file["id"]
    admin.file(file_id, 404, **asked)
