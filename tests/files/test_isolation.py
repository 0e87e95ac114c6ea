"""Whose file it is: another team's is one that never existed, and a key does what its role allows."""

import time

import httpx
import openai
import pytest

from tests.support.expiring import key_that_expires_soon
from tests.support.sandbox import eventually
from tests.support.uploads import BATCH_LINE, PURPOSE, TARGETS, file_part, post_form, raw_client, refusal, upload

NOBODYS = "file-mux-" + "0" * 32


def shown(answer, file_id):
    """An answer without what differs from one request to the next."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}
    return answer.status_code, answer.content.replace(file_id.encode(), NOBODYS.encode()), headers


def post_chat(http, file_id):
    content = [{"type": "file", "file": {"file_id": file_id}}]
    return http.post("/chat/completions", json={"model": "mini", "messages": [{"role": "user", "content": content}]})


@pytest.fixture
def foreign(clients):
    """The id of another team's file, which that team can read and chat about."""
    owner = clients.member()
    file = upload(owner, content=BATCH_LINE, purpose="batch")
    with raw_client(owner) as http:
        assert post_chat(http, file.id).status_code == 200
        assert http.get(f"/files/{file.id}/content").content == BATCH_LINE
    return file.id


@pytest.mark.parametrize(
    "request_about",
    [
        lambda http, file_id: http.get(f"/files/{file_id}"),
        lambda http, file_id: http.get(f"/files/{file_id}/content"),
        lambda http, file_id: http.delete(f"/files/{file_id}"),
        post_chat,
    ],
    ids=["retrieve", "content", "delete", "chat"],
)
def test_another_teams_file_is_one_that_never_existed(http, foreign, sandbox, request_about):
    about_foreign, about_nobodys = request_about(http, foreign), request_about(http, NOBODYS)
    assert about_nobodys.status_code in (400, 404)
    assert shown(about_foreign, foreign) == shown(about_nobodys, NOBODYS)
    assert len(sandbox.files) == 2


def test_another_teams_file_is_in_no_list(http, foreign):
    assert http.get("/files").json()["data"] == []
    assert http.get("/files", params={"after": foreign}).json()["data"] == []


def test_two_keys_of_a_team_share_its_files(clients, sandbox):
    team = clients.new_team()
    file = upload(clients.member(team))
    colleague = clients.member(team)
    assert colleague.files.retrieve(file.id).id == file.id
    assert colleague.files.delete(file.id).deleted
    assert eventually(lambda: sandbox.files == [])


def test_an_admin_reaches_every_teams_file_by_its_id(clients, foreign, sandbox):
    for admin in (clients.admin, clients.member(role="admin")):
        assert admin.files.retrieve(foreign).id == foreign
        assert admin.files.content(foreign).content == BATCH_LINE
        assert foreign not in [file.id for file in admin.files.list()]
        with raw_client(admin) as http:
            assert post_chat(http, foreign).status_code == 200
    assert clients.admin.files.delete(foreign).deleted
    assert eventually(lambda: sandbox.files == [])


def test_a_viewer_reads_and_changes_nothing(clients, sandbox):
    team = clients.new_team()
    file = upload(clients.member(team), content=BATCH_LINE, purpose="batch")
    viewer = clients.member(team, role="viewer")
    assert viewer.files.retrieve(file.id).id == file.id
    assert viewer.files.content(file.id).content == BATCH_LINE
    assert [one.id for one in viewer.files.list()] == [file.id]
    assert viewer.models.list().data
    with raw_client(viewer) as http:
        for answer in (
            post_form(http, PURPOSE, TARGETS, file_part()),
            http.delete(f"/files/{file.id}"),
            post_chat(http, file.id),
        ):
            assert "viewer" in refusal(answer, 403, "permission_denied")
    assert len(sandbox.files) == 2
    assert sandbox.calls("openai.chat") == 0


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer sk-nobody"}, {"authorization": "Basic c2s="}])
@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("POST", "/files"),
        ("GET", "/files"),
        ("GET", f"/files/{NOBODYS}"),
        ("GET", f"/files/{NOBODYS}/content"),
        ("DELETE", f"/files/{NOBODYS}"),
        ("POST", "/chat/completions"),
        ("GET", "/models"),
    ],
)
def test_without_a_valid_key_nothing_is_said(gateway, sandbox, verb, path, headers):
    answer = httpx.request(verb, f"{gateway.url}/v1{path}", headers=headers, timeout=60)
    refusal(answer, 401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["api-key", "x-api-key"])
def test_a_key_may_come_in_other_clients_headers(gateway, member, header):
    assert httpx.get(f"{gateway.url}/v1/files", headers={header: member.api_key}, timeout=60).status_code == 200


def test_an_expired_key(clients):
    def refused():
        try:
            client.files.list()
        except openai.AuthenticationError:
            return True
        return False

    key = key_that_expires_soon(clients)
    client = clients.client(key["key"])
    assert eventually(refused)
    assert time.time() >= key["expires_at"]


@pytest.fixture(scope="module")
def two_workers(make_gateway):
    with make_gateway(workers=2) as running:
        yield running


def test_a_revoked_key_is_refused_by_every_worker(two_workers, clients_of):
    clients = clients_of(two_workers)
    key = clients.new_key()

    def statuses():
        """A connection each, so that every worker is asked sooner or later."""
        headers = {"authorization": f"Bearer {key['key']}"}
        url = f"{two_workers.url}/v1/models"
        return {httpx.get(url, headers=headers, timeout=60).status_code for _ in range(20)}

    assert statuses() == {200}
    clients.http.delete(f"/admin/keys/{key['id']}").raise_for_status()
    assert eventually(lambda: statuses() == {401})
    assert statuses() == {401}


def test_a_deleted_file_is_unknown_to_every_workers_chat(two_workers, clients_of):
    clients = clients_of(two_workers)
    member = clients.member()
    file = upload(member, "mini")
    headers = {"authorization": f"Bearer {member.api_key}"}

    def statuses():
        """A connection each, so that every worker is asked and has the file in its cache."""
        found = set()
        for _ in range(10):
            with httpx.Client(base_url=f"{two_workers.url}/v1", headers=headers, timeout=60) as http:
                found.add(post_chat(http, file.id).status_code)
        return found

    assert statuses() == {200}
    member.files.delete(file.id)
    assert eventually(lambda: statuses() == {400})
