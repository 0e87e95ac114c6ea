"""/admin/keys: the secret is shown once and stored nowhere; revoked and rotated keys stop on every worker at once."""

import contextlib
import hashlib
import time
import uuid

import httpx
import pytest

from tests.conftest import Clients
from tests.support.sandbox import eventually

FIELDS = {
    *("id", "object", "name", "team", "role", "models", "permissions"),
    *("hint", "created_at", "expires_at", "revoked_at"),
}


def test_a_key_is_made_listed_and_shown_once(clients):
    team = clients.new_team()
    expires_at = int(time.time()) + 3600
    key = clients.new_key(team, "viewer", name="ci", models=["mini"], expires_at=expires_at)
    assert set(key) == FIELDS | {"key"}
    assert key["key"].startswith("sk-")
    assert key["hint"] == f"sk-…{key['key'][-4:]}"
    assert (key["team"], key["role"], key["name"], key["models"]) == (team, "viewer", "ci", ["mini"])
    assert (key["expires_at"], key["revoked_at"], key["permissions"]) == (expires_at, None, [])
    listed = clients.http.get("/admin/keys", params={"team": team})
    assert listed.json()["data"] == [{name: key[name] for name in FIELDS}]
    assert key["key"] not in listed.text


def test_a_list_without_a_team_has_all_keys(clients):
    made = {clients.new_key()["id"] for _ in range(2)}
    assert made <= {key["id"] for key in clients.http.get("/admin/keys").json()["data"]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "team"),
        ({"team": 1}, "team"),
        ({"team": "default", "role": "owner"}, "role"),
        ({"team": "default", "name": "x" * 201}, "name"),
        ({"team": "default", "models": "mini"}, "models"),
        ({"team": "default", "models": ["mini", "gpt-9"]}, "models[1]"),
        ({"team": "default", "permissions": ["everything"]}, "permissions.0"),
        ({"team": "default", "expires_at": "tomorrow"}, "expires_at"),
        ({"team": "default", "expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"team": "default", "expires_at": 1}, "expires_at"),
        ({"team": "default", "expires_at": 1e300}, "expires_at"),
        ({"team": "default", "secret": "sk-mine"}, "secret"),
    ],
)
def test_what_is_wrong_names_the_field(clients, body, param):
    answer = clients.http.post("/admin/keys", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("POST", "/admin/keys", {"team": "no-such"}),
        ("GET", "/admin/keys?team=no-such", None),
        ("DELETE", "/admin/keys/key-none", None),
        ("POST", "/admin/keys/key-none/rotate", None),
    ],
)
def test_what_does_not_exist_is_a_404(clients, verb, path, body):
    answer = clients.http.request(verb, path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_only_the_sha256_is_stored(clients, sql):
    key = clients.new_key()
    (row,) = await sql.fetch("SELECT * FROM keys WHERE id = $1", key["id"])
    assert row["secret_sha256"] == hashlib.sha256(key["key"].encode()).digest()
    secret = key["key"].removeprefix("sk-")
    tables = await sql.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for table in tables:
        rows = await sql.fetch(f"SELECT t::text AS everything FROM {table['tablename']} t")
        assert not any(secret in row["everything"] for row in rows), table


async def test_every_act_is_in_the_audit_log(clients, sql):
    admin = clients.new_key(role="admin")
    headers = {"authorization": f"Bearer {admin['key']}"}
    key = clients.http.post("/admin/keys", json={"team": "default"}, headers=headers).json()
    clients.http.post(f"/admin/keys/{key['id']}/rotate").raise_for_status()
    clients.http.delete(f"/admin/keys/{key['id']}").raise_for_status()
    rows = await sql.fetch("SELECT actor, action FROM audit_log WHERE subject = $1 ORDER BY id", key["id"])
    assert [tuple(row) for row in rows] == [
        (admin["id"], "key.create"),
        ("master key", "key.rotate"),
        ("master key", "key.revoke"),
    ]


def test_an_allow_list_may_be_empty(clients):
    assert list(clients.member(models=[]).models.list()) == []


def test_an_allow_list_may_be_all_model_names(clients):
    assert list(clients.member(models=["*"]).models.list()) == list(clients.admin.models.list())


# --- stopping a key ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(make_gateway):
    """A gateway of two workers."""
    with make_gateway(workers=2) as running:
        yield running


@pytest.fixture
def many(pair, sandbox):
    made = Clients(pair.url)
    yield made
    made.close()


@pytest.fixture
def connections(pair):
    """Clients with a connection each, which the kernel spreads over the workers."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(httpx.Client(base_url=pair.url, timeout=60)) for _ in range(12)]


def statuses(connections, secret):
    """What a key is answered over all connections."""
    headers = {"authorization": f"Bearer {secret}"}
    return {http.get("/v1/models", headers=headers).status_code for http in connections}


def test_a_revoked_key_is_refused_by_every_worker(connections, many):
    key = many.new_key()
    assert statuses(connections, key["key"]) == {200}
    answer = many.http.delete(f"/admin/keys/{key['id']}")
    assert answer.json() == {"id": key["id"], "object": "key", "deleted": True}
    assert eventually(lambda: statuses(connections, key["key"]) == {401})
    assert many.http.delete(f"/admin/keys/{key['id']}").status_code == 404
    assert many.http.post(f"/admin/keys/{key['id']}/rotate").status_code == 404
    (listed,) = [one for one in many.http.get("/admin/keys").json()["data"] if one["id"] == key["id"]]
    assert abs(listed["revoked_at"] - time.time()) < 60


def test_a_rotated_key_has_a_new_secret_and_the_old_one_stops_on_every_worker(connections, many):
    old = many.new_key(name="ci")
    assert statuses(connections, old["key"]) == {200}
    new = many.http.post(f"/admin/keys/{old['id']}/rotate").json()
    assert new == {**old, "key": new["key"], "hint": new["hint"]}
    assert new["key"] != old["key"]
    assert new["hint"] == f"sk-…{new['key'][-4:]}"
    assert eventually(lambda: statuses(connections, old["key"]) == {401})
    assert statuses(connections, new["key"]) == {200}


def test_keys_that_nobody_made_do_not_keep_new_ones_waiting(connections, many):
    assert statuses(connections, f"sk-{uuid.uuid4().hex}") == {401}
    assert statuses(connections, many.new_key()["key"]) == {200}
