"""Chats with a provider that has a format of its own: translated there and back, whole or streamed."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import aiohttp
import orjson
from yarl import URL

from app.errors import Missing, ProviderError, Rejected, Unavailable
from app.formats.answers import Chunks, Head, Reader, completion
from app.formats.openai import Chat
from app.providers.absent import WithoutBatches
from app.providers.http import CHAT_READ_SECONDS, READ_CHUNK_BYTES, Http, connection_errors
from app.providers.protocol import ChatRequest

# From here on translating takes longer than asking a thread.
LARGE_BODY_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """What is sent to the provider for a chat."""

    url: URL
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Translating(WithoutBatches, ABC):
    """The chat half of a provider; a subclass knows its format, its URL and its errors."""

    name: ClassVar[str]
    _http: Http

    @abstractmethod
    def _translate(self, chat: Chat) -> dict[str, Any]:
        """The request in the vendor's format. Raises Unsupported or Rejected."""

    @abstractmethod
    async def _chat_call(self, chat: Chat, body: bytes) -> Call:
        """Where the translated request goes, and with which headers."""

    @abstractmethod
    def _reader(self, chat: Chat) -> Reader:
        """Reads the answer to one chat."""

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
        reader = self._reader(chat)
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
        return TranslatedStream(self._events(_chunks(answer)), self._reader(chat), chat, stack)

    async def _accept(self, chat: Chat, answer: aiohttp.ClientResponse, content: bytes) -> None:
        if answer.status < 300:
            return
        failure = self._error(answer.status, answer.headers, content)
        await self._blame_files(chat, failure)
        if isinstance(failure, Missing):
            # What is missing is the model, or the route.
            raise Rejected(failure.message, code="model_not_found")
        raise failure

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


def _head(chat: Chat) -> Head:
    return Head(int(time.time()), tuple(dict.fromkeys(chat.parameters.dropped)))


@contextmanager
def _understood() -> Iterator[None]:
    """An answer that is not what the vendor documents is as good as none."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as failure:
        reason = f"the provider's answer cannot be read ({type(failure).__name__}: {failure})"
        raise Unavailable(reason[:300]) from failure
