"""Gemini's batches, through google-genai; what the SDK would never send, by hand."""

import json

import httpx
import pytest
from google.genai import errors, types

from tests.sandbox.conftest import Sandbox, Switchboard
from tests.sandbox.gemini_client import KEY, PDF, SECOND, assert_refused, line, open_client, post, upload

# Longer than a batch may take.
_FOREVER = "slow:999999"


@pytest.fixture
def client(sandbox: Sandbox):
    with open_client(sandbox.base_url) as client:
        yield client


def _request(text, *parts):
    return {"contents": [{"role": "user", "parts": [*parts, {"text": text}]}]}


def _input(client, *requests, keys=None):
    """An uploaded file of these requests, texts or bodies."""
    bodies = [_request(one) if isinstance(one, str) else one for one in requests]
    keys = keys or [f"key-{number}" for number in range(len(bodies))]
    lines = [json.dumps({"key": key, "request": body}) for key, body in zip(keys, bodies, strict=True)]
    return upload(client, "\n".join(lines).encode(), "jsonl")


def _create(client, *requests, keys=None, **config):
    return client.batches.create(model=SECOND, src=_input(client, *requests, keys=keys).name, config=config)


def _responses(client, batch):
    """Key → line of the file that a batch has made."""
    content = client.files.download(file=batch.dest.file_name)
    return {found["key"]: found for found in map(json.loads, content.splitlines())}


def _text(response):
    return response["candidates"][0]["content"]["parts"][0]["text"]


async def _stats(http, batch):
    return (await http.get(f"/gemini/v1/{batch.name}", headers=KEY)).json()["metadata"]["batchStats"]


async def test_a_batch_lives_from_its_creation_to_its_deletion(client, switchboard: Switchboard, http):
    created = _create(client, "slow:60", "slow:61", display_name="mine")
    assert (created.state, created.display_name) == (types.JobState.JOB_STATE_PENDING, "mine")
    assert (created.model, created.end_time, created.dest) == (f"models/{SECOND}", None, None)
    await switchboard.advance(1)
    assert client.batches.get(name=created.name).state == types.JobState.JOB_STATE_RUNNING
    assert await _stats(http, created) == {"requestCount": "2", "pendingRequestCount": "2"}

    await switchboard.advance(60)
    ended = client.batches.get(name=created.name)
    assert (ended.state, ended.done) == (types.JobState.JOB_STATE_SUCCEEDED, True)
    assert await _stats(http, created) == {"requestCount": "2", "successfulRequestCount": "2"}
    responses = _responses(client, ended)
    assert {key: _text(found["response"]) for key, found in responses.items()} == {
        "key-0": "slow:60",
        "key-1": "slow:61",
    }
    made = client.files.get(name=ended.dest.file_name)
    assert (made.source, made.state) == (types.FileSource.GENERATED, types.FileState.ACTIVE)

    client.batches.delete(name=created.name)
    assert client.files.get(name=made.name) == made
    for verb in (client.batches.get, client.batches.cancel, client.batches.delete):
        with pytest.raises(errors.ClientError) as caught:
            verb(name=created.name)
        assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


async def test_both_places_tell_of_the_results(client, switchboard: Switchboard, http: httpx.AsyncClient):
    batch = _create(client, "one")
    await switchboard.advance(2)
    operation = (await http.get(f"/gemini/v1/{batch.name}", headers=KEY)).json()
    assert operation["done"] is True
    assert operation["response"]["responsesFile"] == operation["metadata"]["output"]["responsesFile"]


async def test_requests_may_come_along(client, switchboard: Switchboard):
    inlined = [
        {"contents": "one", "metadata": {"key": "a"}, "config": {"system_instruction": "be brief"}},
        {"contents": "two fail:503", "metadata": {"key": "b"}},
    ]
    batch = client.batches.create(model=SECOND, src=inlined)
    await switchboard.advance(2)
    first, second = client.batches.get(name=batch.name).dest.inlined_responses
    assert (first.metadata, first.response.text, first.error) == ({"key": "a"}, "one", None)
    assert (second.metadata, second.response, second.error.code) == ({"key": "b"}, None, 14)


async def test_the_model_sees_the_accounts_files(client, switchboard: Switchboard):
    file = upload(client, display_name="a.pdf")
    data = {"file_data": {"file_uri": file.uri, "mime_type": "application/pdf"}}
    batch = _create(client, _request("?", data))
    await switchboard.advance(2)
    responses = _responses(client, client.batches.get(name=batch.name))
    assert _text(responses["key-0"]["response"]) == f"{line(PDF, 'a.pdf')}\n?"


