"""What an upload comes to when not every target takes the file."""

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.support.sandbox import eventually
from tests.support.uploads import BOUNDARY, CLOSING, PDF, PURPOSE, TARGETS, file_part, sha256, upload
from tests.support.wire import Line

FOREVER = -1
LARGE = b"x" * 3_000_000
HUGE = b"x" * 30_000_000
# The sandbox names an account by its key's digest.
AZURE = sha256(b"az")[:8]


async def nothing_left(sandbox, rows, filename):
    return await rows.forgotten(filename) and sandbox.files == []


async def test_all_a_target_that_fails_for_ever_fails_the_upload(member, sandbox, rows, filename):
    sandbox.fault("azure", "upload_file", status=500, times=FOREVER, account=AZURE)
    with pytest.raises(openai.InternalServerError) as failed:
        upload(member, "mini,azure,azure-v1,other", filename=filename)
    assert (failed.value.status_code, failed.value.code) == (503, "upload_failed")
    assert "azure (azure): the provider answered 500" in failed.value.message
    outcomes = {target["account"]: target["outcome"] for target in failed.value.response.json()["filemux"]["targets"]}
    assert outcomes.pop("azure") == "failed"
    assert set(outcomes) == {"openai-first", "openai-second", "azure-v1"}
    assert set(outcomes.values()) <= {"stored, and deleted again", "cut off"}
    assert await nothing_left(sandbox, rows, filename)
    assert member.files.list().data == []


@pytest.mark.parametrize(
    ("fault", "content"),
    [
        ({"status": 500}, PDF),
        ({"status": 503}, LARGE),
        # Larger than what the network takes ahead: a provider that cannot have read the end has no file.
        ({"reset_after_bytes": 100}, HUGE),
    ],
    ids=["500", "503", "reset"],
)
def test_all_a_target_that_fails_twice_is_tried_a_third_time(member, sandbox, fault, content):
    sandbox.fault("azure", "upload_file", times=2, **fault)
    file = upload(member, content=content)
    assert {target["state"] for target in file.filemux["targets"]} == {"stored"}
    assert [one["sha256"] for one in sandbox.files] == [sha256(content)] * 2
    assert (sandbox.calls("azure.upload_file"), sandbox.calls("openai.upload_file")) == (3, 1)


def test_all_a_target_that_asks_for_a_moment_gets_it(member, sandbox):
    sandbox.fault("azure", "upload_file", status=429, retry_after_seconds=1)
    upload(member)
    assert len(sandbox.files) == 2
    assert sandbox.calls("azure.upload_file") == 2


async def test_all_a_target_that_asks_for_an_hour_is_the_callers_to_wait_for(member, sandbox, rows, filename):
    sandbox.fault("azure", "upload_file", status=429, retry_after_seconds=3600)
    with pytest.raises(openai.RateLimitError) as failed:
        upload(member, filename=filename)
    assert failed.value.response.headers["retry-after"] == "120"
    assert sandbox.calls("azure.upload_file") == 1
    assert await nothing_left(sandbox, rows, filename)


async def test_all_a_target_that_refuses_the_file_is_not_asked_again(member, sandbox, rows, filename):
    sandbox.fault("openai", "upload_file", status=400)
    with pytest.raises(openai.BadRequestError) as failed:
        upload(member, filename=filename)
    assert failed.value.code == "upload_failed"
    assert "mini (openai): The request was refused." in failed.value.message
    assert sandbox.calls("openai.upload_file") == 1
    assert await nothing_left(sandbox, rows, filename)


@pytest.mark.parametrize("status", [401, 403])
async def test_all_our_own_credentials_are_not_the_callers_fault(member, sandbox, rows, filename, status):
    sandbox.fault("openai", "upload_file", status=status)
    with pytest.raises(openai.InternalServerError) as failed:
        upload(member, filename=filename)
    assert failed.value.status_code == 502
    assert "mini (openai)" in failed.value.message
    for said_by_the_provider in ("Incorrect API key", "do not have access"):
        assert said_by_the_provider not in failed.value.response.text
    assert await nothing_left(sandbox, rows, filename)


