"""Chats with a provider that has a format of its own: translated there and back, whole, streamed or in batches."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

import aiohttp
import orjson
from yarl import URL

from app.errors import Missing, ProviderError, Rejected, Unavailable, Unsupported
from app.formats.answers import Chunks, Head, Reader, completion
from app.formats.batch_lines import MAX_RESULT_LINE_BYTES, BadLine, BatchResult, Lines
from app.formats.openai import Chat
from app.providers.http import CHAT_READ_SECONDS, READ_CHUNK_BYTES, Http, connection_errors
from app.providers.protocol import Capabilities, ChatRequest

# From here on translating takes longer than asking a thread.
LARGE_BODY_BYTES = 256 * 1024
# What reading an answer raises that is not what the vendor documents.
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError)


@dataclass(frozen=True, slots=True)
class Call:
    """What is sent to the provider for a chat."""

    url: URL
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BatchRun:
    """What all answers of one batch have in common; results that are read twice are the same."""

    provider_model: str
    ended_at: int


class Translating(ABC):
    """The chats of a provider, and the lines of its batches; a subclass knows its format, its URLs and its errors."""

    name: ClassVar[str]
    capabilities: Capabilities
    _http: Http

    @abstractmethod
    def _translate(self, chat: Chat) -> dict[str, Any]:
        """The request in the vendor's format. Raises Unsupported or Rejected."""

    @abstractmethod
    async def _chat_call(self, chat: Chat, body: bytes) -> Call:
        """Where the translated request goes, and with which headers."""

    @abstractmethod
    def _reader(self, provider_model: str) -> Reader:
        """Reads one answer of a model."""

    @abstractmethod
    def _batch_line(self, key: str, chat: Chat, body: bytes) -> bytes:
        """A line of a batch around its translated body."""

    @abstractmethod
    def _error(self, status: int, headers: Mapping[str, str], content: bytes) -> ProviderError:
        """Status and documented code → our tree."""

    def _events(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
        """The events of a stream; server-sent unless the vendor has a framing of its own."""
        return sse_events(chunks)

    async def chat(self, request: ChatRequest) -> bytes:
        """See Provider."""
        chat, call = await self._prepared(request)
        async with self._open(request, call) as answer:
            content = await answer.read()
            await self._accept(chat, answer, content)
        reader = self._reader(chat.provider_model)
        with _understood():
            return completion(_head(chat), reader, reader.whole(orjson.loads(content)))

    async def stream_chat(self, request: ChatRequest) -> TranslatedStream:
        """See Provider."""
        chat, call = await self._prepared(request)
        stack = AsyncExitStack()
        try:
            answer = await stack.enter_async_context(self._open(request, call))
            if answer.status >= 300:
                await self._accept(chat, answer, await answer.read())
        except BaseException:
            await stack.aclose()
            raise
        return TranslatedStream(self._events(_chunks(answer)), self._reader(chat.provider_model), chat, stack)

    async def _accept(self, chat: Chat, answer: aiohttp.ClientResponse, content: bytes) -> None:
        if answer.status < 300:
            return
        failure = self._error(answer.status, answer.headers, content)
        await self._blame_files(chat, failure)
        raise _without_missing(failure)

    async def _blame_files(self, chat: Chat, failure: ProviderError) -> None:
        """Raise Missing when a chat failed for a file that the provider does not hold."""
        if isinstance(failure, Missing) and chat.file_ids():
            raise failure

    async def _prepared(self, request: ChatRequest) -> tuple[Chat, Call]:
        large = len(request.body) > LARGE_BODY_BYTES
        chat, body = await asyncio.to_thread(self.translated, request) if large else self.translated(request)
        return chat, await self._chat_call(chat, body)

    def translated(self, request: ChatRequest) -> tuple[Chat, bytes]:
        """A request as it was read, and the body that the vendor gets. Raises Rejected or Unsupported."""
        chat = Chat.read(
            request.body,
            provider=self.name,
            provider_model=request.provider_model,
            files=request.files,
            drop_params=request.drop_params,
        )
        body = self._translate(chat)
        try:
            return chat, orjson.dumps(body)
        except orjson.JSONEncodeError as failure:
            # A whole number of more than 64 bits, in a schema perhaps.
            raise Rejected(f"the request cannot be written as JSON: {failure}") from None

    def _open(self, request: ChatRequest, call: Call) -> Any:
        read_seconds = request.timeout_seconds or CHAT_READ_SECONDS
        return self._http.open("POST", call.url, headers=call.headers, body=call.body, read_seconds=read_seconds)

    # --- batches ------------------------------------------------------------------------------------------------

    def batch_line(self, key: str, endpoint: str, request: ChatRequest) -> bytes:
        """See Provider."""
        if endpoint not in self.capabilities.batch.endpoints:
            raise Unsupported(f"this provider runs no batches of {endpoint}")
        chat, body = self.translated(request)
        if chat.request.stream:
            raise Rejected("a batch does not stream: leave it out", param="stream")
        return self._batch_line(key, chat, body)

    async def _submitted(self, url: URL, headers: Mapping[str, str], body: bytes | AsyncIterator[bytes]) -> bytes:
        """What a POST that makes a batch is answered with. An error with `outcome_unknown` may have left one there."""
        async with self._http.open("POST", url, headers=headers, body=body, read_seconds=CHAT_READ_SECONDS) as answer:
            content = await answer.read()
            if answer.status >= 300:
                raise _without_missing(self._error(answer.status, answer.headers, content))
            return content

    def _batch_reader(self, _key: str, provider_model: str) -> Reader:
        """Reads the answer to a line; whatever the vendor leaves open is the same each time."""
        return self._reader(provider_model)

    def _batch_answer(self, key: str, run: BatchRun, answer: Any) -> BatchResult:
        """The result of a line that the vendor has answered; one that cannot be read has failed, and no other with
        it."""
        reader = self._batch_reader(key, run.provider_model)
        try:
            with _understood():
                return BatchResult(key, 200, completion(Head(run.ended_at), reader, reader.whole(answer)))
        except ProviderError as failure:
            return BatchResult(key, failure.status, failure.body())


async def batch_results(
    chunks: AsyncIterator[bytes], result_of: Callable[[Any], BatchResult]
) -> AsyncGenerator[list[BatchResult], None]:
    """The results in a file of JSON lines, as many at a time as arrive together. They are read in a thread: a batch
    may have hundreds of MB of them. A line that does not even tell its key has no result."""
    lines = Lines(MAX_RESULT_LINE_BYTES)
    try:
        async for chunk in chunks:
            if found := list(lines.of(chunk)):
                yield await asyncio.to_thread(_results, found, result_of)
        yield _results(list(lines.rest()), result_of)
    except BadLine as failure:
        raise Unavailable(f"the provider's results cannot be read ({failure})") from failure


def _results(lines: list[tuple[int, bytes]], result_of: Callable[[Any], BatchResult]) -> list[BatchResult]:
    found = []
    for _, line in lines:
        with suppress(*UNREADABLE):
            found.append(result_of(orjson.loads(line)))
    return found


class TranslatedStream:
    """A streamed answer as OpenAI's events; it holds its connection until it is closed."""

    def __init__(
        self, events: AsyncIterator[dict[str, Any]], reader: Reader, chat: Chat, stack: AsyncExitStack
    ) -> None:
        self._events, self._reader, self._stack = events, reader, stack
        self._chunks = Chunks(_head(chat), reader, include_usage=chat.request.stream_options.include_usage)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        complete = False
        async for event in self._events:
            with _understood():
                pieces = list(self._reader.event(event))
            out = b"".join(chunk for piece in pieces for chunk in self._chunks.of(piece))
            complete = complete or self._reader.complete
            if out:
                yield out
        if not complete:
            raise Unavailable("the provider ended the stream before its answer was complete")
        yield b"".join(self._chunks.end())

    async def aclose(self) -> None:
        """See ChatStream."""
        await self._stack.aclose()


async def sse_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON in the data of server-sent events (WHATWG HTML §9.2), whose lines end in LF or CRLF."""
    data: list[bytes] = []
    async for line in _lines(chunks):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            with _understood():
                yield orjson.loads(b"\n".join(data))
            data = []


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r")
    for line in (rest, b""):
        yield line


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    with connection_errors():
        async for chunk in answer.content.iter_chunked(READ_CHUNK_BYTES):
            yield chunk


def _without_missing(failure: ProviderError) -> ProviderError:
    """What is missing when it is no file: the model, or the route."""
    return Rejected(failure.message, code="model_not_found") if isinstance(failure, Missing) else failure


def _head(chat: Chat) -> Head:
    return Head(int(time.time()), tuple(dict.fromkeys(chat.parameters.dropped)))


@contextmanager
def _understood() -> Iterator[None]:
    """An answer that is not what the vendor documents is as good as none."""
    try:
        yield
    except UNREADABLE as failure:
        reason = f"the provider's answer cannot be read ({type(failure).__name__}: {failure})"
        raise Unavailable(reason[:300]) from failure
