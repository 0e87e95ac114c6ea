"""A file on its way to one account. No row knows of it, so what ends it early deletes at once what was made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import structlog

from app import ids
from app.access.authenticate import Caller
from app.deployments import Account
from app.errors import BadRequest, Missing, Overloaded, ProviderError
from app.files.direct import batch_lines
from app.files.direct.address import model_accounts, provider_account, seal
from app.files.direct.shown import shown
from app.files.fanout import Fanout, FileFacts, Outcome, Sink
from app.files.multipart import FileStart
from app.files.spool import Spool
from app.files.targets import Wanted
from app.gateway import Gateway

log = structlog.get_logger("filemux.files")


def direct_account(gateway: Gateway, caller: Caller, wanted: Wanted) -> Account:
    """The account that an upload asks for by a model name or a provider. Raises BadRequest or Forbidden."""
    if wanted.model:
        model_accounts(gateway, caller, wanted.model)
        shuffled = (one.account for one in gateway.deployments.shuffled(wanted.model))
        account = next(one for one in shuffled if one.stores_files)
    else:
        assert wanted.provider
        account = provider_account(gateway, caller, wanted.provider)
    if wanted.purpose not in account.provider.capabilities.purposes:
        reason = f"{account.provider_name} takes no files of purpose {wanted.purpose!r}"
        raise BadRequest(reason, param="purpose", code="purpose_not_supported")
    return account


class DirectUpload:
    """One file, one account."""

    def __init__(
        self, gateway: Gateway, caller: Caller, spool: Spool, part: FileStart, wanted: Wanted, account: Account
    ) -> None:
        assert wanted.purpose is not None
        self._gateway, self._caller, self._spool = gateway, caller, spool
        self._wanted, self._account, self._filename = wanted, account, part.filename
        # For a batch, the lines in the provider's own format.
        self._translated: Spool | None = None
        facts = FileFacts(part.filename, part.mime_type, wanted.purpose, wanted.expires_after_seconds, wanted.storage)
        names = (wanted.model,) if wanted.model else ()
        name = ids.new_replica_id()
        if wanted.purpose == "batch":
            name = account.provider.capabilities.batch_file_name(name)
        sink = Sink(account, name, names)
        self._fanout = Fanout(spool, facts, [sink], part.size_bytes)

    @classmethod
    async def begin(
        cls, gateway: Gateway, caller: Caller, spool: Spool, part: FileStart, wanted: Wanted, account: Account
    ) -> DirectUpload:
        """Begin to send what is spooled; the lines of a batch once they are all there. Raises BadRequest."""
        if wanted.purpose != "batch":
            return cls(gateway, caller, spool, part, wanted, account)
        deployments = gateway.deployments.of(wanted.model) if wanted.model else ()
        deployment = next((one for one in deployments if one.account is account), None)
        translated = await batch_lines.translated(spool, account, deployment, gateway.spool_dir)
        upload = cls(gateway, caller, translated or spool, part, wanted, account)
        upload._translated = translated
        return upload

    async def finish(self) -> dict[str, Any]:
        """Wait for the provider; the File object. Raises ProviderError."""
        try:
            return await self._finish()
        finally:
            await self._close()

    async def _close(self) -> None:
        if self._translated is not None:
            await self._translated.__aexit__()

    async def _finish(self) -> dict[str, Any]:
        [outcome] = await self._fanout.settled(stop_at_first_failure=True)
        if isinstance(outcome.error, Missing):
            # What the account lacks, such as its bucket, is nothing that the caller has asked for.
            raise BadRequest(outcome.error.message, code=outcome.error.code)
        if outcome.error is not None:
            raise outcome.error
        if outcome.file is None:
            raise Overloaded("the upload was interrupted", retry_after_seconds=1)
        file = replace(
            outcome.file,
            filename=outcome.file.filename or self._filename,
            bytes=self._spool.size_bytes,
            purpose=outcome.file.purpose or self._wanted.purpose,
        )
        file_id = file.id
        if self._wanted.model:
            file_id = seal(self._gateway, self._caller, self._account, self._wanted.model, file_id)
        return shown(file, self._account, file_id)

    async def give_up(self) -> None:
        """Cut the upload off, and delete what the provider has stored of it."""
        [outcome] = await self._fanout.abandoned()
        await self._close()
        made = self._made(outcome)
        if made is None:
            return
        try:
            await self._account.provider.delete_file(made)
        except Missing:
            pass
        except ProviderError as failure:
            # Nobody has been told its id.
            log.warning(
                "a file that nobody wants is left at a provider", account=self._account.name, error=failure.code
            )

    def _made(self, outcome: Outcome) -> str | None:
        if outcome.file is not None:
            return outcome.file.id
        provider = self._account.provider
        named = outcome.may_exist and provider.capabilities.chooses_id and self._wanted.storage is None
        return provider.chosen_file_id(outcome.sink.replica_id) if named else None
