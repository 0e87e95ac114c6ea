"""What every provider must do with chats, in OpenAI's words whatever it speaks itself.

A module that collects these parametrises `subject`, as for the other suites.
"""

import hashlib
import json
from contextlib import aclosing

import pytest

from app.errors import Missing, ProviderError, RateLimited, Rejected, Unavailable
from app.formats.openai import FileFacts
from app.providers.protocol import ChatRequest
from tests.conformance.suite import by_status
from tests.support.providers import upload_of

both_ways = pytest.mark.parametrize("operation", ["chat", "stream_chat"])


def request_of(subject, *content, stream=False, model=None, **options):
    provider_model = model or subject.account.provider_model
    parts = [{"type": "text", "text": "say this back"}, *content]
    body = {"model": provider_model, "messages": [{"role": "user", "content": parts}], "stream": stream}
    files = {part["file"]["file_id"]: FileFacts("application/pdf", "a.pdf") for part in content}
    return ChatRequest(provider_model, json.dumps(body).encode(), files=files, **options)


def ask(subject, operation, *content, **options):
    """One call of chat or stream_chat, by the operation's name."""
    request = request_of(subject, *content, stream=operation == "stream_chat", **options)
    return getattr(subject.provider, operation)(request)


async def text_of(subject, *content):
    answer = json.loads(await ask(subject, "chat", *content))
    assert answer["object"] == "chat.completion"
    return answer["choices"][0]["message"]["content"]


async def streamed_text_of(subject, *content):
    async with aclosing(await ask(subject, "stream_chat", *content)) as stream:
        events = b"".join([chunk async for chunk in stream]).decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


class ChatSuite:
    """chat and stream_chat."""

    async def test_the_stream_says_what_the_answer_says(self, subject):
        text = await text_of(subject)
        assert text == "say this back"
        assert await streamed_text_of(subject) == text

    @both_ways
    async def test_a_model_that_does_not_exist_is_a_rejection(self, subject, operation):
        with pytest.raises(Rejected):
            await ask(subject, operation, model="no-such-model")

    @by_status
    @both_ways
    async def test_every_status_has_its_meaning(self, subject, operation, status, error):
        subject.fault(operation, status=status)
        with pytest.raises(ProviderError) as failed:
            await ask(subject, operation)
        error = subject.account.chat_errors.get(status, error)
        # A chat without files can miss nothing but its model.
        assert type(failed.value) is error or (error is Missing and type(failed.value) is Rejected)

    @both_ways
    async def test_a_chat_is_not_repeated(self, subject, operation):
        subject.fault(operation, status=503)
        with pytest.raises(Unavailable):
            await ask(subject, operation)
        assert subject.calls(operation) == 1

    @both_ways
    async def test_the_patience_that_is_asked_for_is_passed_on(self, subject, operation):
        subject.fault(operation, status=429, retry_after_seconds=7)
        with pytest.raises(RateLimited) as limited:
            await ask(subject, operation)
        assert limited.value.retry_after_seconds == 7

    @both_ways
    @pytest.mark.parametrize("fault", [{"lose_answer": True}, {"delay_seconds": 30}])
    async def test_no_answer_is_unavailable(self, subject, operation, fault):
        subject.fault(operation, **fault)
        with pytest.raises(Unavailable):
            await ask(subject, operation, timeout_seconds=0.1)

    async def test_an_answer_that_breaks_off_is_unavailable(self, subject):
        subject.fault("chat", reset_after_bytes=40)
        with pytest.raises(Unavailable):
            await ask(subject, "chat")

    async def test_a_stream_that_breaks_off_is_unavailable(self, subject):
        subject.fault("stream_chat", reset_after_bytes=100)
        received = bytearray()

        async def read():
            async with aclosing(await ask(subject, "stream_chat")) as stream:
                async for chunk in stream:
                    received.extend(chunk)

        with pytest.raises(Unavailable):
            await read()
        assert b"[DONE]" not in received

    async def test_a_stream_may_be_left_before_its_end(self, subject):
        subject.fault("stream_chat", bytes_per_second=2000)
        async with aclosing(await ask(subject, "stream_chat")) as stream:
            assert await anext(aiter(stream))
        assert await text_of(subject) == "say this back"


class ChatWithFilesSuite:
    """Files of this provider, mentioned in its chats."""

    async def uploaded(self, subject, content=b"%PDF-1.4 a file"):
        file = await subject.provider.upload_file(upload_of(content, mime_type="application/pdf"))
        return file.id, {"type": "file", "file": {"file_id": file.id}}

    async def test_the_model_sees_the_files_bytes(self, subject):
        _, part = await self.uploaded(subject, b"%PDF-1.4 these very bytes")
        text = await text_of(subject, part)
        assert hashlib.sha256(b"%PDF-1.4 these very bytes").hexdigest() in text
        assert await streamed_text_of(subject, part) == text

    async def test_two_files_are_told_apart(self, subject):
        parts = [(await self.uploaded(subject, content))[1] for content in (b"%PDF-1.4 one", b"%PDF-1.4 two")]
        text = await text_of(subject, *parts)
        assert [text.count(hashlib.sha256(content).hexdigest()) for content in (b"%PDF-1.4 one", b"%PDF-1.4 two")] == [
            1,
            1,
        ]

    @both_ways
    async def test_a_file_that_is_gone_is_missing(self, subject, operation):
        file_id, part = await self.uploaded(subject)
        await subject.provider.delete_file(file_id)
        with pytest.raises(subject.account.missing_in_chat):
            await ask(subject, operation, part)
