"""What every provider that runs batches must do with them; a gap is declared in Capabilities.

A module that collects these parametrises `subject`, as for the other suites.
"""

import base64
import hashlib
import json
from dataclasses import replace

import pytest

from app import ids
from app.errors import Missing, ProviderError, Rejected, Unavailable
from app.formats.batch_lines import CHAT_ENDPOINT
from app.formats.openai import FileFacts
from app.providers.protocol import ENDED, BatchSubmission, ChatRequest
from tests.conformance.suite import by_status
from tests.support.providers import chunks_of, upload_of

PDF = b"%PDF-1.4 these very bytes"
# Longer than any test lets the clock run.
SLOW = "slow:80000"


def chat_of(subject, *content, files=None):
    """A chat as a line holds it: text and parts, for the account's model."""
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    body = {"model": subject.account.provider_model, "messages": [{"role": "user", "content": parts}]}
    return ChatRequest(subject.account.provider_model, json.dumps(body).encode(), files=files or {})


async def submission_of(subject, *requests, **options):
    """What becomes a batch of these requests (texts, or chats), and their keys; more are added where few are refused.

    The lines are uploaded, unless the provider takes them with the batch itself.
    """
    provider, capabilities, name = subject.provider, subject.capabilities, ids.new_replica_id()
    more = [f"more {number}" for number in range(len(requests), capabilities.batch.min_lines)]
    chats = [chat_of(subject, one) if isinstance(one, str) else one for one in (*requests, *more)]
    keys = [f"{name}-{number}" for number in range(len(chats))]
    lines = [provider.batch_line(key, CHAT_ENDPOINT, chat) for key, chat in zip(keys, chats, strict=True)]
    content = b"".join(line + b"\n" for line in lines)
    batch = BatchSubmission(name, subject.account.provider_model, CHAT_ENDPOINT, **options)
    if capabilities.batch_input == "inline":
        return replace(batch, open=lambda: chunks_of(content)), keys
    upload = upload_of(
        content,
        replica_id=f"{name}.jsonl" if capabilities.batch_input == "object" else name,
        filename=f"{name}.jsonl",
        mime_type="application/jsonl",
        purpose="batch",
    )
    return replace(batch, input_file_id=(await provider.upload_file(upload)).id), keys


async def created(subject, *requests):
    """A new batch of these requests, and their keys."""
    batch, keys = await submission_of(subject, *requests)
    return await subject.provider.create_batch(batch), keys


async def ended(subject, batch):
    """The batch when the provider's clock has brought it to its end."""
    for _ in range(20):
        batch = await subject.provider.retrieve_batch(batch.id)
        if batch.status in ENDED:
            return batch
        subject.sandbox.advance(5)
    raise AssertionError(f"the batch is still {batch.status}")


async def results_of(subject, batch):
    """Key → result; none comes twice."""
    async with subject.provider.read_batch_output(batch) as output:
        results = [result async for several in output for result in several]
    by_key = {result.key: result for result in results}
    assert len(by_key) == len(results)
    return by_key


def text_of(result):
    """What the model answered."""
    assert result.succeeded, result
    answer = json.loads(result.body)
    assert answer["object"] == "chat.completion"
    return answer["choices"][0]["message"]["content"]


def held(subject):
    return {file["id"] for file in subject.sandbox.files}


def another(batch_id):
    """An id of the same form that stands for nothing."""
    return batch_id[:-1] + ("0" if batch_id[-1] != "0" else "1")


