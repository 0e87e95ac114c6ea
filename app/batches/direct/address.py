"""Which account, and which batch there, a request is about."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from app import ids
from app.access.authenticate import Caller
from app.deployments import Account
from app.errors import NoSuchBatch
from app.files.direct import address
from app.gateway import Gateway
from app.seals import BATCH, FILE, Kind, Sealed


@dataclass(frozen=True, slots=True)
class DirectBatch:
    """A batch at an account; `sealed` is what the id says by which the caller asks for it."""

    account: Account
    provider_batch_id: str
    batch_id: str
    sealed: Sealed | None = None

    def asked_for(self) -> AbstractContextManager[None]:
        """What is missing at the provider is missing here. Raises NoSuchBatch."""
        return address.missing_as(NoSuchBatch(self.batch_id))


async def direct_batch(gateway: Gateway, caller: Caller, batch_id: str, provider: str | None) -> DirectBatch | None:
    """The direct batch that an id names, at the provider that the request names; None for what can only be a managed
    one.

    Raises NoSuchBatch, also for another team's; for a provider's own id Forbidden, or BadRequest without an account.
    """
    if ids.is_batch_id(batch_id):
        return None
    if found := gateway.seals.open(BATCH, batch_id, caller.reach):
        account = address.account_of(gateway, found)
        if account is not None:
            await _check_own(gateway, caller, account, found.provider_id, batch_id, found)
            return DirectBatch(account, found.provider_id, batch_id, found)
    if provider is None:
        return None
    account = address.provider_account(gateway, caller, provider)
    await _check_own(gateway, caller, account, batch_id, batch_id, None)
    return DirectBatch(account, batch_id, batch_id)


async def _check_own(
    gateway: Gateway, caller: Caller, account: Account, provider_batch_id: str, batch_id: str, sealed: Sealed | None
) -> None:
    """Raise NoSuchBatch for a part of another team's batch. What is sealed for a team was never one."""
    if sealed is not None and sealed.team_id is not None:
        return
    if sealed is not None and not caller.may_use(sealed.model_name):
        raise NoSuchBatch(batch_id)
    if provider_batch_id in await address.foreign_batches(gateway, caller, account, [provider_batch_id]):
        raise NoSuchBatch(batch_id)


@dataclass(frozen=True, slots=True)
class Naming:
    """How what lies at an account is called for a caller: sealed under a model name, or by the provider's own ids."""

    gateway: Gateway
    caller: Caller
    account: Account
    model_name: str | None = None

    @classmethod
    def of(cls, gateway: Gateway, caller: Caller, batch: DirectBatch) -> Naming:
        """As the id is by which the batch is asked for."""
        return cls(gateway, caller, batch.account, batch.sealed.model_name if batch.sealed else None)

    def batch(self, provider_batch_id: str) -> str:
        """A batch's id."""
        return self._named(BATCH, provider_batch_id)

    def file(self, provider_file_id: str | None) -> str | None:
        """A file's id."""
        return provider_file_id and self._named(FILE, provider_file_id)

    def _named(self, kind: Kind, own_id: str) -> str:
        if self.model_name is None:
            return own_id
        return address.seal(self.gateway, self.caller, self.account, self.model_name, own_id, kind)
