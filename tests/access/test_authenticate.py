"""How a key comes with a request, and what is answered when none does, or none that is good."""

import httpx
import pytest

from tests.conftest import MASTER_KEY
from tests.support.expiring import key_that_expires_soon
from tests.support.sandbox import eventually

WRONG_KEY = "this key does not exist, is revoked or has expired"
NO_KEY = "no key came with the request; send it as `Authorization: Bearer <key>`"


@pytest.fixture
def http(gateway):
    with httpx.Client(base_url=gateway.url, timeout=60) as opened:
        yield opened


@pytest.mark.parametrize(
    "header",
    [
        ("authorization", "Bearer {}"),
        ("Authorization", "bearer {}"),
        ("authorization", "BEARER   {}"),
        ("api-key", "{}"),
        ("x-api-key", "{}"),
        ("X-API-Key", "{}"),
    ],
)
def test_a_key_comes_as_openais_azures_and_anthropics_clients_send_it(http, clients, header):
    name, value = header
    for key in (MASTER_KEY, clients.new_key()["key"]):
        answer = http.get("/v1/models", headers={name: value.format(key)})
        assert answer.status_code == 200, answer.text


def test_the_azure_sdks_key_header_is_read_beside_another_scheme(http, clients):
    headers = {"authorization": "Basic abc", "api-key": clients.new_key()["key"]}
    assert http.get("/openai/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, NO_KEY),
        ({"authorization": "Basic abc"}, NO_KEY),
        ({"authorization": "Bearer"}, NO_KEY),
        ({"api-key": ""}, NO_KEY),
        ({"authorization": "Bearer sk-nobodys"}, WRONG_KEY),
        ({"authorization": f"Bearer {MASTER_KEY}x"}, WRONG_KEY),
        ({"authorization": f"Bearer {MASTER_KEY[:-1]}"}, WRONG_KEY),
        ({"x-api-key": "\xff\xfe"}, WRONG_KEY),
        ({"api-key": "x" * 10_000}, WRONG_KEY),
    ],
)
@pytest.mark.parametrize(
    ("verb", "path"),
    [("GET", "/v1/files"), ("POST", "/files"), ("POST", "/v1/chat/completions"), ("GET", "/admin/keys")],
)
def test_without_a_good_key_every_route_answers_the_same_401(http, verb, path, headers, message):
    raw = [(name, value.encode("latin-1")) for name, value in headers.items()]
    answer = http.request(verb, path, headers=raw)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}
    assert answer.json() == {"error": error}
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_key_stops_at_its_expiry(http, clients):
    headers = {"authorization": f"Bearer {key_that_expires_soon(clients)['key']}"}
    assert eventually(lambda: http.get("/models", headers=headers).status_code == 401)


def test_the_master_key_is_an_admin_of_the_default_team(clients):
    file = clients.admin.files.create(
        file=("a.txt", b"a"), purpose="user_data", extra_body={"target_model_names": "mini"}
    )
    assert clients.http.get("/v1/files?team=default").json()["data"][0]["id"] == file.id
    assert clients.admin.files.delete(file.id).deleted