class BatchSuite:
    """batch_line, create_batch, retrieve_batch, list_batches, cancel_batch, read_batch_output, forget_batch."""

    def test_a_line_is_one_line_and_always_the_same(self, subject):
        chat = chat_of(subject, "two\nlines")
        line = subject.provider.batch_line("key-1", CHAT_ENDPOINT, chat)
        assert b"\n" not in line and isinstance(json.loads(line), dict)
        assert subject.provider.batch_line("key-1", CHAT_ENDPOINT, chat) == line

    async def test_every_line_has_its_answer(self, subject):
        batch, keys = await created(subject, "one", "two", "three")
        assert batch.status not in ENDED
        batch = await ended(subject, batch)
        assert (batch.status, batch.errors) == ("completed", ())
        results = await results_of(subject, batch)
        assert results.keys() == set(keys)
        assert [text_of(results[key]) for key in keys[:3]] == ["one", "two", "three"]
        usage = json.loads(results[keys[0]].body)["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
        assert await results_of(subject, batch) == results

    async def test_a_line_that_fails_says_so_and_the_others_do_not(self, subject):
        batch, keys = await created(subject, "well", "not fail:400")
        batch = await ended(subject, batch)
        assert batch.status == "completed"
        results = await results_of(subject, batch)
        assert text_of(results[keys[0]]) == "well"
        failed = results[keys[1]]
        assert failed.status == 400 and json.loads(failed.body)["error"]["message"]
        assert not failed.succeeded and results.keys() == set(keys)

    async def test_the_model_sees_a_files_bytes(self, subject):
        capabilities = subject.capabilities
        refers = capabilities.carriage(subject.account.provider_model, "application/pdf") == "reference"
        if refers and not capabilities.batch.inline_files:
            file = await subject.provider.upload_file(upload_of(PDF, mime_type="application/pdf"))
            source, files = {"file_id": file.id}, {file.id: FileFacts("application/pdf", "a.pdf")}
        else:
            data = f"data:application/pdf;base64,{base64.b64encode(PDF).decode()}"
            source, files = {"file_data": data, "filename": "a.pdf"}, {}
        chat = chat_of(subject, {"type": "file", "file": source}, "what is in it?", files=files)
        batch, keys = await created(subject, chat)
        results = await results_of(subject, await ended(subject, batch))
        assert hashlib.sha256(PDF).hexdigest() in text_of(results[keys[0]])

    async def test_a_batch_is_described_as_it_was_submitted(self, subject):
        submission, keys = await submission_of(subject, "one")
        batch = await subject.provider.create_batch(submission)
        retrieved = await subject.provider.retrieve_batch(batch.id)
        assert retrieved.name == (submission.name if subject.account.names_batches else None)
        assert (retrieved.id, retrieved.name, retrieved.created_at) == (batch.id, batch.name, batch.created_at)
        retrieved = await ended(subject, batch)
        assert retrieved.created_at <= retrieved.ended_at
        assert retrieved.total in (len(keys), None)

    async def test_the_list_is_complete_page_by_page_newest_first(self, subject):
        made = []
        for _ in range(3):
            made.append((await created(subject, "one"))[0])
            subject.sandbox.advance(1)
        listed, after = [], None
        for expected in (2, 1):
            page = await subject.provider.list_batches(after, 2)
            assert len(page.batches) == expected
            listed += page.batches
            after = page.after
        assert after is None
        assert [(batch.id, batch.name) for batch in listed] == [(batch.id, batch.name) for batch in reversed(made)]

    async def test_an_empty_list_is_one_empty_page(self, subject):
        page = await subject.provider.list_batches(None, 100)
        assert (page.batches, page.after) == ((), None)

    async def test_a_cancelled_batch_ends_with_what_was_done(self, subject):
        batch, keys = await created(subject, "quick", SLOW)
        subject.sandbox.advance(3)
        await subject.provider.cancel_batch(batch.id)
        await subject.provider.cancel_batch(batch.id)
        batch = await ended(subject, batch)
        assert batch.status == "cancelled"
        results = await results_of(subject, batch)
        assert results.keys() <= set(keys)
        answered = {key for key, result in results.items() if result.succeeded}
        assert keys[1] not in answered
        assert all(result.code for result in results.values() if result.status is None)

    async def test_a_batch_that_has_ended_is_not_cancelled(self, subject):
        batch, keys = await created(subject, "one")
        batch = await ended(subject, batch)
        await subject.provider.cancel_batch(batch.id)
        assert (await subject.provider.retrieve_batch(batch.id)).status == "completed"
        assert (await results_of(subject, batch)).keys() == set(keys)

    async def test_an_unknown_batch_is_missing(self, subject):
        batch, _ = await created(subject, "one")
        for verb in (subject.provider.retrieve_batch, subject.provider.cancel_batch):
            with pytest.raises(Missing):
                await verb(another(batch.id))

    async def test_forgetting_leaves_the_input_alone(self, subject):
        submission, _ = await submission_of(subject, "one", "two fail:400")
        before = held(subject)
        batch = await ended(subject, await subject.provider.create_batch(submission))
        await results_of(subject, batch)
        for _ in range(2):
            await subject.provider.forget_batch(batch)
            assert held(subject) == before

    async def test_results_that_are_gone_are_missing(self, subject):
        batch, _ = await created(subject, "one")
        batch = await ended(subject, batch)
        await subject.provider.forget_batch(batch)
        with pytest.raises(Missing):
            await results_of(subject, batch)

    @by_status
    async def test_every_status_has_its_meaning(self, subject, status, error):
        submission, _ = await submission_of(subject, "one")
        batch = await subject.provider.create_batch(submission)
        calls = {
            "create_batch": lambda: subject.provider.create_batch(replace(submission, name=ids.new_replica_id())),
            "retrieve_batch": lambda: subject.provider.retrieve_batch(batch.id),
            "list_batches": lambda: subject.provider.list_batches(None, 1),
        }
        for operation, call in calls.items():
            subject.fault(operation, status=status)
            with pytest.raises(ProviderError) as failed:
                await call()
            assert type(failed.value) is subject.account.verb_errors.get(operation, {}).get(status, error), operation
            assert not failed.value.outcome_unknown, operation

    async def test_a_lost_answer_is_an_unknown_outcome(self, subject):
        submission, _ = await submission_of(subject, "one")
        subject.fault("create_batch", lose_answer=True)
        with pytest.raises(Unavailable) as failed:
            await subject.provider.create_batch(submission)
        assert failed.value.outcome_unknown
        subject.sandbox.heal()
        [found] = (await subject.provider.list_batches(None, 100)).batches
        if subject.account.names_batches:
            assert found.name == submission.name
        if subject.capabilities.batch.repeatable:
            assert (await subject.provider.create_batch(submission)).id == found.id

    async def test_an_output_that_breaks_off_is_unavailable(self, subject):
        batch, _ = await created(subject, "word " * 400)
        batch = await ended(subject, batch)
        # Where results are files, a file's bytes.
        subject.fault("read_batch_output", reset_after_bytes=200)
        subject.fault("read_file", reset_after_bytes=200)
        with pytest.raises(Unavailable):
            await results_of(subject, batch)

    async def test_a_model_that_does_not_exist_fails_the_batch_or_its_lines(self, subject):
        chat = replace(chat_of(subject, "one"), provider_model="no-such-model")
        chat = replace(chat, body=chat.body.replace(subject.account.provider_model.encode(), b"no-such-model"))
        submission, keys = await submission_of(subject, chat)
        try:
            batch = await subject.provider.create_batch(replace(submission, provider_model="no-such-model"))
        except Rejected:
            return
        batch = await ended(subject, batch)
        if batch.status == "failed":
            assert batch.errors[0].message
        else:
            assert not (await results_of(subject, batch))[keys[0]].succeeded
