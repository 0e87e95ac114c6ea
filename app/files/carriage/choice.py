"""Which deployments may answer a chat, and what each is to be sent."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping

from app import ids
from app.access.authenticate import Caller
from app.deployments import Deployment
from app.errors import BadRequest, Forbidden, GatewayError, NotFound, ProviderTooLarge
from app.files.backfill import make
from app.files.carriage.carried import Carried
from app.files.carriage.direct import facts_of
from app.files.direct.address import DirectFile, foreign, opened
from app.files.mappings import FileMapping
from app.files.references import Found, Reference, position, rewrite
from app.formats.openai import FileFacts
from app.gateway import Gateway
from app.providers.protocol import ChatRequest
from app.seals import FILE, looks_sealed

# How long a chat waits for a file that its provider is still processing or being sent, and how often it looks.
COMING_SECONDS = 60.0
COMING_LOOK_SECONDS = 0.1
# All files of one request that travel inside it; OpenAI takes no more (wire.md §1c).
MAX_INLINE_BYTES = 50 * 1024 * 1024


class Choice:
    """One chat's deployments: `body` is the caller's payload, `found` what was found in it.

    A line of a batch is for one `deployment`.
    """

    def __init__(
        self,
        gateway: Gateway,
        caller: Caller,
        model_name: str,
        body: bytes,
        found: Found,
        deployment: Deployment | None = None,
    ) -> None:
        self._gateway, self._caller = gateway, caller
        self._model_name, self._body, self._found = model_name, body, found
        self._deployment = deployment
        # (file id, account) of the replicas that this chat has begun to make.
        self._begun: set[tuple[str, str]] = set()
        # Sealed ids, and what they stand for.
        self._direct: dict[str, DirectFile] = {}

    async def candidates(self) -> list[Candidate]:
        """The deployments that can be given every file, in the order in which to try them.

        Raises NotFound or Forbidden for the model name, and for a file, with its position in the payload, BadRequest,
        ProviderTooLarge, or Overloaded when it is still being processed.
        """
        self._check_model_name()
        one = self._deployment
        deployments = [one] if one else self._gateway.deployments.shuffled(self._model_name)
        files = await self._files()
        await self._find_direct()
        deployments = self._with_direct(deployments)
        if not files:
            return [Candidate(one, self._body, self._found, {}, self._direct) for one in deployments]
        deadline = time.monotonic() + COMING_SECONDS
        while True:
            carried = [self._carried(deployment, files) for deployment in deployments]
            able = [one for one in carried if all(file.obstacle() is None for file in one.values())]
            if able:
                return [self._candidate(one) for one in able]
            coming = any(all(file.is_coming or file.obstacle() is None for file in one.values()) for one in carried)
            if time.monotonic() > deadline or not (coming or await self._make_missing(carried)):
                raise self._obstacle(carried)
            await asyncio.sleep(COMING_LOOK_SECONDS)
            files = await self._files()

    async def _make_missing(self, carried: Iterable[dict[str, Carried]]) -> bool:
        """Begin to make the replicas that one deployment lacks, each once in this chat; False when there is none for
        which that would do. In the order of the configuration, so that many chats agree on one."""
        order = self._gateway.deployments.of(self._model_name)
        for one in sorted(carried, key=lambda one: order.index(next(iter(one.values())).deployment)):
            missing = [file for file in one.values() if file.obstacle() is not None and not file.is_coming]
            wanted = {(file.file.file_id, file.deployment.account.name) for file in missing}
            if all(file.can_be_made for file in missing) and not wanted & self._begun:
                for file in missing:
                    if await make.begin(self._gateway, file.file, file.deployment.account, self._model_name):
                        self._begun.add((file.file.file_id, file.deployment.account.name))
                return True
        return False

    def _check_model_name(self) -> None:
        if not self._gateway.deployments.of(self._model_name):
            usable = ", ".join(self._gateway.deployments.names(self._caller.models)) or "none"
            reason = f"there is no model name {self._model_name[:200]!r}; your key may use: {usable}"
            raise NotFound(reason, param="model", code="model_not_found")
        if not self._caller.may_use(self._model_name):
            reason = f"this key may not use the model name {self._model_name!r}"
            raise Forbidden(reason, param="model", code="model_name_not_allowed")

    def _carried(self, deployment: Deployment, files: Iterable[tuple[Reference, FileMapping]]) -> dict[str, Carried]:
        in_batch = self._deployment is not None
        return {
            reference.file_id: Carried(self._gateway, deployment, file, self._body, reference, in_batch)
            for reference, file in files
        }

    def _candidate(self, carried: dict[str, Carried]) -> Candidate:
        deployment = next(iter(carried.values())).deployment
        return Candidate(deployment, self._body, self._found, carried, self._direct)

    # --- files ------------------------------------------------------------------------------------------------

    async def _files(self) -> list[tuple[Reference, FileMapping]]:
        """Each managed file of the payload, and where it stands: first, or where it could not be replaced."""
        files: dict[str, tuple[Reference, FileMapping]] = {}
        for reference in self._found.references:
            if known := files.get(reference.file_id):
                if known[0].in_file_part and not reference.in_file_part:
                    files[reference.file_id] = (reference, known[1])
                continue
            if not ids.is_file_id(reference.file_id):
                continue
            mapping = await self._gateway.mappings.find(self._caller.reach, reference.file_id)
            if mapping is None:
                raise self._refused(reference)
            files[reference.file_id] = (reference, mapping)
        return list(files.values())

    async def _find_direct(self) -> None:
        """Open the sealed ids; what is left is a provider's own."""
        raw: list[Reference] = []
        for reference in self._found.references:
            file_id = reference.file_id
            if ids.is_file_id(file_id) or file_id in self._direct:
                continue
            if file := await opened(self._gateway, self._caller, file_id):
                self._direct[file_id] = file
            elif looks_sealed(FILE, file_id):
                raise self._refused(reference)
            else:
                raw.append(reference)
        await self._check_raw(raw)

    def _with_direct(self, deployments: list[Deployment]) -> list[Deployment]:
        """Those at the account of all direct files. Raises BadRequest when there is none."""
        accounts = {file.account.name for file in self._direct.values()}
        able = [one for one in deployments if accounts <= {one.account.name}]
        if able:
            return able
        reference = next(one for one in self._found.references if one.file_id in self._direct)
        where, account = position(self._body, reference), self._direct[reference.file_id].account.name
        names = [
            name
            for name in self._gateway.deployments.names(self._caller.models)
            if any(one.account.name == account for one in self._gateway.deployments.of(name))
        ]
        raise BadRequest(
            f"{where}: the file is at one account only, and no deployment of {self._model_name!r} is at the account of "
            f"all such files of this request; model names at this one's: {', '.join(names) or 'none'}",
            param=where,
            code="file_without_replica",
        )

    async def _check_raw(self, references: list[Reference]) -> None:
        """A provider's own id passes only with the permission, and never when it is another team's replica."""
        if not references:
            return
        if not self._caller.provider_files:
            raise self._refused(references[0])
        accounts = self._gateway.deployments.accounts_behind(self._model_name)
        theirs = await foreign(self._gateway, self._caller, accounts, [one.file_id for one in references])
        for reference in references:
            if reference.file_id in theirs:
                raise self._refused(reference)

    # --- errors -----------------------------------------------------------------------------------------------

    def _refused(self, reference: Reference) -> BadRequest:
        where = position(self._body, reference)
        return BadRequest(
            f"{where}: No such File object: {reference.file_id[:100]}", param=where, code="file_not_found"
        )

    def _obstacle(self, carried: list[dict[str, Carried]]) -> GatewayError:
        """Why no deployment can be given all files: the first file that none can be given, if there is one."""
        for file_id, first in carried[0].items():
            obstacle = first.obstacle()
            if obstacle is not None and all(one[file_id].obstacle() for one in carried):
                where, reason, wait = first.where, obstacle.message, obstacle.retry_after_seconds
                if obstacle.code == "file_without_replica" and obstacle.status == 400:
                    names = ", ".join(self._names_with(first.file)) or "none that your key may use"
                    reason = f"{reason}; model names that have it: {names}"
                return type(obstacle)(f"{where}: {reason}", param=where, code=obstacle.code, retry_after_seconds=wait)
        return BadRequest(
            f"no single account behind {self._model_name!r} has all files of this request",
            param="messages",
            code="file_without_replica",
        )

    def _names_with(self, file: FileMapping) -> list[str]:
        deployments = self._gateway.deployments
        return [
            name
            for name in deployments.names(self._caller.models)
            if any(file.holds(deployment.account.name) for deployment in deployments.of(name))
        ]


