"""A batch that is validating: its lines are translated and sent, and each part becomes a batch at its provider.

A part is `waiting`; `uploading` once its input may be at the provider, under a name that is used once; `uploaded` when
it is; `creating` once there may be a batch; `running` when the provider has told its id; `refused` when it will not
have it. What a crash leaves in `creating` is looked for before anything is created again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

from app import ids
from app.access.authenticate import Caller
from app.batches import queries
from app.batches.advance import Rest
from app.batches.lost import NotSure, found_again, may_be_there
from app.batches.parts import UNSENT, all_of, deployment_of, running
from app.batches.translate import PartInput, Translation, may_pass
from app.db.session import Row, Rows
from app.deployments import Deployment
from app.errors import GatewayError, Overloaded, ProviderError
from app.files.spool import Spool
from app.formats.batch_lines import MIME_TYPE
from app.gateway import Gateway
from app.providers.protocol import BatchOptions, BatchSubmission, FileUpload

# What OpenAI's only completion window comes to.
WINDOW = timedelta(hours=24)


async def submit(gateway: Gateway, batch: Row) -> Rest | None:
    """Have every part run, as far as its provider will. Raises GatewayError for what may pass."""
    async with gateway.database.read() as reader:
        parts = await queries.parts_of(reader, batch["id"])
    submission = Submission(gateway, batch)
    parts = [await submission.settled(part) for part in parts]
    unsent = [part for part in parts if part["state"] in UNSENT]
    if unsent and not await submission.send(unsent, alone=len(unsent) == len(parts)):
        return None
    async with gateway.database.write() as writer:
        parts = await queries.parts_of(writer, batch["id"])
        await queries.record(writer, batch, _begun(batch, parts), status="validating")
    return None


def _begun(batch: Row, parts: Rows) -> dict[str, Any]:
    """What becomes of the batch when every part is running, or refused."""
    now = datetime.now(UTC)
    if any(part["state"] == "running" for part in parts):
        return {"status": "in_progress", "in_progress_at": now, "expires_at": batch["created_at"] + WINDOW}
    return failed_values(part_errors("provider_refused", parts))


def part_errors(code: str, parts: Rows) -> list[dict[str, Any]]:
    """OpenAI's errors of a batch none of whose parts runs."""
    reasons = [f"{part['model_name']} ({part['provider']}): {part['last_error']}" for part in parts]
    return [{"code": code, "line": None, "message": reason, "param": None} for reason in reasons]


