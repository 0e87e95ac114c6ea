"""Which account, and which file there, a request is about."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.requests import Request

from app import ids
from app.access.authenticate import Caller
from app.deployments import Account
from app.errors import BadRequest, Forbidden, Missing, NoSuchFile, NotFound
from app.files.direct import queries
from app.files.direct.results import Results
from app.files.targets import check_model_name, named_provider
from app.gateway import Gateway
from app.providers.protocol import FileContent, ProviderFile
from app.seals import FILE, Kind, Sealed

# What an id may be, where it becomes part of a URL: never a way to another one.
_ID = re.compile(r"(?:(?:https?://[\w.:-]+(?:/[\w-]+)*/)?files/)?([\w-][\w.-]{0,199})", re.ASCII)
_OBJECT = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[^/]+){2,}")
_STANDARD = str.maketrans("-_", "+/", "=")
# Providers whose ids are those of objects.
_SCHEMES = {"vertex_ai": "gs:/", "bedrock": "s3:/"}


@dataclass(frozen=True, slots=True)
class DirectFile:
    """A file at an account; `file_id` is the one by which the caller asks for it, `sealed` what that says."""

    account: Account
    provider_file_id: str
    file_id: str
    sealed: Sealed | None = None

    @property
    def own_id(self) -> str:
        """The provider's own id as it was told."""
        return self.sealed.provider_id if self.sealed else self.provider_file_id

    @property
    def _results(self) -> Results | None:
        return Results.of(self.account, self.own_id)

    async def described(self) -> ProviderFile:
        """What the provider says about it. Raises ProviderError."""
        if results := self._results:
            return await results.described()
        return await self.account.provider.retrieve_file(self.provider_file_id)

    def open(self) -> AbstractAsyncContextManager[FileContent]:
        """Its bytes as they arrive. Raises ProviderError."""
        results = self._results
        return results.open() if results else self.account.provider.read_file(self.provider_file_id)

    async def delete(self) -> None:
        """Delete it at the provider. Raises ProviderError."""
        results = self._results
        await (results.delete() if results else self.account.provider.delete_file(self.provider_file_id))

    def asked_for(self) -> AbstractContextManager[None]:
        """What is missing at the provider is missing here. Raises NoSuchFile."""
        return missing_as(NoSuchFile(self.file_id))


@contextmanager
def missing_as(missing: NotFound) -> Iterator[None]:
    """Raise this for what the provider does not have."""
    try:
        yield
    except Missing as failure:
        raise missing from failure


def asked_id(request: Request) -> str:
    """The file id in a path, as it was before a client encoded it (see app.edge)."""
    return unquote(request.path_params["file_id"])


def asked_provider(request: Request) -> str | None:
    """The provider that a request without a form names: in the path, the query or a header."""
    in_path: str | None = request.scope["state"].get("provider")
    return in_path or named_provider(request.query_params.multi_items(), request.headers)


async def direct_file(gateway: Gateway, caller: Caller, request: Request, file_id: str) -> DirectFile | None:
    """The direct file that an id names; None for what can only be a managed one.

    Raises NoSuchFile, also for another team's; for a provider's own id Forbidden, or BadRequest without an account.
    """
    if ids.is_file_id(file_id):
        return None
    if found := await opened(gateway, caller, file_id):
        return found
    provider = asked_provider(request)
    if provider is None:
        return None
    account = provider_account(gateway, caller, provider)
    own_id = provider_file_id(account, file_id)
    if own_id is None or await _is_foreign(gateway, caller, account, own_id):
        raise NoSuchFile(file_id)
    return DirectFile(account, own_id, file_id)


async def opened(gateway: Gateway, caller: Caller, file_id: str) -> DirectFile | None:
    """The file behind a sealed id; None if there is none for this caller."""
    sealed = gateway.seals.open(FILE, file_id, caller.reach)
    account = account_of(gateway, sealed) if sealed else None
    if sealed is None or account is None:
        return None
    if sealed.team_id is not None:
        return DirectFile(account, sealed.provider_id, file_id, sealed)
    # Anybody can have made it, so it opens no more than its maker may use.
    own_id = provider_file_id(account, sealed.provider_id)
    if own_id is None or not caller.may_use(sealed.model_name) or await _is_foreign(gateway, caller, account, own_id):
        return None
    return DirectFile(account, own_id, file_id, sealed)


async def _is_foreign(gateway: Gateway, caller: Caller, account: Account, own_id: str) -> bool:
    if results := Results.of(account, own_id):
        return bool(await foreign_batches(gateway, caller, account, [results.provider_batch_id]))
    return bool(await foreign(gateway, caller, [account], [own_id]))


