"""Without its database the gateway goes on with what needs none, for keys that it knows, and recovers by itself."""

import contextlib
import time

import openai
import pytest

from app.db import migrations
from app.db.embedded import EmbeddedPostgres
from tests.support.batches import answer_in, create, jsonl, line, lines_of
from tests.support.chats import answer_of, ask, file_part, seen, streamed_answer, text_part
from tests.support.sandbox import eventually
from tests.support.uploads import PDF, upload

HELLO = text_part("hello")


@pytest.fixture(scope="module")
def postgres(module_dir):
    """A PostgreSQL that may be stopped."""
    with EmbeddedPostgres(module_dir) as server:
        migrations.upgrade(server.url)
        yield server


@contextlib.contextmanager
def stopped(server):
    """The database is gone until the block ends."""
    server.stop()
    try:
        yield
    finally:
        server.start()


@pytest.fixture(scope="module")
def lonely(postgres, module_dir, gateway_on):
    """The gateway that is going to lose its database."""
    with gateway_on(postgres.url, module_dir) as running:
        yield running


@pytest.fixture
def lonely_clients(lonely, sandbox, clients_of):
    return clients_of(lonely)


def works(client):
    """Whether a plain chat is answered; None where the key is not known to be good."""
    with contextlib.suppress(openai.AuthenticationError):
        return answer_of(ask(client, "mini", HELLO)) == "hello"


def refused(call):
    """Check that a call is answered by a 503 that asks to come back soon."""
    with pytest.raises(openai.InternalServerError) as failure:
        call()
    assert failure.value.status_code == 503
    assert failure.value.body["code"] == "unavailable"
    assert failure.value.response.headers["retry-after"] == "1"


def test_plain_chats_go_on_and_all_else_is_a_503_until_it_is_back(lonely_clients, postgres):
    known, unknown = lonely_clients.member(), lonely_clients.member()
    file = upload(known)
    assert works(known)
    with stopped(postgres):
        for client in (known, lonely_clients.admin):
            assert works(client)
            assert streamed_answer(ask(client, "mini", HELLO, stream=True)) == "hello"
            assert "mini" in [model.id for model in client.models.list()]
        refused(lambda: works(unknown))
        refused(lambda: works(lonely_clients.client("sk-nobodys")))
        refused(lambda: upload(known))
        refused(known.files.list)
        refused(lambda: ask(known, "mini", file_part(file.id)))
        health = [lonely_clients.http.get(path).status_code for path in ("/healthz", "/metrics", "/readyz")]
        assert health == [200, 200, 503]
    assert eventually(lambda: lonely_clients.http.get("/readyz").status_code == 200)
    assert works(unknown)
    assert answer_of(ask(known, "mini", file_part(file.id), HELLO)).startswith(seen("a.pdf", PDF))
    assert known.files.delete(file.id).deleted


def test_sealed_ids_need_no_database(lonely_clients, postgres, sandbox):
    known, stranger = lonely_clients.member(), lonely_clients.member()
    assert works(known) and works(stranger) and works(lonely_clients.admin)
    with stopped(postgres):
        file = known.files.create(file=("a.pdf", PDF), purpose="fine-tune", extra_body={"model": "mini"})
        assert known.files.retrieve(file.id).filename == "a.pdf"
        assert known.files.content(file.id).content == PDF
        assert answer_of(ask(known, "mini", file_part(file.id), HELLO)).startswith(seen("a.pdf", PDF))
        with pytest.raises(openai.NotFoundError):
            stranger.files.delete(file.id)
        refused(lambda: lonely_clients.admin.files.list(extra_query={"model": "mini"}))
        assert known.files.delete(file.id).deleted
        assert sandbox.files == []
    assert eventually(lambda: lonely_clients.http.get("/readyz").status_code == 200)


def test_a_sealed_batch_needs_no_database(lonely_clients, postgres, sandbox):
    known = lonely_clients.member()
    assert works(known)
    with stopped(postgres):
        lines = jsonl([line("one", "mini", "hello")])
        file = known.files.create(file=("a.jsonl", lines), purpose="batch", extra_body={"model": "mini"})
        batch = create(known, file)
        sandbox.advance(10)
        ended = known.batches.retrieve(batch.id)
        assert (ended.id, ended.status) == (batch.id, "completed")
        assert answer_in(lines_of(known, ended.output_file_id)["one"]) == "hello"
    assert eventually(lambda: lonely_clients.http.get("/readyz").status_code == 200)


def test_a_key_that_was_revoked_or_has_expired_stays_so(lonely_clients, postgres):
    key, expires_at = lonely_clients.new_key(), time.time() + 6
    revoked, expiring = lonely_clients.client(key["key"]), lonely_clients.member(expires_at=expires_at)
    assert works(revoked)
    assert works(expiring)
    lonely_clients.http.delete(f"/admin/keys/{key['id']}").raise_for_status()
    assert eventually(lambda: works(revoked) is None)
    with stopped(postgres):
        assert works(expiring) or time.time() > expires_at
        refused(lambda: works(revoked))
        assert eventually(lambda: works(expiring) is None)
    assert eventually(lambda: lonely_clients.http.get("/readyz").status_code == 200)
    assert (works(revoked), works(expiring)) == (None, None)


def test_a_database_that_restarts_costs_a_few_requests_at_most(lonely_clients, postgres):
    member = lonely_clients.member()
    file_ids = [upload(member, "mini", filename=f"{index}.pdf").id for index in range(3)]
    with stopped(postgres):
        assert works(member)
    assert eventually(lambda: lonely_clients.http.get("/readyz").status_code == 200)
    for file_id in file_ids:
        assert member.files.retrieve(file_id).id == file_id
        assert member.files.delete(file_id).deleted
