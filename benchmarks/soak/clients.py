"""What a client does: one operation after another with the official SDK, at whichever gateway."""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

import httpx
from openai import AsyncOpenAI

from app.sandbox.config import MODELS
from benchmarks.soak.content import Content
from benchmarks.soak.fleet import Fleet, Process, Team
from benchmarks.soak.ledger import Ledger, Told, drawn
from benchmarks.soak.tally import Failed, Tally

ANSWER_SECONDS = 120.0
AGAIN_SECONDS = 0.2
# Bounds the disk: from here on files are deleted, not uploaded.
LIVE_BYTES = 512_000_000
ELSEWHERE_SHARE, RETRIED_SHARE = 0.2, 0.5


def sdk(http: httpx.AsyncClient, gateway: Process, team: Team) -> AsyncOpenAI:
    """The official SDK, which retries nothing here: each failure counts."""
    return AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=team.key, http_client=http, max_retries=0)


async def chat(client: AsyncOpenAI, *, told: Told, model_name: str, stream: bool) -> str:
    """What the simulated model says about a file."""
    parts = [{"type": "text", "text": "Which file?"}, {"type": "file", "file": {"file_id": told.file_id}}]
    request = {"model": model_name, "messages": [{"role": "user", "content": parts}]}
    if not stream:
        completion = await client.chat.completions.create(**request)
        return completion.choices[0].message.content or ""
    text, finished = "", False
    async for chunk in await client.chat.completions.create(**request, stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finished = finished or choice.finish_reason is not None
    if not finished:
        raise httpx.RemoteProtocolError("the stream ended before the answer did")
    return text


async def content_sha256(client: AsyncOpenAI, *, told: Told) -> str:
    """The digest of what is read back."""
    digest = hashlib.sha256()
    async with client.files.with_streaming_response.content(told.file_id) as response:
        async for chunk in response.iter_bytes():
            digest.update(chunk)
    return digest.hexdigest()


class Client:
    """One client: any key, any gateway, any operation."""

    def __init__(self, fleet: Fleet, ledger: Ledger, tally: Tally, http: httpx.AsyncClient, random: Random) -> None:
        self._fleet, self._ledger, self._tally, self._http, self._random = fleet, ledger, tally, http, random
        self._weights: dict[Callable[[], Awaitable[None]], int] = {
            self._upload: 30,
            self._chat: 40,
            self._content: 10,
            self._delete: 12,
            self._retrieve: 5,
            self._list: 2,
            self._trespass: 3,
        }

    async def work(self, goes_on: Callable[[], bool]) -> None:
        """One operation after another."""
        while goes_on():
            operation = self._random.choices(list(self._weights), list(self._weights.values()))[0]
            if operation == self._upload and self._ledger.live_bytes > LIVE_BYTES:
                operation = self._delete
            try:
                await operation()
            except Failed as failure:
                if failure.is_down:
                    await asyncio.sleep(AGAIN_SECONDS)

    def _sdk(self, team: Team) -> AsyncOpenAI:
        return sdk(self._http, self._random.choice(self._fleet.gateways), team)

    async def _upload(self) -> None:
        content, team = Content.drawn(self._random), self._random.choice(self._fleet.teams)
        targets = self._random.sample(list(MODELS), self._random.randint(2, len(MODELS)))
        filename = self._ledger.begin_upload(content)
        form = {"purpose": "user_data", "extra_body": {"target_model_names": ",".join(targets)}}
        try:
            with self._tally.measured("upload"):
                file = await self._sdk(team).files.create(file=(filename, content, content.mime_type), **form)
        except Failed as failure:
            if failure.is_refusal:
                self._ledger.unanswered.discard(filename)
            raise
        facts = (content.size_bytes, content.sha256, content.is_text)
        self._ledger.tell(Told(file.id, team, filename, *facts, tuple(targets)))
        if not content.size_bytes:
            self._ledger.wrong_bytes.append(f"{filename} is empty, and was given an id")

    async def _chat(self) -> None:
        if told := drawn(self._random, self._ledger.live):
            names = list(MODELS) if self._random.random() < ELSEWHERE_SHARE else told.targets
            model_name, stream = self._random.choice(names), self._random.random() < 0.5
            try:
                with self._tally.measured("chat, streamed" if stream else "chat"):
                    text = await chat(self._sdk(told.team), told=told, model_name=model_name, stream=stream)
            except Failed as failure:
                without = failure.code == "file_without_replica" and model_name in told.targets
                if failure.is_unknown_file or without:
                    self._ledger.check_live(told, f"{model_name} was answered {failure}")
                raise
            self._ledger.check_answer(told, model_name, text)

    async def _content(self) -> None:
        if told := drawn(self._random, self._ledger.live):
            try:
                with self._tally.measured("content"):
                    sha256 = await content_sha256(self._sdk(told.team), told=told)
            except Failed as failure:
                if failure.is_unknown_file:
                    self._ledger.check_live(told, f"its content was answered {failure}")
                raise
            self._ledger.check_content(told, "its content", sha256)

    async def _delete(self) -> None:
        """Any live file, or again one whose delete was not answered."""
        ledger = self._ledger
        again = self._random.random() < RETRIED_SHARE and drawn(self._random, ledger.doubted)
        if told := again or drawn(self._random, ledger.live):
            ledger.begin_delete(told)
            try:
                with self._tally.measured("delete"):
                    await self._sdk(told.team).files.delete(told.file_id)
            except Failed as failure:
                if not failure.is_unknown_file:
                    ledger.doubted[told.file_id] = told
                    raise
                if not again:
                    ledger.lost.append(f"{told}: its delete was answered {failure}")
            ledger.deleted[told.file_id] = told

    async def _retrieve(self) -> None:
        if told := drawn(self._random, self._ledger.live):
            try:
                with self._tally.measured("retrieve"):
                    await self._sdk(told.team).files.retrieve(told.file_id)
            except Failed as failure:
                if failure.is_unknown_file:
                    self._ledger.check_live(told, f"it was answered {failure}")
                raise

    async def _list(self) -> None:
        team = self._random.choice(self._fleet.teams)
        before = [told for told in self._ledger.live.values() if told.team == team]
        with self._tally.measured("list"):
            listed = {file.id async for file in self._sdk(team).files.list(limit=1000)}
        for told in before:
            if told.file_id not in listed:
                self._ledger.check_live(told, "its team's list lacks it")

    async def _trespass(self) -> None:
        """An id that never was, one that is deleted, one of another team: none of them exists."""
        told = drawn(self._random, self._random.choice([self._ledger.live, self._ledger.deleted]))
        strangers = [team for team in self._fleet.teams if told is None or team != told.team]
        if told is None or self._random.random() < 0.3:
            file_id, team = f"file-mux-{secrets.token_hex(16)}", strangers[0]
        else:
            file_id, team = told.file_id, told.team if told.file_id in self._ledger.deleted else strangers[0]
        files = self._sdk(team).files
        with suppress(Failed):
            with self._tally.measured("trespass"):
                await (files.delete if self._random.random() < 0.5 else files.retrieve)(file_id)
            self._ledger.orphans.append(f"{file_id} exists for {team.name}, for which it must not")
