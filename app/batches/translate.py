"""A batch's lines on their way: each is read, what it refers to is looked up, and it is written as its provider reads
it, into one spool per part. One pass over the file, whatever it is split into."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app import ids
from app.access.authenticate import Caller
from app.batches.lines import CustomIds, key_of
from app.deployments import Deployment
from app.errors import BadRequest, GatewayError
from app.files.batch_input import lines_in
from app.files.carriage.choice import Choice
from app.files.content import open_content
from app.files.mappings import FileMapping
from app.files.references import Found, find, rewrite
from app.files.spool import Spool
from app.formats.batch_lines import CHAT_ENDPOINT, BadLine, RequestLine
from app.gateway import Gateway
from app.providers.protocol import ChatRequest

# More are not told.
MAX_ERRORS = 100
# Files that travel inside the lines are held in memory at once up to here, and one line's beyond it.
HELD_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PartInput:
    """What a part is to be sent: its lines in the provider's format, and which custom_id stands for which number."""

    part_id: str
    deployment: Deployment
    spool: Spool
    custom_ids: CustomIds = field(default_factory=CustomIds)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line, and the part that it goes to."""

    line: RequestLine
    found: Found
    part: PartInput

    def plain(self) -> ChatRequest:
        """The request to the part's deployment, when it refers to no file."""
        deployment = self.part.deployment
        unladen = deployment.provider.capabilities.speaks_openai
        model = deployment.provider_model
        body = rewrite(self.line.body, self.found, model, lambda _: None, unladen=unladen)
        return ChatRequest(model, body, drop_params=deployment.drop_params)

    def written(self, request: ChatRequest) -> bytes:
        """The line as the provider reads it. Raises Rejected or Unsupported."""
        line, part = self.line, self.part
        key = key_of(part.part_id, line.number)
        return part.deployment.provider.batch_line(key, line.endpoint, request) + b"\n"


class Translation:
    """One pass over a batch's file; `parts` are by what stands as `model` in a line. Lines that name no part are left
    out: theirs is sent already. `errors` are OpenAI's, for the lines that cannot be sent; `refused_parts` have some."""

    def __init__(self, gateway: Gateway, caller: Caller, parts: Mapping[str, PartInput]) -> None:
        self._gateway, self._caller, self._parts = gateway, caller, parts
        self.errors: list[dict[str, Any]] = []
        self.refused_parts: set[str] = set()
        # Those whose lines are more than their provider takes.
        self._full: set[str] = set()

    async def read(self, file: FileMapping) -> None:
        """Read the whole file. Raises what open_content does."""
        async with open_content(self._gateway, file) as content:
            async for lines in lines_in(content.chunks):
                await self._translate(lines)
        for part in {one.part_id: one for one in self._parts.values()}.values():
            await part.spool.finish()

    def refuse_all(self, code: str | None, message: str) -> None:
        """Have nothing be sent, for one reason."""
        self.refused_parts.update(part.part_id for part in self._parts.values())
        self.errors = [{"code": code or "invalid_request", "line": None, "message": message, "param": None}]

    async def _translate(self, lines: Sequence[tuple[int, bytes]]) -> None:
        ready: list[tuple[_Line, ChatRequest | GatewayError | None]] = []
        held_bytes = 0
        for one in await asyncio.to_thread(self._found, lines):
            request = await self._request(one) if one.found.references else None
            ready.append((one, request))
            held_bytes += len(request.body) if isinstance(request, ChatRequest) else 0
            if held_bytes > HELD_BYTES:
                await self._write(ready)
                ready, held_bytes = [], 0
        await self._write(ready)

    async def _write(self, lines: Sequence[tuple[_Line, ChatRequest | GatewayError | None]]) -> None:
        for part, content in await asyncio.to_thread(self._written, lines):
            if part.part_id in self._full:
                continue
            limit = part.deployment.provider.capabilities.batch.max_bytes
            if part.spool.size_bytes + len(content) > limit:
                # The files that lines refer to may travel inside of them, so this is known no earlier.
                self._full.add(part.part_id)
                reason = f"{part.deployment.account.provider_name} takes batches of up to {limit} bytes; this is more"
                self._refuse(None, part.part_id, "batch_too_large", reason, "input_file_id")
            else:
                await part.spool.write(content)

    def _found(self, lines: Sequence[tuple[int, bytes]]) -> list[_Line]:
        found = []
        for number, content in lines:
            try:
                line = RequestLine.read(number, content)
            except BadLine as bad:
                self._refuse(number, None, bad.code, bad.message, bad.param)
                continue
            part = self._parts.get(line.model)
            if part is not None:
                part.custom_ids.add(number, line.custom_id)
                found.append(_Line(line, find(line.body), part))
        return found

    async def _request(self, one: _Line) -> ChatRequest | GatewayError:
        """The request of a line that refers to files, or why there is none."""
        deployment, line = one.part.deployment, one.line
        choice = Choice(self._gateway, self._caller, deployment.model_name, line.body, one.found, deployment=deployment)
        try:
            [candidate] = await choice.candidates()
            return await candidate.request()
        except GatewayError as failure:
            if may_pass(failure):
                # The whole pass is done again.
                raise
            return failure

    def _written(
        self, lines: Sequence[tuple[_Line, ChatRequest | GatewayError | None]]
    ) -> list[tuple[PartInput, bytes]]:
        pieces: dict[str, tuple[PartInput, list[bytes]]] = {}
        for one, request in lines:
            try:
                if isinstance(request, GatewayError):
                    raise request
                _check_ids(one.line)
                content = one.written(request or one.plain())
            except GatewayError as refused:
                self._refuse(one.line.number, one.part.part_id, refused.code, refused.message, refused.param)
                continue
            pieces.setdefault(one.part.part_id, (one.part, []))[1].append(content)
        return [(part, b"".join(contents)) for part, contents in pieces.values()]

    def _refuse(
        self, number: int | None, part_id: str | None, code: str | None, message: str, param: str | None
    ) -> None:
        if part_id is not None:
            self.refused_parts.add(part_id)
        if len(self.errors) < MAX_ERRORS:
            self.errors.append({"code": code or "invalid_request", "line": number, "message": message, "param": param})


def may_pass(failure: GatewayError) -> bool:
    """Whether the same may succeed later: it says nothing about the lines."""
    return failure.status >= 500 or failure.status == 429


def _check_ids(line: RequestLine) -> None:
    """Raise BadRequest for a file id where none is rewritten: only chats are looked into."""
    if line.endpoint != CHAT_ENDPOINT and ids.FILE_PREFIX.encode() in line.body:
        reason = f"file ids are understood in lines for {CHAT_ENDPOINT} only, not for {line.endpoint}"
        raise BadRequest(reason, code="file_id_not_understood")