async def test_all_a_failure_cuts_the_slow_targets_off(member, sandbox, rows, filename):
    """At this speed the slow target would take minutes; the SDK's time limit is one."""
    sandbox.fault("azure", "upload_file", bytes_per_second=10_000, times=FOREVER)
    sandbox.fault("openai", "upload_file", status=400)
    with pytest.raises(openai.BadRequestError):
        upload(member, content=LARGE, filename=filename)
    assert await nothing_left(sandbox, rows, filename)


@pytest.fixture(scope="module")
def any_gateway(make_gateway):
    with make_gateway(filemux={"upload_policy": "any"}) as running:
        yield running


@pytest.fixture
def any_member(any_gateway, clients_of):
    return clients_of(any_gateway).member()


async def test_any_one_target_is_enough_and_the_rows_say_what_failed(any_member, sandbox, rows, filename):
    sandbox.fault("azure", "upload_file", status=500, times=FOREVER)
    file = upload(any_member, filename=filename)
    assert {target["account"]: target["state"] for target in file.filemux["targets"]} == {
        "openai-first": "stored",
        "azure": "failed",
    }
    assert "500" in (await rows.failed(filename, "azure"))["last_error"]
    failed, stored = await rows.mappings(filename)
    assert (failed["model_name"], failed["provider_file_id"]) == ("azure", None)
    [held] = sandbox.files
    assert (stored["model_name"], stored["state"], stored["provider_file_id"]) == ("mini", "stored", held["id"])
    assert stored["last_error"] is None
    any_member.files.delete(file.id)
    assert await nothing_left(sandbox, rows, filename)


async def test_any_no_target_is_too_few(any_member, sandbox, rows, filename):
    sandbox.fault("*", "upload_file", status=500, times=FOREVER)
    with pytest.raises(openai.InternalServerError) as failed:
        upload(any_member, filename=filename)
    assert "mini (openai)" in failed.value.message and "azure (azure)" in failed.value.message
    assert await nothing_left(sandbox, rows, filename)


def test_a_slow_target_slows_no_other(member, sandbox):
    """The fast one has the whole file while the slow one still takes it."""
    sandbox.fault("azure", "upload_file", bytes_per_second=10_000)
    with ThreadPoolExecutor(1) as pool:
        uploading = pool.submit(upload, member, content=LARGE)
        assert eventually(lambda: sandbox.files)
        assert [(one["provider"], one["sha256"]) for one in sandbox.files] == [("openai", sha256(LARGE))]
        assert not uploading.done()
        sandbox.release("azure.upload_file")
        assert uploading.result().bytes == len(LARGE)
    assert [one["sha256"] for one in sandbox.files] == [sha256(LARGE)] * 2


@pytest.mark.parametrize(
    ("trouble", "content"),
    [
        # Cut off, long before its end.
        ({"bytes_per_second": 20_000}, HUGE),
        # The last byte has left, so the provider's answer is awaited: it has the id of what is to be deleted.
        ({"bytes_per_second": 10_000}, LARGE),
        ({"delay_seconds": 600}, PDF),
    ],
    ids=["in the middle", "taking the end", "before its answer"],
)
async def test_a_client_that_leaves_while_a_provider_is_slow(
    gateway, member, sandbox, rows, filename, trouble, content
):
    sandbox.fault("azure", "upload_file", **trouble)
    body = PURPOSE + TARGETS + file_part(content, filename) + CLOSING
    with Line(gateway.url) as line:
        form_type = f"multipart/form-data; boundary={BOUNDARY}"
        line.send_head("POST", "/v1/files", member.api_key, content_type=form_type, content_length=len(body))
        line.send(body)
        assert eventually(lambda: [one["provider"] for one in sandbox.files] == ["openai"])
        assert eventually(lambda: sandbox.calls("azure.upload_file"))
        line.hang_up()
    sandbox.release()
    assert await nothing_left(sandbox, rows, filename)
