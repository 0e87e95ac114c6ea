"""/admin/teams: create, list, update; what is wrong names the field; only admins."""

import uuid

import openai
import pytest

from tests.support.sandbox import eventually


def new_name():
    return f"team {uuid.uuid4().hex}"


def create(clients, **body):
    return clients.http.post("/admin/teams", json=body)


def test_a_team_is_made_and_listed(clients):
    name = new_name()
    made = create(clients, name=f"  {name} ", default_target_model_names=["mini", "azure"])
    assert made.status_code == 200
    team = made.json()
    assert (team["object"], team["name"]) == ("team", name)
    assert team["default_target_model_names"] == ["mini", "azure"]
    assert team["id"].startswith("team-")
    teams = clients.http.get("/admin/teams").json()["data"]
    assert team in teams
    assert teams[0]["name"] == "default", "the oldest comes first"


def test_a_team_is_renamed_by_name_or_id_and_the_rest_stays(clients):
    team = create(clients, name=new_name(), default_target_model_names=["mini"]).json()
    new, newer = new_name(), new_name()
    renamed = clients.http.post(f"/admin/teams/{team['id']}", json={"name": new}).json()
    assert renamed == {**team, "name": new}
    assert clients.http.post(f"/admin/teams/{new}", json={"name": newer}).json() == {**team, "name": newer}
    emptied = clients.http.post(f"/admin/teams/{newer}", json={"default_target_model_names": []}).json()
    assert emptied == {**team, "name": newer, "default_target_model_names": []}
    assert clients.http.post(f"/admin/teams/{newer}", json={}).json() == emptied


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": 7}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a", "nmae": "b"}, "nmae"),
        ({"name": "a", "default_target_model_names": "mini"}, "default_target_model_names"),
        ({"name": "a", "default_target_model_names": ["mini", 1]}, "default_target_model_names.1"),
        ([], None),
        ("team", None),
    ],
)
def test_what_is_wrong_names_the_field(clients, body, param):
    answer = clients.http.post("/admin/teams", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_default_target_must_be_a_model_name(clients):
    answer = create(clients, name=new_name(), default_target_model_names=["mini", "gpt-9"])
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert "there is no model name 'gpt-9'; there are mini, four" in error["message"]
    assert error["param"] == "default_target_model_names[1]"


def test_all_model_names_are_a_default_target_alone(clients):
    assert create(clients, name=new_name(), default_target_model_names=["*"]).status_code == 200
    answer = create(clients, name=new_name(), default_target_model_names=["mini", "*"])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "default_target_model_names[1]")


@pytest.mark.parametrize("content", [b"", b"{", b'{"name": NaN}', b"\xff"])
def test_a_body_that_is_not_json_is_told(clients, content):
    answer = clients.http.post("/admin/teams", content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("POST", "/admin/teams", {"name": "a\0b"}),
        ("POST", "/admin/teams/default", {"name": "a\0b"}),
        ("POST", "/admin/teams/a%00b", {"name": "a"}),
        ("POST", "/admin/keys", {"team": "a\0b"}),
        ("POST", "/admin/keys", {"team": "default", "name": "a\0b"}),
        ("GET", "/admin/keys?team=a%00b", None),
        ("DELETE", "/admin/keys/a%00b", None),
        ("POST", "/admin/keys/a%00b/rotate", None),
        ("GET", "/v1/files?team=a%00b", None),
        ("GET", "/v1/files?after=a%00b", None),
    ],
)
def test_what_postgresql_cannot_store_is_the_callers_mistake(clients, verb, path, body):
    assert clients.http.request(verb, path, json=body).status_code in {400, 404}


def test_a_body_that_is_too_large_is_refused(clients):
    assert clients.http.post("/admin/teams", content=b" " * (1024 * 1024 + 1)).status_code == 413


def test_a_name_is_taken_once(clients):
    one, other = (create(clients, name=new_name()).json() for _ in range(2))
    taken = {"name": one["name"]}
    for path in ("/admin/teams", f"/admin/teams/{other['id']}"):
        answer = clients.http.post(path, json=taken)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (400, "name", "team_exists")
    assert clients.http.post(f"/admin/teams/{one['id']}", json=taken).status_code == 200


def test_a_name_that_is_another_teams_id_is_taken(clients):
    team = create(clients, name=new_name()).json()
    assert create(clients, name=team["id"]).json()["error"]["code"] == "team_exists"


def test_an_unknown_team_is_a_404(clients):
    answer = clients.http.post("/admin/teams/no-such", json={"name": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("role", ["member", "viewer"])
@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/admin/teams"),
        ("POST", "/admin/teams"),
        ("POST", "/admin/teams/default"),
        ("GET", "/admin/keys"),
        ("POST", "/admin/keys"),
        ("DELETE", "/admin/keys/key-1"),
        ("POST", "/admin/keys/key-1/rotate"),
    ],
)
def test_only_admins_manage(clients, as_key, role, verb, path):
    headers = as_key(clients.new_key("default", role)["key"])
    answer = clients.http.request(verb, path, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (403, "permission_error", "permission_denied")
    assert role in error["message"]


def test_an_admin_key_manages_too(clients, as_key):
    headers = as_key(clients.new_key(role="admin")["key"])
    assert clients.http.post("/admin/teams", json={"name": new_name()}, headers=headers).status_code == 200


def test_new_default_targets_are_seen_at_once(clients, sandbox):
    team = clients.new_team(default_target_model_names=["mini"])
    member = clients.member(team)

    def providers():
        file = member.files.create(file=("a.txt", b"a"), purpose="user_data")
        held = {one["provider"] for one in sandbox.files}
        member.files.delete(file.id)
        return held

    assert providers() == {"openai"}
    clients.http.post(f"/admin/teams/{team}", json={"default_target_model_names": ["azure"]}).raise_for_status()
    assert eventually(lambda: providers() == {"azure"})
    clients.http.post(f"/admin/teams/{team}", json={"default_target_model_names": []}).raise_for_status()

    def refusal():
        try:
            member.files.create(file=("a.txt", b"a"), purpose="user_data")
        except openai.BadRequestError as refused:
            return refused.message

    told = eventually(refusal)
    assert told and "target_model_names" in told and "mini" in told


async def test_every_act_is_in_the_audit_log(clients, sql):
    admin = clients.new_key(role="admin")
    name, new = new_name(), new_name()
    headers = {"authorization": f"Bearer {admin['key']}"}
    team = clients.http.post("/admin/teams", json={"name": name}, headers=headers).json()
    clients.http.post(f"/admin/teams/{name}", json={"name": new}).raise_for_status()
    rows = await sql.fetch("SELECT actor, key_id, action FROM audit_log WHERE subject = $1 ORDER BY id", team["id"])
    assert [tuple(row) for row in rows] == [
        (admin["id"], admin["id"], "team.create"),
        ("master key", None, "team.update"),
    ]
