"""What every provider must do with accounts and files; a gap is declared in Capabilities.

Chats are in chat_suite. A module that collects these parametrises `subject`: against the sandbox, or against real
accounts.
"""

import asyncio
import contextlib
import hashlib
import random
import socket
from dataclasses import replace

import pytest

from app.errors import (
    Missing,
    ProviderError,
    ProviderTooLarge,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from app.providers.http import READ_CHUNK_BYTES
from app.providers.protocol import PURPOSES, UploadInterrupted
from tests.support.providers import upload_of

CONTENT = random.Random(4).randbytes(3 * 1024 * 1024 + 1)
BY_STATUS = {
    400: Rejected,
    401: Unauthorized,
    403: Unauthorized,
    404: Missing,
    405: Unsupported,
    408: RateLimited,
    409: RateLimited,
    413: ProviderTooLarge,
    422: Rejected,
    429: RateLimited,
    500: Unavailable,
    501: Unsupported,
    503: Unavailable,
}
by_status = pytest.mark.parametrize(("status", "error"), BY_STATUS.items(), ids=map(str, BY_STATUS))


def unreachable():
    """A socket that holds a port on which nobody listens."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken, f"http://127.0.0.1:{taken.getsockname()[1]}"


async def found_again(subject, upload):
    """The file of an upload whose answer was lost: by the provider itself, or by its name."""
    with contextlib.suppress(Unavailable):
        return await subject.provider.upload_file(upload)
    return await subject.provider.retrieve_file(subject.provider.chosen_file_id(upload.replica_id))


class AccountSuite:
    """check(), and what does not depend on a verb."""

    async def test_a_working_account_passes_its_check(self, subject):
        await subject.provider.check()

    async def test_refused_credentials_fail_the_check_without_being_quoted(self, subject):
        with pytest.raises(Unauthorized) as refused:
            await subject.sibling(**{subject.account.credential: "bad-secret"}).check()
        assert "bad-secret" not in refused.value.message

    async def test_an_account_that_cannot_be_reached_is_unavailable(self, subject):
        taken, url = unreachable()
        with taken, pytest.raises(Unavailable) as refused:
            await subject.sibling(url).check()
        assert not refused.value.outcome_unknown

    def test_an_account_can_do_what_the_registry_declares(self, subject):
        # Sizes, and whether batches keep their names, are the vendor's own, and not whoever else's speaks its API.
        declared, has = subject.account.capabilities, subject.capabilities
        limits = {name: getattr(has.batch, name) for name in ("max_lines", "max_bytes", "named")}
        assert has == replace(declared, max_file_bytes=has.max_file_bytes, batch=replace(declared.batch, **limits))


class FilesSuite:
    """upload_file, retrieve_file, read_file, list_files, delete_file."""

    @pytest.mark.parametrize("promised", [True, False])
    @pytest.mark.parametrize("size", [1, READ_CHUNK_BYTES, READ_CHUNK_BYTES + 1, len(CONTENT)])
    async def test_every_byte_arrives_and_comes_back(self, subject, size, promised):
        content = CONTENT[:size]
        purpose = min(subject.capabilities.readable, default=min(subject.capabilities.purposes))
        promised = promised or subject.capabilities.needs_length
        file = await subject.provider.upload_file(upload_of(content, promised=promised, purpose=purpose))
        assert file.bytes == size
        [held] = subject.sandbox.files
        assert (held["id"], held["bytes"], held["sha256"]) == (file.id, size, hashlib.sha256(content).hexdigest())
        if subject.capabilities.readable:
            async with subject.provider.read_file(file.id) as opened:
                assert opened.size_bytes == size
                assert b"".join([chunk async for chunk in opened.chunks]) == content

    async def test_an_empty_file_is_taken_or_refused_as_declared(self, subject):
        upload = subject.provider.upload_file(upload_of(b""))
        if subject.account.empty_file is None:
            assert (await upload).bytes == 0
            return
        with pytest.raises(subject.account.empty_file):
            await upload
        assert subject.sandbox.files == []

    async def test_a_file_is_described_as_it_was_uploaded(self, subject):
        file = await subject.provider.upload_file(upload_of(b"some bytes", filename="a.txt"))
        assert (file.filename, file.bytes) == ("a.txt", 10)
        assert await subject.provider.retrieve_file(file.id) == file

    @pytest.mark.parametrize("filename", ["Bericht März 🎉.pdf", 'the "best".pdf', "a; b=c.pdf", "100%.pdf", "a'b.pdf"])
    async def test_a_filename_arrives_as_it_is(self, subject, filename):
        await subject.provider.upload_file(upload_of(filename=filename))
        assert [held["filename"] for held in subject.sandbox.files] == [filename]

    @pytest.mark.parametrize("purpose", sorted(PURPOSES))
    async def test_a_purpose_is_taken_and_given_back_as_declared(self, subject, purpose):
        upload = subject.provider.upload_file(upload_of(purpose=purpose))
        if purpose not in subject.capabilities.purposes:
            with pytest.raises(ProviderError):
                await upload
            return
        reading = subject.provider.read_file((await upload).id)
        if purpose in subject.capabilities.readable:
            async with reading as opened:
                assert b"".join([chunk async for chunk in opened.chunks]) == b"some bytes"
        else:
            with pytest.raises(ProviderError) as refused:
                await reading.__aenter__()
            assert not refused.value.retryable

    async def test_an_expiry_is_passed_on(self, subject):
        file = await subject.provider.upload_file(upload_of(expires_after_seconds=3600))
        if not subject.account.expires_files:
            assert file.expires_at is None
            return
        lifetime_seconds = subject.capabilities.file_ttl_seconds or 3600
        assert file.expires_at - file.created_at == lifetime_seconds
        subject.sandbox.advance(lifetime_seconds)
        with pytest.raises(Missing):
            await subject.provider.retrieve_file(file.id)

    async def test_a_deleted_file_is_missing_for_every_verb(self, subject):
        file = await subject.provider.upload_file(upload_of())
        await subject.provider.delete_file(file.id)
        assert subject.sandbox.files == []
        if subject.account.deletes_silently:
            await subject.provider.delete_file(file.id)
        else:
            with pytest.raises(Missing):
                await subject.provider.delete_file(file.id)
        with pytest.raises(Missing):
            await subject.provider.retrieve_file(file.id)
        with pytest.raises(Missing):
            await subject.provider.read_file(file.id).__aenter__()

    async def test_the_list_is_complete_page_by_page(self, subject):
        if not subject.capabilities.lists_files:
            with pytest.raises(Unsupported):
                await subject.provider.list_files(None, 2)
            return
        made = {(await subject.provider.upload_file(upload_of())).id for _ in range(5)}
        listed, after = [], None
        for expected in (2, 2, 1):
            page = await subject.provider.list_files(after, 2)
            assert len(page.files) == expected
            listed += [file.id for file in page.files]
            after = page.after
        assert after is None
        assert len(listed) == 5 and set(listed) == made

    async def test_an_empty_list_is_one_empty_page(self, subject):
        if subject.capabilities.lists_files:
            page = await subject.provider.list_files(None, 100)
            assert (page.files, page.after) == ((), None)

    @pytest.mark.parametrize("promised", [True, False])
    async def test_an_upload_that_is_cancelled_leaves_nothing(self, subject, promised):
        begun, never = asyncio.Event(), asyncio.Event()

        async def stalls():
            yield CONTENT
            begun.set()
            await never.wait()

        size_bytes = len(CONTENT) + 1 if promised or subject.capabilities.needs_length else None
        upload = upload_of(size_bytes=size_bytes, open=stalls)
        task = asyncio.create_task(subject.provider.upload_file(upload))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # However late the provider notices, half a form never becomes a file.
        kept = await subject.provider.upload_file(upload_of())
        assert [held["id"] for held in subject.sandbox.files] == [kept.id]

    @pytest.mark.parametrize("promised", [True, False])
    async def test_bytes_that_break_off_end_the_upload_and_leave_nothing(self, subject, promised):
        class BrokenOff(UploadInterrupted):
            pass

        async def breaks_off():
            yield CONTENT
            raise BrokenOff

        size_bytes = len(CONTENT) + 1 if promised or subject.capabilities.needs_length else None
        with pytest.raises(BrokenOff):
            await subject.provider.upload_file(upload_of(size_bytes=size_bytes, open=breaks_off))
        assert subject.sandbox.files == []

    @by_status
    async def test_every_status_of_an_upload_has_its_meaning(self, subject, status, error):
        subject.fault("upload_file", status=status)
        with pytest.raises(ProviderError) as failed:
            await subject.provider.upload_file(upload_of())
        assert type(failed.value) is subject.account.verb_errors.get("upload_file", {}).get(status, error)
        # Where the name is ours it tells later, and nothing need be known now.
        assert not failed.value.outcome_unknown or subject.capabilities.chooses_id
        assert subject.sandbox.files == []

    async def test_a_refusal_amid_a_large_body_keeps_its_meaning(self, subject):
        subject.fault("upload_file", status=413)
        with pytest.raises(ProviderTooLarge):
            await subject.provider.upload_file(upload_of(CONTENT * 8))

    @by_status
    async def test_every_status_of_the_other_verbs_has_its_meaning(self, subject, status, error):
        calls = {
            "retrieve_file": lambda: subject.provider.retrieve_file(subject.no_file),
            "read_file": lambda: subject.provider.read_file(subject.no_file).__aenter__(),
            "list_files": lambda: subject.provider.list_files(None, 1),
            "delete_file": lambda: subject.provider.delete_file(subject.no_file),
        }
        for operation, call in calls.items():
            subject.fault(operation, status=status)
            with pytest.raises(ProviderError) as failed:
                await call()
            assert type(failed.value) is subject.account.verb_errors.get(operation, {}).get(status, error), operation

    async def test_the_patience_that_is_asked_for_is_passed_on(self, subject):
        subject.fault("upload_file", status=429, retry_after_seconds=7)
        with pytest.raises(RateLimited) as limited:
            await subject.provider.upload_file(upload_of())
        assert limited.value.retry_after_seconds == (7 if subject.account.tells_patience else None)

    async def test_refused_credentials_are_ours(self, subject):
        provider = subject.sibling(**{subject.account.credential: "bad-secret"})
        with pytest.raises(Unauthorized):
            await provider.upload_file(upload_of())
        with pytest.raises(Unauthorized):
            await provider.delete_file(subject.no_file)

    async def test_nobody_listening_is_a_known_outcome(self, subject):
        taken, url = unreachable()
        with taken, pytest.raises(Unavailable) as failed:
            await subject.sibling(url).upload_file(upload_of())
        assert not failed.value.outcome_unknown or subject.capabilities.chooses_id

    async def test_a_lost_answer_is_an_unknown_outcome(self, subject):
        subject.fault("upload_file", lose_answer=True)
        upload = upload_of()
        if subject.capabilities.chooses_id:
            file = await found_again(subject, upload)
            assert [held["id"] for held in subject.sandbox.files] == [file.id]
            return
        with pytest.raises(Unavailable) as failed:
            await subject.provider.upload_file(upload)
        assert failed.value.outcome_unknown
        assert len(subject.sandbox.files) == 1

    async def test_a_chosen_name_finds_the_file(self, subject):
        if not subject.capabilities.chooses_id:
            with pytest.raises(Unsupported):
                subject.provider.chosen_file_id("0" * 32)
            return
        upload = upload_of()
        with pytest.raises(Missing):
            await subject.provider.retrieve_file(subject.provider.chosen_file_id(upload.replica_id))
        file = await subject.provider.upload_file(upload)
        assert await subject.provider.retrieve_file(subject.provider.chosen_file_id(upload.replica_id)) == file
        assert await subject.provider.upload_file(upload) == file
        assert len(subject.sandbox.files) == 1

    async def test_a_connection_cut_within_the_body_is_a_known_outcome(self, subject):
        async def endless():
            for _ in range(1024):
                yield CONTENT

        subject.fault("upload_file", reset_after_bytes=100_000)
        size_bytes = 1024 * len(CONTENT) if subject.capabilities.needs_length else None
        with pytest.raises(Unavailable) as failed:
            await subject.provider.upload_file(upload_of(size_bytes=size_bytes, open=endless))
        assert not failed.value.outcome_unknown or subject.capabilities.chooses_id
        assert subject.sandbox.files == []

    async def test_a_connection_cut_while_reading_is_unavailable(self, subject):
        if not subject.capabilities.readable:
            return
        upload = upload_of(CONTENT, purpose=min(subject.capabilities.readable))
        file = await subject.provider.upload_file(upload)
        subject.fault("read_file", reset_after_bytes=100_000)
        received = bytearray()

        async def read():
            async with subject.provider.read_file(file.id) as opened:
                async for chunk in opened.chunks:
                    received.extend(chunk)

        with pytest.raises(Unavailable):
            await read()
        assert CONTENT.startswith(received) and len(received) <= 100_000