def failed_values(errors: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of which nothing runs; what its parts have left at their providers is due to be deleted."""
    return {"status": "failed", "failed_at": datetime.now(UTC), "errors": errors}


class Submission:
    """The parts of one batch on their way to their providers."""

    def __init__(self, gateway: Gateway, batch: Row) -> None:
        self._gateway, self._batch = gateway, batch

    async def settled(self, part: Row) -> Row:
        """The part, once it is known whether there is a batch of it. Raises NotSure."""
        if part["state"] != "creating":
            return part
        found = await found_again(self._gateway, part)
        if found is not None:
            return await self._record(part, running(found))
        deployment = deployment_of(self._gateway, part)
        # Where a name makes one batch only, that name is sent again.
        if not deployment.provider.capabilities.batch.repeatable and part["looks"] + 1 < NotSure.LOOKS:
            await self._record(part, {"looks": part["looks"] + 1})
            raise NotSure(part["looks"] + 1)
        return await self._record(part, {"state": _unsent(deployment), "looks": 0, "creating_at": None})

    async def send(self, parts: Rows, *, alone: bool) -> bool:
        """Translate what is to be translated, then upload and create; False when the lines are such that the batch has
        failed. Where others run already (not `alone`), only the part whose lines they are is refused."""
        deployments = {part["id"]: deployment_of(self._gateway, part) for part in parts}
        async with AsyncExitStack() as stack:
            inputs = {}
            for part in parts:
                if part["state"] != "uploaded" or _is_inline(deployments[part["id"]]):
                    spool = await stack.enter_async_context(Spool(self._gateway.spool_dir))
                    inputs[part["id"]] = PartInput(part["id"], deployments[part["id"]], spool)
            translation = await self._translated(parts, inputs)
            if translation.errors and alone:
                async with self._gateway.database.write() as writer:
                    await queries.record(writer, self._batch, failed_values(translation.errors), status="validating")
                return False
            await self._record_lines(inputs, translation)
            await all_of(
                self._send(part, deployments[part["id"]], inputs.get(part["id"]))
                for part in parts
                if part["id"] not in translation.refused_parts
            )
        return True

    async def _translated(self, parts: Rows, inputs: Mapping[str, PartInput]) -> Translation:
        """Fill the spools."""
        by_model = {
            model: inputs[part["id"]] for part in parts if part["id"] in inputs for model in part["line_models"]
        }
        translation = Translation(self._gateway, self._caller(parts[0]), by_model)
        if not inputs:
            return translation
        file = await self._gateway.mappings.find(None, self._batch["input_file_id"])
        if file is None:
            translation.refuse_all("file_not_found", "the input file was deleted before the batch had begun")
            return translation
        try:
            await translation.read(file)
        except GatewayError as failure:
            if may_pass(failure):
                raise
            translation.refuse_all(failure.code, failure.message)
        return translation

    async def _record_lines(self, inputs: Mapping[str, PartInput], translation: Translation) -> None:
        """Keep what tells the lines of each part, also of those that are refused for theirs: all of them are answered
        in the end."""
        async with self._gateway.database.write() as writer:
            for part_id, lines in inputs.items():
                values: dict[str, Any] = {"custom_ids": lines.custom_ids.packed()} if lines.custom_ids else {}
                if part_id in translation.refused_parts:
                    values |= {"state": "refused", "last_error": translation.errors[0]["message"]}
                if values:
                    await queries.record_part(writer, self._batch, part_id, values)

    def _caller(self, part: Row) -> Caller:
        """Whoever has created the batch; what the key may do was checked then."""
        return Caller(
            key_id=self._batch["created_by"],
            team_id=self._batch["team_id"],
            team_name="",
            role="member",
            models=None,
            permissions=frozenset({"provider_files"} if part["options"]["provider_files"] else ()),
            default_targets=(),
        )

    async def _send(self, part: Row, deployment: Deployment, lines: PartInput | None) -> None:
        """Upload a part's input and create its batch. Raises ProviderError for what may pass."""
        try:
            if lines is not None:
                part = await self._prepared(part, deployment, lines)
            await self._create(part, deployment, lines)
        except ProviderError as failure:
            if failure.retryable:
                raise
            await self._record(part, {"state": "refused", "last_error": failure.message})

    async def _prepared(self, part: Row, deployment: Deployment, lines: PartInput) -> Row:
        """The part with its lines at the provider, or ready to go with the batch itself."""
        name = ids.new_part_id()
        if _is_inline(deployment):
            return await self._record(part, {"name": name})
        file_name = deployment.provider.capabilities.batch_file_name(name)
        known_names = [*part["input_names"], file_name]
        await self._record(part, {"name": name, "state": "uploading", "input_names": known_names})
        spool = lines.spool
        upload = FileUpload(
            replica_id=file_name,
            filename=f"{name}.jsonl",
            mime_type=MIME_TYPE,
            purpose="batch",
            size_bytes=spool.size_bytes,
            expires_after_seconds=None,
            open=lambda: spool.read(spool.size_bytes),
            sha256=lambda: spool.sha256,
        )
        file = await deployment.account.provider.upload_file(upload)
        known = [*part["input_provider_file_ids"], file.id]
        return await self._record(part, {"state": "uploaded", "input_provider_file_ids": known})

    async def _create(self, part: Row, deployment: Deployment, lines: PartInput | None) -> None:
        inline = _is_inline(deployment)
        await self._record(part, {"state": "creating", "creating_at": datetime.now(UTC), "looks": 0})
        options = part["options"]
        submission = BatchSubmission(
            name=part["name"],
            provider_model=part["provider_model"],
            endpoint=self._batch["endpoint"],
            input_file_id=None if inline else part["input_provider_file_ids"][-1],
            open=(lambda: lines.spool.read(None)) if lines is not None and inline else None,
            options=BatchOptions(options.get("output_uri"), options.get("role_arn"), options.get("job_name")),
        )
        try:
            created = await deployment.account.provider.create_batch(submission)
        except ProviderError as failure:
            if not may_be_there(failure):
                await self._record(part, {"state": _unsent(deployment)})
            raise
        try:
            await self._record(part, running(created))
        except Overloaded:
            # Whoever holds the claim by now may have created another.
            async with self._gateway.database.write() as writer:
                await queries.add_surplus(writer, part, created.id)
            raise

    async def _record(self, part: Row, values: dict[str, Any]) -> Row:
        """Raises Overloaded when the claim does not hold any more; before anything is begun at a provider, also when
        the batch is being cancelled."""
        begins = values.get("state") in ("uploading", "creating")
        async with self._gateway.database.write() as writer:
            row = await queries.record_part(
                writer, self._batch, part["id"], values, status="validating" if begins else None
            )
        if row is None:
            raise Overloaded("the batch is being cancelled, or somebody else works on it by now")
        return row


def _is_inline(deployment: Deployment) -> bool:
    return deployment.provider.capabilities.batch_input == "inline"


def _unsent(deployment: Deployment) -> str:
    """The state of a part whose batch is to be created, its input being there."""
    return "waiting" if _is_inline(deployment) else "uploaded"
