"""Anthropic's Message Batches API, through the official client; what that would never send, by hand."""

import hashlib
from contextlib import suppress

import anthropic
import httpx
import pytest

from tests.sandbox.conftest import Sandbox, Switchboard

_HEADERS = {"authorization": "Bearer one", "anthropic-version": "2026-10-21"}
_PATH = "/anthropic/v1/messages/batches"
# Longer than a batch may take.
_FOREVER = "slow:99999"


@pytest.fixture
async def client(sandbox: Sandbox):
    url = f"{sandbox.base_url}/anthropic"
    async with anthropic.AsyncAnthropic(base_url=url, api_key="one", max_retries=0) as client:
        yield client


def _params(content, **more):
    messages = [{"role": "user", "content": content}]
    return {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": messages, **more}


def _requests(*said):
    return [{"custom_id": f"line-{number}", "params": _params(text)} for number, text in enumerate(said)]


async def _create(client, *said):
    return await client.messages.batches.create(requests=_requests(*said))


async def _results(client, batch):
    return [(line.custom_id, line.result) async for line in await client.messages.batches.results(batch.id)]


def _counts(batch):
    return {kind: count for kind, count in batch.request_counts.model_dump().items() if count}


async def test_a_batch_lives_from_its_creation_to_its_deletion(client, switchboard: Switchboard, sandbox: Sandbox):
    batches = client.messages.batches
    created = await _create(client, "one", "slow:60")
    assert (created.type, created.processing_status, _counts(created)) == (
        "message_batch",
        "in_progress",
        {"processing": 2},
    )
    assert (created.expires_at - created.created_at).total_seconds() == 24 * 3600
    assert (created.ended_at, created.results_url, created.archived_at) == (None, None, None)
    assert await batches.retrieve(created.id) == created

    await switchboard.advance(60)
    ended = await batches.retrieve(created.id)
    assert (ended.processing_status, _counts(ended), ended.cancel_initiated_at) == ("ended", {"succeeded": 2}, None)
    assert ended.results_url.startswith(f"{sandbox.base_url}/anthropic/")
    results = await _results(client, ended)
    assert [(key, result.type, result.message.content[0].text) for key, result in results] == [
        ("line-1", "succeeded", "slow:60"),
        ("line-0", "succeeded", "one"),
    ]

    deleted = await batches.delete(created.id)
    assert (deleted.id, deleted.type) == (created.id, "message_batch_deleted")
    for verb in (batches.retrieve, batches.cancel, batches.delete):
        with pytest.raises(anthropic.NotFoundError):
            await verb(created.id)


async def test_the_model_sees_the_accounts_files(client, switchboard: Switchboard):
    file = await client.files.upload(file=("a.pdf", b"%PDF", "application/pdf"))
    content = [{"type": "document", "source": {"type": "file", "file_id": file.id}}, {"type": "text", "text": "?"}]
    batch = await _create(client, content)
    await switchboard.advance(2)
    [(_, result)] = await _results(client, batch)
    assert hashlib.sha256(b"%PDF").hexdigest() in result.message.content[0].text


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        (_params("fail:529"), "overloaded_error"),
        (_params("hi", model="no-such-model"), "not_found_error"),
        (_params("hi", max_tokens=0), "invalid_request_error"),
        (_params("hi", stream=True), "invalid_request_error"),
        (_params("hi", unknown=1), "invalid_request_error"),
        (_params([{"type": "document", "source": {"type": "file", "file_id": "file_0"}}]), "not_found_error"),
    ],
)
async def test_what_is_wrong_with_a_message_is_its_result(client, switchboard: Switchboard, params, kind):
    requests = [*_requests("well"), {"custom_id": "wrong", "params": params}]
    batch = await client.messages.batches.create(requests=requests)
    await switchboard.advance(2)
    batch = await client.messages.batches.retrieve(batch.id)
    assert _counts(batch) == {"succeeded": 1, "errored": 1}
    results = dict(await _results(client, batch))
    assert results["line-0"].message.content[0].text == "well"
    assert (results["wrong"].type, results["wrong"].error.error.type) == ("errored", kind)