class Candidate:
    """A deployment that can be given every file of a chat."""

    def __init__(
        self,
        deployment: Deployment,
        body: bytes,
        found: Found,
        carried: Mapping[str, Carried],
        direct: Mapping[str, DirectFile],
    ) -> None:
        self.deployment = deployment
        self._body, self._found, self._carried, self._direct = body, found, carried, direct

    async def request(self) -> ChatRequest:
        """The request to this deployment, the files that travel inside it read. Raises what Carried.part does."""
        deployment = self.deployment
        facts: dict[str, FileFacts] = {}
        replacements: dict[str, str | bytes] = {}
        inside = {file_id: one for file_id, one in self._carried.items() if one.carriage != "reference"}
        times = Counter(reference.file_id for reference in self._found.references)
        if sum(one.file.size_bytes * times[file_id] for file_id, one in inside.items()) > MAX_INLINE_BYTES:
            reason = f"the files that travel inside the request have more than {MAX_INLINE_BYTES} bytes together"
            raise ProviderTooLarge(reason, param="messages")
        for file_id, one in inside.items():
            replacements[file_id] = await one.part()
        for file_id, one in self._carried.items():
            if file_id not in replacements:
                replica = one.file.replicas[deployment.account.name]
                assert replica.provider_file_id is not None
                provider_file_id = replica.provider_file_id
                if replica.expires_at is not None:
                    one.gateway.mappings.used.add(replica.id)
                replacements[file_id] = provider_file_id
                facts[provider_file_id] = FileFacts(one.file.mime_type, one.file.filename)
        speaks_openai = deployment.provider.capabilities.speaks_openai
        for file_id, file in self._direct.items():
            replacements[file_id] = file.own_id
            if not speaks_openai and (known := await facts_of(file)):
                facts[file.own_id] = known
        body = rewrite(self._body, self._found, deployment.provider_model, replacements.get, unladen=speaks_openai)
        return ChatRequest(
            deployment.provider_model, body, deployment.timeout_seconds, facts, drop_params=deployment.drop_params
        )

    async def lost_files(self) -> bool:
        """Ask the provider whether it still holds the files that the request refers to; those that it does not are
        made again by the next chat. Whether there were any. Raises Overloaded."""
        lost = [one for one in self._carried.values() if one.carriage == "reference" and await one.is_lost()]
        for one in lost:
            await make.lose(one.gateway, one.file, one.deployment.account)
        return bool(lost)