@pytest.mark.parametrize(
    ("wrong", "code"), [("fail:429", 8), ("fail:500", 13), ({"contents": []}, 3), (_request("hi") | {"top_p": 1}, 3)]
)
async def test_what_is_wrong_with_a_request_is_its_result(client, switchboard: Switchboard, http, wrong, code):
    batch = _create(client, "well", wrong)
    await switchboard.advance(2)
    batch = client.batches.get(name=batch.name)
    assert batch.state == types.JobState.JOB_STATE_SUCCEEDED
    responses = _responses(client, batch)
    assert _text(responses["key-0"]["response"]) == "well"
    assert (responses["key-1"]["error"]["code"], "response" in responses["key-1"]) == (code, False)
    stats = {"requestCount": "2", "successfulRequestCount": "1", "failedRequestCount": "1"}
    assert await _stats(http, batch) == stats


@pytest.mark.parametrize("content", [b"not JSON", b'{"request": {}}', b'{"key": "a", "request": {}, "method": "POST"}'])
async def test_a_file_that_cannot_be_read_fails_the_batch(client, switchboard: Switchboard, http, content):
    file = upload(client, json.dumps({"key": "b", "request": _request("hi")}).encode() + b"\n" + content, "jsonl")
    batch = client.batches.create(model=SECOND, src=file.name)
    await switchboard.advance(2)
    assert client.batches.get(name=batch.name).state == types.JobState.JOB_STATE_FAILED
    error = (await http.get(f"/gemini/v1/{batch.name}", headers=KEY)).json()["error"]
    assert error["code"] == 3
    assert "line 2" in error["message"]


async def test_keys_are_unique(client, switchboard: Switchboard):
    batch = _create(client, "one", "two", keys=["a", "a"])
    await switchboard.advance(2)
    assert client.batches.get(name=batch.name).state == types.JobState.JOB_STATE_FAILED


async def test_a_batch_that_is_cancelled_has_no_results(client, switchboard: Switchboard):
    batch = _create(client, "quick", _FOREVER)
    await switchboard.advance(3)
    client.batches.cancel(name=batch.name)
    # That takes a second, which may have passed.
    state = client.batches.get(name=batch.name).state
    assert state in (types.JobState.JOB_STATE_RUNNING, types.JobState.JOB_STATE_CANCELLED)
    await switchboard.advance(1)
    cancelled = client.batches.get(name=batch.name)
    assert (cancelled.state, cancelled.dest) == (types.JobState.JOB_STATE_CANCELLED, None)
    with pytest.raises(errors.ClientError) as caught:
        client.batches.cancel(name=batch.name)
    assert caught.value.status == "FAILED_PRECONDITION"


async def test_a_batch_expires_after_two_days(client, switchboard: Switchboard):
    batch = _create(client, "quick", _FOREVER)
    await switchboard.advance(47 * 3600)
    assert client.batches.get(name=batch.name).state == types.JobState.JOB_STATE_RUNNING
    await switchboard.advance(3600)
    expired = client.batches.get(name=batch.name)
    assert (expired.state, expired.dest) == (types.JobState.JOB_STATE_EXPIRED, None)


def test_the_list_has_the_newest_first_and_only_ones_own(client, sandbox: Sandbox):
    assert [*client.batches.list()] == []
    made = [_create(client, "one").name for _ in range(3)]
    assert [batch.name for batch in client.batches.list(config={"page_size": 2})] == made[::-1]
    with open_client(sandbox.base_url, "two") as other:
        assert [*other.batches.list()] == []
        with pytest.raises(errors.ClientError):
            other.batches.get(name=made[0])


async def test_generated_bytes_are_asked_for_as_media(client, switchboard: Switchboard, http: httpx.AsyncClient):
    batch = _create(client, "one")
    await switchboard.advance(2)
    name = client.batches.get(name=batch.name).dest.file_name
    assert_refused(await http.get(f"/gemini/v1beta/{name}:download", headers=KEY))
    given = await http.get(f"/gemini/v1beta/{name}:download?alt=media", headers=KEY)
    assert json.loads(given.content)["key"] == "key-0"


@pytest.mark.parametrize(
    "batch",
    [
        {},
        {"inputConfig": {}},
        {"inputConfig": {"fileName": "a.jsonl"}},
        {"inputConfig": {"fileName": "files/a", "requests": {"requests": [{"request": {}}]}}},
        {"inputConfig": {"requests": {"requests": []}}},
        {"inputConfig": {"fileName": "files/a"}, "name": "batches/mine"},
    ],
)
async def test_a_body_that_is_no_batch_is_refused(http: httpx.AsyncClient, batch):
    assert_refused(await post(http, {"batch": batch}, verb="batchGenerateContent"))


async def test_input_and_model_must_exist(client, http: httpx.AsyncClient):
    file = {"batch": {"inputConfig": {"fileName": "files/none"}}}
    assert (await post(http, file, verb="batchGenerateContent")).status_code == 403
    with pytest.raises(errors.ClientError) as caught:
        client.batches.create(model="no-such-model", src=_input(client, "one").name)
    assert caught.value.code == 404
