"""A batch's lines on their way to one account: OpenAI's are translated to its provider's, others pass as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import orjson

from app import ids
from app.deployments import Account, Deployment
from app.errors import BadRequest, GatewayError
from app.files.batch_input import lines_in, told
from app.files.references import find, rewrite
from app.files.spool import Spool
from app.formats.batch_lines import RequestLine
from app.providers.protocol import ChatRequest
from app.seals import FILE, looks_sealed


async def translated(lines: Spool, account: Account, deployment: Deployment | None, directory: Path) -> Spool | None:
    """The lines as the account reads them, in a spool of their own; None where they are that already.

    `deployment` is the one that all of them are for; without one each names its provider's own model. Raises BadRequest
    that names the line.
    """
    capabilities = account.provider.capabilities
    if capabilities.batch_input == "inline":
        reason = (
            f"{account.provider_name} takes the lines of a batch with the batch itself: upload them with "
            "target_model_names, or send them as `requests` when the batch is created"
        )
        raise BadRequest(reason, param="purpose", code="purpose_not_supported")
    if deployment is None and (capabilities.speaks_openai or capabilities.batch_input == "none"):
        return None
    written = Spool(directory)
    try:
        return written if await _translate(lines, written, LineTranslator(account, deployment)) else None
    except BaseException:
        written.abandon()
        raise
    finally:
        if not written.finished:
            await written.__aexit__()


async def _translate(lines: Spool, written: Spool, translator: LineTranslator) -> bool:
    with told():
        async for some in lines_in(lines.read(None)):
            if not written.size_bytes and not _is_openai(some[0][1]):
                return False
            await written.write(await asyncio.to_thread(translator.all, some))
    await written.finish()
    return True


def _is_openai(line: bytes) -> bool:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and "custom_id" in found and "body" in found


class LineTranslator:
    """Writes OpenAI's lines as one account reads them; each is told by its own custom_id."""

    def __init__(self, account: Account, deployment: Deployment | None) -> None:
        self._account, self._deployment = account, deployment
        self._provider = deployment.provider if deployment else account.provider

    def all(self, lines: Iterable[tuple[int, bytes]]) -> bytes:
        """These lines, each with its newline. Raises BadLine or BadRequest."""
        return b"".join(self.one(number, content) for number, content in lines)

    def one(self, number: int, content: bytes) -> bytes:
        """One line, with its newline. Raises BadLine or BadRequest."""
        line = RequestLine.read(number, content)
        try:
            return self._written(line) + b"\n"
        except GatewayError as refused:
            raise BadRequest(f"line {number}: {refused.message}", param=refused.param, code=refused.code) from None

    def _written(self, line: RequestLine) -> bytes:
        found = find(line.body)
        if any(ids.is_file_id(one.file_id) or looks_sealed(FILE, one.file_id) for one in found.references):
            reason = "ids of this gateway are understood in lines that are uploaded with target_model_names"
            raise BadRequest(reason, code="file_id_not_understood")
        model = self._model(line.model)
        unladen = self._provider.capabilities.speaks_openai
        body = rewrite(line.body, found, model, lambda _: None, unladen=unladen)
        drop_params = self._deployment.drop_params if self._deployment else False
        request = ChatRequest(model, body, drop_params=drop_params)
        return self._provider.batch_line(line.custom_id, line.endpoint, request)

    def _model(self, line_model: str) -> str:
        if self._deployment:
            return self._deployment.provider_model
        return line_model.removeprefix(f"{self._account.provider_name}/")
