"""POST /chat/completions: file ids are looked up, a deployment that has them all is chosen, the answer flows back.

A pure ASGI endpoint, since this is the hot path: no database query once the key and the files are cached, and the
provider's bytes are passed on as they are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from typing import Any

import orjson
import structlog
from prometheus_client import Counter, Histogram

from app import ids
from app.access.authenticate import Caller
from app.deployments import Deployment
from app.errors import BadRequest, Forbidden, Missing, NotFound, ProviderError, TooLarge, Unauthorized, Unavailable
from app.files.mappings import FileMapping, Mappings
from app.files.references import Found, Reference, find, position, rewrite
from app.files.replicas import queries as replica_queries
from app.gateway import Gateway
from app.hangup import EndedByHangUp
from app.providers.protocol import ChatRequest, ChatStream

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
        candidates = await _Choice(gateway, scope["state"]["mappings"], caller, chat).candidates()
        GATEWAY_SECONDS.observe(time.perf_counter() - started)
        outcome = "ok"
        try:
            async with EndedByHangUp(receive):
                await _answer(chat, candidates, send)
        except BaseException as failure:
            outcome = type(failure).__name__
            raise
        finally:
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


class _Choice:
    """Which deployments may answer a chat, and what each is to be sent."""

    def __init__(self, gateway: Gateway, mappings: Mappings, caller: Caller, chat: _Chat) -> None:
        self._gateway, self._mappings, self._caller, self._chat = gateway, mappings, caller, chat

    async def candidates(self) -> list[tuple[Deployment, bytes]]:
        """The deployments that hold every file, in the order in which to try them, each with its body.

        Raises NotFound or Forbidden for the model name, BadRequest for a file, with its position in the payload.
        """
        model_name = self._chat.model_name
        if not self._gateway.deployments.of(model_name):
            usable = ", ".join(self._gateway.deployments.names(self._caller.models)) or "none"
            reason = f"there is no model name {model_name[:200]!r}; your key may use: {usable}"
            raise NotFound(reason, param="model", code="model_not_found")
        if not self._caller.may_use(model_name):
            reason = f"this key may not use the model name {model_name!r}"
            raise Forbidden(reason, param="model", code="model_name_not_allowed")
        files = await self._files()
        holding = set.intersection(*(set(found.provider_file_ids) for found in files.values())) if files else None
        deployments = self._gateway.deployments.shuffled(model_name, holding)
        if not deployments:
            raise self._no_replica(files)
        return [(deployment, self._body_for(deployment, files)) for deployment in deployments]

    def _body_for(self, deployment: Deployment, files: Mapping[str, FileMapping]) -> bytes:
        account = deployment.account.name

        def provider_file_id(file_id: str) -> str | None:
            mapping = files.get(file_id)
            return None if mapping is None else mapping.provider_file_ids[account]

        return rewrite(self._chat.body, self._chat.found, deployment.provider_model, provider_file_id)

    async def _files(self) -> dict[str, FileMapping]:
        files: dict[str, FileMapping] = {}
        raw: list[Reference] = []
        for reference in self._chat.found.references:
            if reference.file_id in files:
                continue
            if not ids.is_file_id(reference.file_id):
                raw.append(reference)
                continue
            mapping = await self._mappings.find(self._caller.reach, reference.file_id)
            if mapping is None:
                raise self._refused(reference)
            files[reference.file_id] = mapping
        if raw:
            await self._check_raw(raw)
        return files

    async def _check_raw(self, references: list[Reference]) -> None:
        """A provider's own id passes only with the permission, and never when it is another team's replica."""
        if not self._caller.provider_files:
            raise self._refused(references[0])
        accounts = [one.account.name for one in self._gateway.deployments.of(self._chat.model_name)]
        async with self._gateway.database.read() as reader:
            raw_ids = [reference.file_id for reference in references]
            foreign = await replica_queries.foreign_provider_files(reader, self._caller.team_id, accounts, raw_ids)
        for reference in references:
            if reference.file_id in foreign:
                raise self._refused(reference)

    def _refused(self, reference: Reference) -> BadRequest:
        where = position(self._chat.body, reference)
        return BadRequest(
            f"{where}: No such File object: {reference.file_id[:100]}", param=where, code="file_not_found"
        )

    def _no_replica(self, files: Mapping[str, FileMapping]) -> BadRequest:
        """No account of this model name has all files: say which model names have each of them."""
        wanted = {deployment.account.name for deployment in self._gateway.deployments.of(self._chat.model_name)}
        for reference in self._chat.found.references:
            mapping = files.get(reference.file_id)
            if mapping is not None and not wanted & set(mapping.provider_file_ids):
                where = position(self._chat.body, reference)
                names = ", ".join(self._names_with(mapping.provider_file_ids)) or "none that your key may use"
                return BadRequest(
                    f"{where}: the file {reference.file_id} is not at the provider of {self._chat.model_name!r}; model "
                    f"names that have it: {names}",
                    param=where,
                    code="file_without_replica",
                )
        return BadRequest(
            f"no single account behind {self._chat.model_name!r} has all files of this request",
            param="messages",
            code="file_without_replica",
        )

    def _names_with(self, accounts: Collection[str]) -> list[str]:
        deployments = self._gateway.deployments
        return [
            name
            for name in deployments.names(self._caller.models)
            if any(deployment.account.name in accounts for deployment in deployments.of(name))
        ]


async def _answer(chat: _Chat, candidates: list[tuple[Deployment, bytes]], send: Send) -> None:
    """Ask one deployment after the other until one has begun to answer."""
    last = len(candidates) - 1
    for index, (deployment, body) in enumerate(candidates):
        request = ChatRequest(deployment.provider_model, body, deployment.timeout_seconds)
        try:
            if chat.stream:
                await _stream(await deployment.provider.stream_chat(request), send)
            else:
                await _send_whole(await deployment.provider.chat(request), send)
        except ProviderError as failure:
            if index == last or not _another_may_answer(failure):
                raise _for_caller(failure) from failure
            log.warning("trying the next deployment", account=deployment.account.name, error=type(failure).__name__)
        else:
            return


def _another_may_answer(failure: ProviderError) -> bool:
    """429, 5xx, a dropped connection, and our own refused credentials, which are not the caller's fault."""
    return failure.status in (429, 503) or isinstance(failure, Unauthorized)


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