async def test_what_was_done_before_a_cancellation_is_kept(client, switchboard: Switchboard):
    batch = await _create(client, "quick", _FOREVER)
    await switchboard.advance(3)
    canceling = await client.messages.batches.cancel(batch.id)
    assert (canceling.processing_status, _counts(canceling)) == ("canceling", {"processing": 2})
    # That takes a second, which may have passed.
    with suppress(anthropic.BadRequestError):
        again = await client.messages.batches.cancel(batch.id)
        assert (again.processing_status, again.cancel_initiated_at) == ("canceling", canceling.cancel_initiated_at)
    await switchboard.advance(1)
    ended = await client.messages.batches.retrieve(batch.id)
    assert (ended.processing_status, _counts(ended)) == ("ended", {"succeeded": 1, "canceled": 1})
    assert ended.cancel_initiated_at is not None
    assert [(key, result.type) for key, result in await _results(client, ended)] == [
        ("line-1", "canceled"),
        ("line-0", "succeeded"),
    ]
    with pytest.raises(anthropic.BadRequestError, match="has ended"):
        await client.messages.batches.cancel(batch.id)


async def test_what_is_not_done_within_a_day_expires(client, switchboard: Switchboard):
    batch = await _create(client, "quick", _FOREVER)
    await switchboard.advance(24 * 3600)
    ended = await client.messages.batches.retrieve(batch.id)
    assert (_counts(ended), ended.ended_at) == ({"succeeded": 1, "expired": 1}, ended.expires_at)
    assert [result.type for _, result in await _results(client, ended)] == ["expired", "succeeded"]


async def test_results_are_kept_for_29_days(client, switchboard: Switchboard):
    batch = await _create(client, "one")
    await switchboard.advance(29 * 24 * 3600)
    archived = await client.messages.batches.retrieve(batch.id)
    assert archived.archived_at is not None
    assert archived.results_url is None


async def test_a_batch_under_way_has_no_results_and_stays(client, http: httpx.AsyncClient):
    batch = await _create(client, _FOREVER)
    with pytest.raises(anthropic.AnthropicError, match="Has it finished processing"):
        await client.messages.batches.results(batch.id)
    assert (await http.get(f"{_PATH}/{batch.id}/results", headers=_HEADERS)).status_code == 400
    with pytest.raises(anthropic.BadRequestError, match="still in progress"):
        await client.messages.batches.delete(batch.id)


async def test_the_list_has_the_newest_first_and_only_ones_own(client, sandbox: Sandbox):
    made = [(await _create(client, "one")).id for _ in range(3)]
    assert [batch.id async for batch in client.messages.batches.list(limit=2)] == made[::-1]
    page = await client.messages.batches.list(limit=2)
    assert (page.has_more, page.first_id, page.last_id) == (True, made[2], made[1])
    other = client.with_options(api_key="two")
    assert (await other.messages.batches.list()).data == []
    with pytest.raises(anthropic.NotFoundError):
        await other.messages.batches.retrieve(made[0])


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": _requests("hi"), "metadata": {}}, "metadata"),
        ({"requests": _requests("hi") * 2}, "unique"),
        ({"requests": [{"custom_id": "a b", "params": {}}]}, "requests.0.custom_id"),
        ({"requests": [{"custom_id": "a" * 65, "params": {}}]}, "requests.0.custom_id"),
        ({"requests": [{"custom_id": "a"}]}, "requests.0.params"),
        ({"requests": [{"custom_id": "a", "params": {}, "method": "POST"}]}, "requests.0.method"),
    ],
)
async def test_a_body_that_is_no_batch_is_refused(http: httpx.AsyncClient, body, where):
    refused = await http.post(_PATH, json=body, headers=_HEADERS)
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert where in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "content_type"), [(b'{"requests":[', "application/json"), (b"{}", "application/jsonl")]
)
async def test_a_body_that_is_no_json_is_refused(http: httpx.AsyncClient, content, content_type):
    headers = {**_HEADERS, "content-type": content_type}
    refused = await http.post(_PATH, content=content, headers=headers)
    assert refused.status_code == 400
    assert "JSON" in refused.json()["error"]["message"].upper()