def account_of(gateway: Gateway, sealed: Sealed) -> Account | None:
    """The account at which a sealed id's file or batch is."""
    if sealed.account and (account := gateway.deployments.accounts.get(sealed.account)):
        return account
    found = storing(gateway, sealed.model_name)
    # An id of a former version names none; one that has a new name by now is known where there is no other.
    return found[0] if found and (len(found) == 1 or not sealed.account) else None


def seal(gateway: Gateway, caller: Caller, account: Account, model_name: str, own_id: str, kind: Kind = FILE) -> str:
    """The caller's id of a file or batch at one of a model name's accounts."""
    return gateway.seals.seal(kind, Sealed(own_id, model_name, caller.team_id, account.name))


def storing(gateway: Gateway, model_name: str) -> list[Account]:
    """The accounts behind a model name that store files."""
    return [one for one in gateway.deployments.accounts_behind(model_name) if one.stores_files]


def model_accounts(gateway: Gateway, caller: Caller, model_name: str) -> list[Account]:
    """The same for a caller, one at least. Raises BadRequest or Forbidden."""
    check_model_name(model_name, caller, gateway.deployments, "model")
    found = storing(gateway, model_name)
    if not found:
        reason = f"no account behind the model name {model_name!r} stores files"
        raise BadRequest(reason, param="model", code="target_without_files")
    return found


def provider_account(gateway: Gateway, caller: Caller, provider: str) -> Account:
    """The account at which a provider's own files are. Raises Forbidden or BadRequest."""
    check_provider_files(caller)
    accounts = gateway.deployments.provider_accounts
    account = accounts.get(provider)
    if account is None or not account.stores_files:
        usable = ", ".join(name for name, one in accounts.items() if one.stores_files) or "none"
        reason = f"files_settings has no account for the files of {provider[:100]!r}; it has: {usable}"
        raise BadRequest(reason, param="provider", code="unknown_provider")
    return account


def check_provider_files(caller: Caller) -> None:
    """Raise Forbidden for a key that may not see what else is at a shared account."""
    if not caller.provider_files:
        reason = "a provider's own files need a key with the permission provider_files: they may be another team's"
        raise Forbidden(reason)


async def foreign(
    gateway: Gateway, caller: Caller, accounts: Iterable[Account], provider_file_ids: Sequence[str]
) -> set[str]:
    """Which of these files at accounts are replicas of another team's, or the lines or results of its batches.

    Whatever other name the account is known by, and whatever other way of writing there is of an id that ends in the
    name that we have given.
    """
    names = {one: _names(one) for one in provider_file_ids}
    async with gateway.database.read() as reader:
        every = set().union(*names.values())
        found = await queries.foreign_names(reader, caller.team_id, providers_of(accounts), every)
    return {one for one in provider_file_ids if names[one] & found}


def _names(provider_file_id: str) -> set[str]:
    """What a row may know a file by: its id, the name that ends it, and the folders that it is below."""
    parts = provider_file_id.split("/")
    return {parts[-1], *("/".join(parts[:end]) for end in range(1, len(parts) + 1))}


async def foreign_batches(
    gateway: Gateway, caller: Caller, account: Account, provider_batch_ids: Sequence[str]
) -> set[str]:
    """Which of these batches at an account are parts of another team's, in whatever way their ids are written: all ways
    end in the same name."""
    names = {one: one.rpartition("/")[2] for one in provider_batch_ids}
    async with gateway.database.read() as reader:
        found = await queries.foreign_batch_names(reader, caller.team_id, providers_of([account]), names.values())
    return {one for one, name in names.items() if name in found}


def providers_of(accounts: Iterable[Account]) -> list[str]:
    """The accounts' providers: two accounts may be the same under different credentials, or under a former name."""
    return sorted({one.provider_name for one in accounts})


def provider_file_id(account: Account, text: str) -> str | None:
    """A provider's own id, as it is written in the one way that names it; None where the provider can have none such.

    An object's URI, or base64 of it, as Bifrost's users have it; elsewhere a name, to which Gemini's URIs come down.
    """
    scheme = _SCHEMES.get(account.provider_name)
    if not text.isprintable():
        return None
    if Results.of(account, text):
        return text
    if scheme is None:
        found = _ID.fullmatch(text)
        return found and found[1]
    uri = text if text.startswith(scheme) else _decoded(text)
    return uri if uri.startswith(scheme) and _OBJECT.fullmatch(uri.removeprefix(scheme)) else None


def _decoded(text: str) -> str:
    """The text behind base64 of either alphabet; empty if there is none."""
    digits = text.translate(_STANDARD)
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
