"""Idempotency-Key: an upload that is repeated makes no second file."""

import signal
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from sqlalchemy import text

from app.access.queries import forget_idempotency_keys
from tests.support.lossy import losing_answers
from tests.support.sandbox import eventually
from tests.support.uploads import (
    BOUNDARY,
    PDF,
    PURPOSE,
    TARGETS,
    file_part,
    part,
    post_form,
    refusal,
    sha256,
)
from tests.support.wire import Line

FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
FOREVER = -1
EXPIRY = part("expires_after[anchor]", "created_at"), part("expires_after[seconds]", "3600")


@pytest.fixture
def key():
    """A key that no other test has sent."""
    return uuid.uuid4().hex


def create(client, key, content=PDF, *, filename="a.pdf", mime_type="application/pdf", targets="mini,azure", **fields):
    """The SDK's upload with a key: the file, and whether it is said to be an earlier upload's."""
    answer = client.files.with_raw_response.create(
        file=(filename, content, mime_type),
        **{"purpose": "user_data", **fields},
        extra_body={"target_model_names": targets},
        extra_headers={"Idempotency-Key": key},
    )
    return answer.parse(), answer.headers.get("idempotent-replayed") == "true"


def uploads(sandbox):
    """How often each provider was sent a file."""
    return sandbox.calls("openai.upload_file"), sandbox.calls("azure.upload_file")


def listed(client):
    return [file.id for file in client.files.list().data]


async def execute(database, statement, **values):
    async with database.write() as writer:
        return await writer.execute(text(statement), values)


async def expire(database, key):
    statement = "UPDATE idempotency_keys SET expires_at = now() WHERE key = :key"
    assert await execute(database, statement, key=key) == 1


def test_a_repeated_upload_is_answered_with_the_first_ones_file(member, sandbox, key):
    first, replayed = create(member, key)
    assert not replayed
    assert create(member, key) == (first, True)
    assert create(member, key, targets="azure, mini") == (first, True)
    assert uploads(sandbox) == (1, 1)
    assert listed(member) == [first.id]


def test_without_a_key_each_upload_makes_a_file(member):
    fields = {"file": ("a.pdf", PDF), "purpose": "user_data", "extra_body": {"target_model_names": "mini"}}
    assert member.files.create(**fields).id != member.files.create(**fields).id


@pytest.mark.parametrize("content", [PDF, b"x" * 3_000_000], ids=["small", "spooled to disk"])
def test_the_sdks_retries_after_lost_answers_make_one_file(clients, member, sandbox, key, content):
    with losing_answers(clients.url, times=2) as line:
        file, replayed = create(member.with_options(base_url=f"{line.url}/v1", max_retries=2), key, content)
        assert line.lost == 2
    assert replayed
    assert listed(member) == [file.id]
    assert [one["sha256"] for one in sandbox.files] == [sha256(content)] * 2
    assert uploads(sandbox) == (1, 1)


def test_the_sdks_retries_after_its_time_limit_get_what_the_first_one_began(member, sandbox, key):
    sandbox.fault("azure", "upload_file", delay_seconds=600)
    sent = []
    with httpx.Client(event_hooks={"request": [sent.append]}) as http, ThreadPoolExecutor(1) as threads:
        impatient = member.with_options(timeout=3, max_retries=10, http_client=http)
        creating = threads.submit(create, impatient, key)
        assert eventually(lambda: len(sent) > 1)
        sandbox.release("azure.upload_file")
        file, replayed = creating.result()
    assert replayed
    assert listed(member) == [file.id]
    assert uploads(sandbox) == (1, 1)


async def test_a_waiting_duplicate_takes_over_from_a_client_that_leaves(clients, member, sandbox, rows, key, filename):
    with ThreadPoolExecutor(1) as threads:
        with Line(clients.url) as line:
            head = {"content_type": FORM_TYPE, "content_length": 3_000_000, "idempotency_key": key}
            line.send_head("POST", "/v1/files", member.api_key, **head)
            line.send(PURPOSE + TARGETS + file_part(b"x" * 2_000_000, filename))
            assert eventually(lambda: uploads(sandbox) == (1, 1))
            [left] = await rows.file_ids(filename)
            second = threads.submit(create, member, key, filename=filename)
        file, replayed = second.result()
    assert not replayed and file.id != left
    assert await rows.file_ids(filename) == [file.id]
    assert [one["sha256"] for one in sandbox.files] == [sha256(PDF)] * 2


def test_duplicates_at_the_same_time_wait_for_the_first(make_gateway, clients_of, sandbox, key):
    sandbox.fault("azure", "upload_file", delay_seconds=0.5)
    with make_gateway(workers=2) as two_workers, ThreadPoolExecutor(10) as threads:
        clients = clients_of(two_workers)
        team = clients.new_team()
        members = [clients.member(team) for _ in range(10)]
        answers = list(threads.map(lambda one: create(one, key), members))
    assert len({file.id for file, _ in answers}) == 1
    assert sorted(replayed for _, replayed in answers) == [False] + [True] * 9
    assert uploads(sandbox) == (1, 1)


