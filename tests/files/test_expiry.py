"""`expires_after`: validated, passed on, and enforced by the gateway itself."""

import openai
import pytest

from tests.support.sandbox import eventually
from tests.support.uploads import BATCH_LINE, PURPOSE, TARGETS, file_part, part, post_form, raw_client, refusal, upload

DAYS_30 = 2_592_000


def post_expiry(http, *fields):
    return post_form(http, PURPOSE, TARGETS, *(part(*field) for field in fields), file_part())


@pytest.mark.parametrize("spelling", ["expires_after[{}]", "expires_after.{}"])
@pytest.mark.parametrize("seconds", [3600, 86_400, DAYS_30])
def test_the_object_says_when(http, spelling, seconds):
    answer = post_expiry(http, (spelling.format("anchor"), "created_at"), (spelling.format("seconds"), str(seconds)))
    file = answer.json()
    assert file["expires_at"] == file["created_at"] + seconds
    assert http.get(f"/files/{file['id']}").json()["expires_at"] == file["expires_at"]


@pytest.mark.parametrize(
    ("anchor", "seconds", "param"),
    [
        ("last_active_at", "3600", "anchor"),
        ("", "3600", "anchor"),
        (None, "3600", "anchor"),
        ("created_at", None, "seconds"),
        ("created_at", "", "seconds"),
        ("created_at", "3599", "seconds"),
        ("created_at", "2592001", "seconds"),
        ("created_at", "-3600", "seconds"),
        ("created_at", "3600.5", "seconds"),
        ("created_at", "1e4", "seconds"),
        ("created_at", "an hour", "seconds"),
        ("created_at", "\uff13\uff16\uff10\uff10", "seconds"),
        ("created_at", "0x1000", "seconds"),
        ("created_at", "1" * 40, "seconds"),
        ("created_at", "3600" + "0" * 20, "seconds"),
        ("created_at", "0000000036009999", "seconds"),
    ],
)
def test_what_makes_no_sense_is_refused(http, sandbox, anchor, seconds, param):
    fields = [("expires_after[anchor]", anchor), ("expires_after[seconds]", seconds)]
    answer = post_expiry(http, *(field for field in fields if field[1] is not None))
    refusal(answer, 400, "invalid_expires_after", f"expires_after[{param}]")
    assert sandbox.calls("openai.upload_file") == 0


def test_an_unknown_part_is_refused(http):
    fields = [("anchor", "created_at"), ("seconds", "3600"), ("minutes", "60")]
    answer = post_expiry(http, *((f"expires_after[{name}]", value) for name, value in fields))
    refusal(answer, 400, "invalid_expires_after", "expires_after")


def test_both_providers_are_told(member, sandbox):
    expiry = {"anchor": "created_at", "seconds": 3600}
    file = member.files.create(
        file=("a.pdf", b"x"),
        purpose="user_data",
        expires_after=expiry,
        extra_body={"target_model_names": "mini,azure"},
    )
    assert file.expires_at == file.created_at + 3600
    sandbox.advance(3000)
    assert len(sandbox.files) == 2
    sandbox.advance(700)
    assert sandbox.files == []


def test_without_it_a_file_stays_and_a_batch_goes_after_30_days(member, sandbox):
    kept = upload(member, "mini")
    batch = upload(member, "mini", BATCH_LINE, purpose="batch")
    assert kept.expires_at is None
    assert batch.expires_at == batch.created_at + DAYS_30
    sandbox.advance(DAYS_30 + 60)
    assert [one["purpose"] for one in sandbox.files] == ["user_data"]


async def test_its_time_has_come(member, sandbox, rows, filename):
    """The providers' own clocks stand still: it is the gateway that deletes."""
    file = upload(member, filename=filename)
    with raw_client(member) as http:
        content = [{"type": "file", "file": {"file_id": file.id}}]
        chat = {"model": "mini", "messages": [{"role": "user", "content": content}]}
        assert http.post("/chat/completions", json=chat).status_code == 200
        await rows.expire(file.id)
        for path in (f"/files/{file.id}", f"/files/{file.id}/content"):
            refusal(http.get(path), 404, "not_found", "id")
        assert http.get("/files").json()["data"] == []
        assert await rows.forgotten(filename)
        assert sandbox.files == []
        answer = http.post("/chat/completions", json=chat)
        refusal(answer, 400, "file_not_found", "messages[0].content[0].file.file_id")


async def test_its_time_has_come_while_a_provider_is_down(member, sandbox, rows, filename):
    file = upload(member, filename=filename)
    sandbox.fault("azure", "delete_file", status=503, times=2)
    await rows.expire(file.id)
    with pytest.raises(openai.NotFoundError):
        member.files.retrieve(file.id)
    assert eventually(lambda: sandbox.files == [])
    assert await rows.forgotten(filename)
