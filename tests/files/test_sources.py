"""Kept bytes: where they are, that they are the right ones, and that they go with their file, whatever ends it."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.support.kept import FORM_TYPE, MIB, Place, cut_off, lease_ends
from tests.support.sandbox import eventually
from tests.support.uploads import (
    BATCH_LINE,
    CLOSING,
    PDF,
    PURPOSE,
    TARGETS,
    file_part,
    part,
    post_form,
    raw_client,
    upload,
)
from tests.support.wire import Line

EXPIRY = [part("expires_after[anchor]", "created_at"), part("expires_after[seconds]", "3600")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def keeping_gateway(gateway_at, place):
    with gateway_at(place.directory) as running:
        yield running


@pytest.fixture
def member(keeping_gateway, clients_of):
    return clients_of(keeping_gateway).member()


@pytest.fixture(autouse=True)
def empty(place):
    """Whatever a test leaves is removed with the file that it belongs to."""
    yield
    for file_id in place.kept:
        place.kept[file_id].unlink()


@pytest.mark.parametrize("size", [1, MIB - 1, MIB, MIB + 1, 5 * MIB])
def test_the_bytes_are_kept_as_they_came_and_for_nobody_else(member, place, size):
    content = os.urandom(size)
    file = upload(member, content=content)
    assert place.kept == {file.id: place.directory / "sources" / file.id[-2:] / file.id}
    assert place.kept[file.id].read_bytes() == content
    assert place.kept[file.id].stat().st_mode & 0o777 == 0o600
    assert place.spooled == []
    assert member.files.content(file.id).content == content


@pytest.mark.parametrize("size", [100, 3 * MIB])
@pytest.mark.parametrize(
    ("early", "late"), [([TARGETS], [PURPOSE]), ([PURPOSE], [TARGETS]), ([PURPOSE, TARGETS], EXPIRY)]
)
def test_fields_that_follow_the_file_leave_no_second_copy(member, place, size, early, late):
    with raw_client(member) as http:
        answer = post_form(http, *early, file_part(b"x" * size), *late)
    assert answer.status_code == 200, answer.text
    assert eventually(lambda: list(place.kept) == [answer.json()["id"]])
    assert place.spooled == []


# --- removed with the file --------------------------------------------------------------------------------------


async def test_a_delete_removes_them_before_it_answers(member, place, rows, filename):
    file = upload(member, filename=filename)
    assert list(place.kept) == [file.id]
    member.files.delete(file.id)
    assert place.is_empty()
    assert await rows.forgotten(filename, seconds=0)


async def test_a_delete_removes_them_although_a_provider_is_down(member, sandbox, place, rows, filename):
    file = upload(member, filename=filename)
    sandbox.fault("azure", "delete_file", status=503, times=2)
    member.files.delete(file.id)
    assert place.is_empty()
    assert await rows.forgotten(filename)


async def test_what_is_gone_already_does_not_hold_up_a_delete(member, place, rows, filename):
    file = upload(member, filename=filename)
    place.kept[file.id].unlink()
    member.files.delete(file.id)
    assert await rows.forgotten(filename, seconds=0)


async def test_what_cannot_be_removed_is_tried_again(member, place, rows, filename):
    file = upload(member, filename=filename)
    path = place.kept[file.id]
    path.unlink()
    path.mkdir()
    member.files.delete(file.id)
    with pytest.raises(openai.NotFoundError):
        member.files.content(file.id)
    assert not await rows.forgotten(filename, seconds=0)
    path.rmdir()
    assert await rows.forgotten(filename)
    assert place.is_empty()


async def test_an_expired_files_bytes_are_removed(member, place, rows, filename):
    file = upload(member, filename=filename)
    await rows.expire(file.id)
    assert await rows.forgotten(filename)
    assert place.is_empty()


async def test_a_gateway_with_another_data_directory_leaves_them_alone(
    member, clients, place, rows, filename, database
):
    """It deletes the file for everybody; the bytes are removed where they are."""
    file = upload(member, filename=filename)
    clients.admin.files.delete(file.id)
    assert list(place.kept) == [file.id]
    await lease_ends(database, filename)
    assert await rows.forgotten(filename)
    assert place.is_empty()


# --- uploads that come to nothing -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 3 * MIB])
async def test_a_failed_upload_keeps_nothing(member, sandbox, place, rows, filename, size):
    sandbox.fault("azure", "upload_file", status=400, delay_seconds=600)
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(upload, member, content=b"x" * size, filename=filename)
        # Kept while the providers are at it, for a crash must not lose what they have.
        assert eventually(lambda: place.kept)
        sandbox.release("azure.upload_file")
        assert isinstance(failing.exception(), openai.BadRequestError)
    assert await rows.forgotten(filename)
    assert place.is_empty()


async def test_a_client_that_leaves_in_the_middle_of_the_file(keeping_gateway, member, sandbox, place, rows, filename):
    with Line(keeping_gateway.url) as line:
        line.send_head("POST", "/v1/files", member.api_key, content_type=FORM_TYPE, content_length=9_000_000)
        line.send(PURPOSE + TARGETS + file_part(b"x" * 3_000_000, filename))
        assert eventually(lambda: place.spooled and sandbox.calls("azure.upload_file"))
    assert await rows.forgotten(filename)
    assert eventually(place.is_empty)


@pytest.mark.parametrize("size", [100, 3 * MIB])
async def test_a_client_that_leaves_before_the_answer(keeping_gateway, member, sandbox, place, rows, filename, size):
    sandbox.fault("azure", "upload_file", delay_seconds=600)
    body = PURPOSE + TARGETS + file_part(b"x" * size, filename) + CLOSING
    with Line(keeping_gateway.url) as line:
        line.send_head("POST", "/v1/files", member.api_key, content_type=FORM_TYPE, content_length=len(body))
        line.send(body)
        assert eventually(lambda: place.kept and sandbox.calls("azure.upload_file"))
        line.hang_up()
    sandbox.release()
    assert await rows.forgotten(filename)
    assert eventually(place.is_empty)


@pytest.mark.parametrize("content", [PDF, b"x" * 3 * MIB], ids=["small", "large"])
async def test_a_killed_gateways_upload_keeps_nothing_once_its_lease_has_passed(
    gateway_at, tmp_path, sandbox, database, rows, filename, content
):
    place = Place(tmp_path)
    # OpenAI has answered and the bytes are kept; Azure will answer much later.
    sandbox.fault("azure", "upload_file", delay_seconds=60)
    with gateway_at(tmp_path) as victim, ThreadPoolExecutor(1) as pool:
        uploading = pool.submit(cut_off, victim.url, filename, content)
        assert eventually(lambda: place.kept and [one["provider"] for one in sandbox.files] == ["openai"])
        victim.stop(signal.SIGKILL)
        uploading.result()
    sandbox.heal()
    assert len(place.kept) == 1
    with gateway_at(tmp_path):
        # What is still under its lease may be another gateway's running upload.
        assert not await rows.forgotten(filename, seconds=1)
        assert len(place.kept) == 1
        while not await rows.forgotten(filename, seconds=0.5):
            await lease_ends(database, filename)
    assert place.is_empty()
    assert sandbox.files == []


async def test_an_upload_that_outlives_its_row_keeps_nothing(
    keeping_gateway, member, sandbox, place, database, rows, filename
):
    """Its lease has passed, as when it cannot reach the database: for the others it is a crashed one."""
    with Line(keeping_gateway.url) as line:
        body = PURPOSE + TARGETS + file_part(b"x" * 3_000_000, filename) + CLOSING
        line.send_head("POST", "/v1/files", member.api_key, content_type=FORM_TYPE, content_length=len(body))
        line.send(body[:2_500_000])
        assert eventually(lambda: sandbox.calls("azure.upload_file"))
        while not await rows.forgotten(filename, seconds=0.5):
            await lease_ends(database, filename)
        line.send(body[2_500_000:])
        assert b" 503 " in line.receive_until(b"\r\n\r\n")
    assert place.is_empty()
    assert await rows.forgotten(filename)


async def test_a_gateway_that_was_killed_in_the_middle_of_the_body(
    gateway_at, tmp_path, clients_of, sandbox, database, rows, filename
):
    place = Place(tmp_path)
    with gateway_at(tmp_path) as victim, Line(victim.url) as line:
        key = clients_of(victim).new_key()["key"]
        line.send_head("POST", "/v1/files", key, content_type=FORM_TYPE, content_length=9_000_000)
        line.send(PURPOSE + TARGETS + file_part(b"x" * 3_000_000, filename))
        assert eventually(lambda: place.spooled and sandbox.calls("azure.upload_file"))
        victim.stop(signal.SIGKILL)
    with gateway_at(tmp_path):
        while not await rows.forgotten(filename, seconds=0.5):
            await lease_ends(database, filename)
        # Only an hour later is it certain that no other gateway is writing there; see tests/test_serve.py.
        assert (len(place.spooled), place.kept) == (1, {})
    assert sandbox.files == []


# --- nothing kept, or not any more ------------------------------------------------------------------------------


async def test_none_keeps_nothing_and_says_so(gateway_at, tmp_path, clients_of, rows, filename):
    with gateway_at(tmp_path, store="none") as forgetful:
        client = clients_of(forgetful).member()
        file = upload(client, content=b"x" * 3 * MIB, filename=filename)
        assert Place(tmp_path).is_empty()
        with pytest.raises(openai.BadRequestError) as refused:
            client.files.content(file.id)
        assert (refused.value.code, refused.value.param) == ("content_not_available", "id")
        assert "filemux.sources" in refused.value.message
        client.files.delete(file.id)
        assert await rows.forgotten(filename, seconds=0)


async def test_what_was_kept_before_is_still_read_and_removed(gateway_at, tmp_path, clients_of, rows, filename):
    place = Place(tmp_path)
    with gateway_at(tmp_path) as gateway:
        clients = clients_of(gateway)
        key = clients.new_key()["key"]
        kept = upload(clients.client(key), content=b"%PDF-1.4 kept", filename=filename)
    with gateway_at(tmp_path, store="none") as gateway:
        client = clients_of(gateway).client(key)
        upload(client, content=b"%PDF-1.4 not kept")
        assert list(place.kept) == [kept.id]
        assert client.files.content(kept.id).content == b"%PDF-1.4 kept"
        client.files.delete(kept.id)
        assert await rows.forgotten(filename, seconds=0)
    assert place.is_empty()


# --- lost -------------------------------------------------------------------------------------------------------


def test_lost_bytes_come_from_a_provider_that_gives_them_back(member, place, sandbox):
    file = upload(member, content=BATCH_LINE, purpose="batch", filename="lines.jsonl")
    place.kept[file.id].unlink()
    assert member.files.content(file.id).content == BATCH_LINE
    assert sandbox.calls("openai.read_file") + sandbox.calls("azure.read_file") == 1
    with raw_client(member) as http:
        answer = http.get(f"/files/{file.id}/content", headers={"range": "bytes=0-1"})
    # A range may be ignored (RFC 9110 §14.2), and a provider gives the whole.
    assert (answer.status_code, answer.content) == (200, BATCH_LINE)


def test_bytes_that_are_not_the_files_any_more_are_not_given_out(member, place):
    file = upload(member, content=b"x" * MIB)
    place.kept[file.id].write_bytes(b"x" * (MIB - 1) + b"y")
    with raw_client(member) as http, pytest.raises(httpx.RemoteProtocolError):
        http.get(f"/files/{file.id}/content")


def test_lost_bytes_that_no_provider_gives_back(member, place):
    file = upload(member)
    place.kept[file.id].unlink()
    with pytest.raises(openai.BadRequestError) as refused:
        member.files.content(file.id)
    assert refused.value.code == "content_not_available"