@pytest.mark.parametrize(
    ("other", "differing"),
    [
        ({"content": b"another file"}, "content"),
        ({"content": PDF.swapcase()}, "content"),
        ({"filename": "b.pdf"}, "name"),
        ({"mime_type": "text/plain"}, "type"),
        ({"purpose": "assistants"}, "fields"),
        ({"targets": "mini"}, "fields"),
        ({"expires_after": {"anchor": "created_at", "seconds": 3600}}, "fields"),
    ],
    ids=["size", "bytes", "name", "type", "purpose", "targets", "expiry"],
)
def test_another_upload_with_the_same_key_is_refused(member, sandbox, key, other, differing):
    first, _ = create(member, key)
    with pytest.raises(openai.BadRequestError, match=differing) as refused:
        create(member, key, **other)
    assert (refused.value.code, refused.value.param) == ("idempotency_key_reused", "idempotency-key")
    assert first.id not in refused.value.message and sha256(PDF) not in refused.value.message
    assert uploads(sandbox) == (1, 1)
    assert create(member, key) == (first, True)


def test_another_teams_same_key_makes_its_own_file(clients, key):
    one, other = clients.member(), clients.member()
    file, _ = create(one, key)
    its_own, replayed = create(other, key)
    assert not replayed and its_own.id != file.id
    assert (listed(one), listed(other)) == ([file.id], [its_own.id])


async def test_a_key_whose_upload_has_failed_is_free_again(member, sandbox, rows, key, filename):
    sandbox.fault("azure", "upload_file", status=500, times=FOREVER)
    with pytest.raises(openai.InternalServerError):
        create(member, key, filename=filename)
    sandbox.heal()
    file, replayed = create(member, key, b"other bytes", filename=filename)
    assert not replayed
    assert await rows.file_ids(filename) == [file.id]
    assert [one["sha256"] for one in sandbox.files] == [sha256(b"other bytes")] * 2


def test_a_key_whose_file_is_deleted_is_refused(member, sandbox, key):
    file, _ = create(member, key)
    member.files.delete(file.id)
    with pytest.raises(openai.BadRequestError) as refused:
        create(member, key)
    assert refused.value.code == "idempotency_key_used"
    assert uploads(sandbox) == (1, 1)


async def test_a_key_is_anybodys_after_a_day(member, database, key):
    file, _ = create(member, key)
    [kept_seconds] = await keys_left(database, key)
    assert 86_000 < kept_seconds <= 86_400
    await expire(database, key)
    another, replayed = create(member, key, b"other bytes")
    assert not replayed
    assert sorted(listed(member)) == [file.id, another.id]


async def test_the_worker_forgets_expired_keys(member, database, key):
    create(member, key)
    create(member, f"{key} expired")
    await expire(database, f"{key} expired")
    async with database.write() as writer:
        assert await forget_idempotency_keys(writer, 1000)
    assert await keys_left(database, key)
    assert not await keys_left(database, f"{key} expired")


async def keys_left(database, key):
    """For how many seconds the key is kept still; nothing when it is forgotten."""
    statement = "SELECT extract(epoch FROM expires_at - now()) AS seconds FROM idempotency_keys WHERE key = :key"
    async with database.read() as reader:
        return [row["seconds"] for row in await reader.all(text(statement), {"key": key})]


async def test_a_waiting_duplicate_takes_over_from_a_killed_gateway(
    make_gateway, clients, clients_of, sandbox, database, rows, key, filename
):
    # Azure has stored the file and will say so much later; OpenAI has answered.
    sandbox.fault("azure", "upload_file", delay_seconds=60)
    team = clients.new_team()
    with make_gateway(filemux={"sources": {"store": "none"}}) as victim, ThreadPoolExecutor(2) as threads:
        first = threads.submit(create, clients_of(victim).member(team), key, filename=filename)
        assert eventually(lambda: {one["provider"] for one in sandbox.files} == {"openai"})
        [crashed] = await rows.file_ids(filename)
        second = threads.submit(create, clients.member(team), key, filename=filename)
        victim.stop(signal.SIGKILL)
        assert isinstance(first.exception(), openai.APIConnectionError)
        sandbox.heal()
        # The second is on its way to OpenAI under the same name while a repair looks for what the first left there.
        sandbox.fault("openai", "list_files", delay_seconds=1)
        sandbox.fault("azure", "upload_file", delay_seconds=2)
        assert not second.done()
        lease_ends = "UPDATE replicas SET due_at = now() WHERE file_id = :id AND state = 'pending'"
        assert await execute(database, lease_ends, id=crashed) == 2
        file, replayed = second.result()
    assert not replayed and file.id != crashed
    while await execute(database, lease_ends, id=crashed):
        pass
    assert await rows.file_ids(filename) == [file.id]
    assert [one["filename"] for one in sandbox.files] == [filename] * 2


@pytest.mark.parametrize(
    "parts",
    [
        (file_part(), PURPOSE, TARGETS),
        (PURPOSE, TARGETS, file_part(), *EXPIRY),
    ],
    ids=["fields after the file", "an expiry after what was begun"],
)
def test_fields_may_follow_the_file(http, sandbox, key, parts):
    http.headers["idempotency-key"] = key
    answers = [post_form(http, *parts) for _ in range(2)]
    assert answers[0].status_code == 200, answers[0].text
    assert answers[0].json() == answers[1].json()
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true"]
    assert eventually(lambda: len(sandbox.files) == 2)


@pytest.mark.parametrize("bad", ["k" * 300, "", "schlüssel", "a\tb"], ids=["long", "empty", "UTF-8", "tab"])
def test_a_bad_key_is_refused(http, sandbox, bad):
    http.headers = {**http.headers, b"idempotency-key": bad.encode()}
    answer = post_form(http, PURPOSE, TARGETS, file_part())
    assert "1 to 255" in refusal(answer, 400, "invalid_idempotency_key", "idempotency-key")
    assert uploads(sandbox) == (0, 0)


def test_a_key_may_have_255_characters(member):
    longest = "~ " * 127 + "~"
    file, _ = create(member, longest)
    assert create(member, longest) == (file, True)
