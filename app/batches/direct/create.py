"""POST /batches for one account: a sealed input, a provider's own file, or requests for a provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from app import ids
from app.access.authenticate import Caller
from app.batches.body import BatchCreate
from app.batches.direct.address import Naming
from app.batches.direct.shown import shown
from app.batches.inline import lines_of
from app.batches.lost import may_be_there
from app.deployments import Account, Deployment
from app.errors import BadRequest, NoSuchFile, ProviderError
from app.files.batch_input import told
from app.files.direct import address
from app.files.direct.batch_lines import LineTranslator
from app.files.targets import check_model_name
from app.formats.batch_lines import MIME_TYPE, RequestLine
from app.gateway import Gateway
from app.providers.protocol import BatchOptions, BatchSubmission, FileUpload, ProviderBatch

# As many of an account's newest batches are searched for one whose creation was not answered.
SEARCHED = 100


async def create_direct(gateway: Gateway, caller: Caller, body: BatchCreate, *, keyed: bool) -> dict[str, Any] | None:
    """Create a batch at the account that the body names; None for what is to be a managed one. `keyed` is a request
    with an Idempotency-Key.

    Raises BadRequest, Forbidden, NoSuchFile or ProviderError.
    """
    creation = await _creation(gateway, caller, body)
    if creation is None:
        return None
    if keyed:
        reason = "a batch at one account is written down nowhere, so it takes no Idempotency-Key"
        raise BadRequest(reason, param="idempotency-key", code="idempotency_key_not_taken")
    return await creation.made()


async def _creation(gateway: Gateway, caller: Caller, body: BatchCreate) -> _Creation | None:
    file = await address.opened(gateway, caller, body.input_file_id) if body.input_file_id else None
    if file is not None:
        assert file.sealed is not None
        check_model_name(file.sealed.model_name, caller, gateway.deployments, "input_file_id")
        naming = Naming(gateway, caller, file.account, file.sealed.model_name)
        deployment = _deployment(gateway, file.account, file.sealed.model_name)
        return _Creation(naming, body, deployment, file.own_id)
    if body.named_provider is None or (body.input_file_id and ids.is_file_id(body.input_file_id)):
        return None
    account = address.provider_account(gateway, caller, body.named_provider)
    naming, deployment = Naming(gateway, caller, account), _deployment(gateway, account, body.model or "")
    if deployment is not None:
        check_model_name(deployment.model_name, caller, gateway.deployments, "model")
    if body.requests is not None:
        return _Creation(naming, body, deployment)
    own_id = address.provider_file_id(account, str(body.input_file_id))
    if own_id is None or await address.foreign(gateway, caller, [account], [own_id]):
        raise NoSuchFile(str(body.input_file_id), param="input_file_id")
    return _Creation(naming, body, deployment, own_id)


def _deployment(gateway: Gateway, account: Account, model_name: str) -> Deployment | None:
    """The deployment that is meant, where it is a model name and not the provider's."""
    return next((one for one in gateway.deployments.of(model_name) if one.account is account), None)


class _Creation:
    """One batch on its way to one account."""

    def __init__(
        self, naming: Naming, body: BatchCreate, deployment: Deployment | None, input_file_id: str | None = None
    ) -> None:
        self._naming, self._body, self._deployment = naming, body, deployment
        self._input_file_id = input_file_id
        self._account = naming.account
        self._name = ids.new_part_id()
        capabilities = self._account.provider.capabilities
        if capabilities.batch_input == "none" or body.endpoint not in capabilities.batch.endpoints:
            reason = f"{self._account.provider_name} runs no batches of {body.endpoint}"
            raise BadRequest(reason, param="endpoint", code="batch_not_supported")

    async def made(self) -> dict[str, Any]:
        """The Batch object. Raises BadRequest or ProviderError."""
        if self._input_file_id is not None:
            return await self._of_file(self._input_file_id)
        return await self._of_requests(self._body.requests or [])

    async def _of_file(self, provider_file_id: str) -> dict[str, Any]:
        """A batch of the lines in a file there."""
        if self._account.provider.capabilities.batch_input == "inline":
            reason = f"{self._account.provider_name} takes no file: send the lines as `requests`"
            raise BadRequest(reason, param="input_file_id", code="batch_not_supported")
        batch = replace(self._submission(self._model()), input_file_id=provider_file_id)
        return shown(await self._created(batch), self._naming, self._naming.file(provider_file_id))

    async def _of_requests(self, requests: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A batch of the requests in the body; where its provider wants a file, it gets one."""
        capabilities = self._account.provider.capabilities
        if len(requests) < capabilities.batch.min_lines:
            least = capabilities.batch.min_lines
            reason = f"{self._account.provider_name} runs no batch of fewer than {least} requests"
            raise BadRequest(reason, param="requests", code="batch_too_small")
        lines = list(enumerate(lines_of(requests, self._body.endpoint, self._body.model), 1))
        with told("requests"):
            content = await asyncio.to_thread(LineTranslator(self._account, self._deployment).all, lines)
        batch = self._submission(self._model(RequestLine.read(*lines[0]).model))
        if capabilities.batch_input == "inline":
            return shown(await self._created(replace(batch, open=lambda: _chunks(content))), self._naming)
        file = await self._account.provider.upload_file(self._upload(content))
        try:
            created = await self._created(replace(batch, input_file_id=file.id))
        except ProviderError as failure:
            # Nobody is told of the lines, but a batch that may be there needs them.
            if not may_be_there(failure):
                with suppress(ProviderError):
                    await self._account.provider.delete_file(file.id)
            raise
        return shown(created, self._naming, self._naming.file(file.id))

    def _model(self, of_lines: str | None = None) -> str:
        """The provider's model that runs the batch; OpenAI reads it in the lines."""
        if self._deployment is not None:
            return self._deployment.provider_model
        model = self._body.model or of_lines
        if model is None and not self._account.provider.capabilities.speaks_openai:
            reason = f"{self._account.provider_name} wants to know the model of a batch: send `model`"
            raise BadRequest(reason, param="model", code="missing_model")
        return (model or "").removeprefix(f"{self._account.provider_name}/")

    def _submission(self, provider_model: str) -> BatchSubmission:
        body = self._body
        return BatchSubmission(
            name=self._name,
            provider_model=provider_model,
            endpoint=body.endpoint,
            metadata=body.metadata or {},
            options=BatchOptions(body.output_s3_uri or body.output_gcs_uri, body.role_arn, body.job_name),
        )

    def _upload(self, content: bytes) -> FileUpload:
        return FileUpload(
            replica_id=self._account.provider.capabilities.batch_file_name(self._name),
            filename=f"{self._name}.jsonl",
            mime_type=MIME_TYPE,
            purpose="batch",
            size_bytes=len(content),
            expires_after_seconds=None,
            open=lambda: _chunks(content),
        )

    async def _created(self, batch: BatchSubmission) -> ProviderBatch:
        """Create it; where the answer was lost, it may be there all the same, under its name."""
        provider = self._account.provider
        try:
            return await provider.create_batch(batch)
        except ProviderError as failure:
            if not may_be_there(failure):
                raise
            page = await provider.list_batches(None, SEARCHED)
            found = [one for one in page.batches if one.name == batch.name]
            if not found:
                raise
            return found[0]


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content
