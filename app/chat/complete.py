"""POST /chat/completions: file ids are looked up, a deployment that has them all is chosen, the answer flows back.

A pure ASGI endpoint, since this is the hot path: no database query once the key and the files are cached, and the
provider's bytes are passed on as they are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import orjson
import structlog
from prometheus_client import Counter, Histogram

from app.errors import BadRequest, Missing, ProviderError, Rejected, TooLarge, Unauthorized, Unavailable, Unsupported
from app.files.carriage.choice import Candidate, Choice
from app.files.references import Found, find
from app.gateway import Gateway
from app.hangup import EndedByHangUp
from app.providers.protocol import ChatStream

log = structlog.get_logger("filemux.chat")

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# Two files of OpenAI's 50 MB each, inline as base64, and the text around them.
MAX_BODY_BYTES = 144 * 1024 * 1024
# From here on parsing takes milliseconds, which belong in a thread.
LARGE_BODY_BYTES = 1024 * 1024

CHATS = Counter("filemux_chats", "Chat completions, by model name and outcome", ["model_name", "outcome"])
GATEWAY_SECONDS = Histogram(
    "filemux_chat_gateway_seconds",
    "Time that a chat spends in the gateway before its first provider is called",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1),
)

_JSON_HEADERS = [(b"content-type", b"application/json")]
_STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class Endpoint:
    """POST /chat/completions."""

    __name__ = "endpoint"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one chat."""
        started = time.perf_counter()
        gateway: Gateway = scope["state"]["gateway"]
        caller = await gateway.keys.authenticate(scope["headers"])
        scope["state"]["caller"] = caller
        caller.require("member", "a chat completion")
        chat = await _read(receive)
        choice = Choice(gateway, caller, chat.model_name, chat.body, chat.found)
        # Known once the model name is: what is not ours is no label.
        outcome: str | None = None
        try:
            async with EndedByHangUp(receive):
                candidates = await choice.candidates()
                GATEWAY_SECONDS.observe(time.perf_counter() - started)
                outcome = "ok"
                try:
                    await _answer(chat, candidates, send)
                except _FilesLost:
                    # They are made again, once.
                    await _answer(chat, await choice.candidates(), send, lost_before=True)
        except BaseException as failure:
            outcome = outcome and type(failure).__name__
            raise
        finally:
            if outcome:
                CHATS.labels(chat.model_name, outcome).inc()


class _Chat:
    """A caller's payload: its own bytes, and what was found in them."""

    __slots__ = ("body", "found", "model_name", "stream")

    def __init__(self, body: bytes) -> None:
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError as failure:
            raise BadRequest(f"the body is not valid JSON: {failure}", code="invalid_json") from None
        model_name = payload.get("model") if isinstance(payload, dict) else None
        if not isinstance(model_name, str):
            raise BadRequest("the body must be an object with `model`, a model name", param="model")
        self.body = body
        self.model_name = model_name
        self.stream = payload.get("stream") is True
        self.found: Found = find(body)


async def _read(receive: Receive) -> _Chat:
    message = await receive()
    body = message.get("body", b"")
    if message.get("more_body"):
        body = await _read_on(body, receive)
    return await asyncio.to_thread(_Chat, body) if len(body) > LARGE_BODY_BYTES else _Chat(body)


async def _read_on(first: bytes, receive: Receive) -> bytes:
    content = bytearray(first)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("the client left before the request was complete", code="client_disconnected")
        content += message.get("body", b"")
        if len(content) > MAX_BODY_BYTES:
            raise TooLarge(f"the request is over {MAX_BODY_BYTES} bytes", code="request_too_large")
        if not message.get("more_body"):
            return bytes(content)


class _FilesLost(Exception):
    """The provider does not hold a file any more that the chat refers to."""


async def _answer(chat: _Chat, candidates: list[Candidate], send: Send, *, lost_before: bool = False) -> None:
    """Ask one deployment after the other until one has begun to answer. Raises _FilesLost, the first time."""
    last = len(candidates) - 1
    for index, candidate in enumerate(candidates):
        deployment = candidate.deployment
        try:
            request = await candidate.request()
            if chat.stream:
                await _stream(await deployment.provider.stream_chat(request), send)
            else:
                await _send_whole(await deployment.provider.chat(request), send)
        except ProviderError as failure:
            # How a missing file is refused differs by vendor and day, so the file itself is asked for.
            if not lost_before and isinstance(failure, _MAY_BE_A_LOST_FILE) and await candidate.lost_files():
                raise _FilesLost from failure
            if index == last or not _another_may_answer(failure):
                raise _for_caller(failure) from failure
            log.warning("trying the next deployment", account=deployment.account.name, error=type(failure).__name__)
        else:
            return


_MAY_BE_A_LOST_FILE = (Missing, Rejected, Unauthorized)


def _another_may_answer(failure: ProviderError) -> bool:
    """429, 5xx, a dropped connection, our own refused credentials, which are not the caller's fault, and what this
    provider cannot do but another may."""
    return failure.status in (429, 503) or isinstance(failure, Unauthorized | Unsupported)


def _for_caller(failure: ProviderError) -> Exception:
    if isinstance(failure, Missing):
        # A 404 would say that the route or our id does not exist.
        return BadRequest(failure.message, param=failure.param, code=failure.code)
    return failure


async def _send_whole(answer: bytes, send: Send) -> None:
    headers = [*_JSON_HEADERS, (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def _whole_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, each piece ending with a line: when the provider breaks off, no half of one is out."""
    rest = b""
    async for chunk in chunks:
        end = chunk.rfind(b"\n") + 1
        if end:
            yield rest + chunk[:end]
            rest = chunk[end:]
        else:
            rest += chunk
    if rest:
        yield rest


async def _stream(stream: ChatStream, send: Send) -> None:
    """Pass the events on. An error before the first byte is raised, so that the next deployment can be asked."""
    async with aclosing(stream):
        events = _whole_lines(aiter(stream))
        chunk = await anext(events, None)
        if chunk is None:
            raise Unavailable("the provider ended the stream before its first event")
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        try:
            while chunk is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await anext(events, None)
        except ProviderError as failure:
            # The status is out already: OpenAI's clients raise on an event that has `error`.
            # The blank line ends an event that the provider broke off behind its data.
            event = b"\ndata: " + failure.body() + b"\n\n"
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
