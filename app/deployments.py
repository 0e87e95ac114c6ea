"""Model name → deployments → account. Built once from the settings; also answers GET /models."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.errors import NotFound
from app.gateway import caller_of, gateway_of
from app.providers.http import Http
from app.providers.limits import MAX_PARALLEL_REQUESTS, Guard, Guarded
from app.providers.protocol import Provider
from app.providers.registry import REGISTRY, ProviderKind
from app.providers.wrappers import Impatient, Observed, Retrying
from app.settings import ALL_MODEL_NAMES, Entry, Settings, explain
from app.yaml_file import SettingsError, resolve

# Parameters of an entry that the provider does not know.
DEPLOYMENT_PARAMS = frozenset({"account", "timeout", "drop_params", "max_parallel_requests"})
# Two entries that differ only in these speak to the same account.
NOT_IDENTITY = frozenset({"api_version", "auth_header", "max_tokens", "allowed_buckets", "batch_min_lines"}) | {
    *("aws_batch_role_arn", "s3_encryption_key_id", "s3_output_bucket_name")
}

Number = TypeVar("Number", int, float)


async def list_endpoint(request: Request) -> Response:
    """GET /models: the model names that this key may use."""
    caller = await caller_of(request)
    names = gateway_of(request).deployments.names(caller.models)
    return JSONResponse({"object": "list", "data": [_shown(name) for name in names]})


async def endpoint(request: Request) -> Response:
    """GET /models/{model_name}."""
    caller = await caller_of(request)
    name = request.path_params["model_name"]
    if name not in gateway_of(request).deployments.names(caller.models):
        raise NotFound(f"there is no model name {name[:200]!r} for this key", param="model", code="model_not_found")
    return JSONResponse(_shown(name))


def _shown(model_name: str) -> dict[str, Any]:
    # Nothing is known of when a model was made; OpenAI's clients need a number.
    return {"id": model_name, "object": "model", "created": 0, "owned_by": "filemux"}


@dataclass(frozen=True, slots=True)
class Account:
    """An endpoint with credentials: the place where provider files live. `name` is what the rows keep."""

    name: str
    provider_name: str
    provider: Provider = field(repr=False)

    @property
    def stores_files(self) -> bool:
        """Whether a file can be uploaded there."""
        return self.provider.capabilities.stores_files


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model name served by a provider model on an account."""

    model_name: str
    provider_model: str
    account: Account
    # Its own, since two deployments of one account may speak different API versions.
    provider: Provider = field(repr=False)
    timeout_seconds: float | None = None
    # Parameters that the provider does not know are dropped, and not refused.
    drop_params: bool = False


class Deployments:
    """What is configured, looked up by model name and by account."""

    def __init__(
        self,
        deployments: Iterable[Deployment],
        accounts: Mapping[str, Account],
        ignored: Iterable[str] = (),
        provider_accounts: Mapping[str, Account] | None = None,
    ) -> None:
        self.accounts = dict(accounts)
        # Provider → the account at which callers use its own Files API: its first in files_settings.
        self.provider_accounts = dict(provider_accounts or {})
        self.ignored = tuple(ignored)
        self.by_model_name: dict[str, tuple[Deployment, ...]] = {}
        for one in deployments:
            self.by_model_name[one.model_name] = (*self.of(one.model_name), one)

    def names(self, allowed: Collection[str] | None = None) -> list[str]:
        """The model names, in the configuration's order; only the `allowed` ones if given."""
        return [name for name in self.by_model_name if allowed is None or name in allowed]

    def of(self, model_name: str) -> tuple[Deployment, ...]:
        """The deployments of a model name; empty when there is none."""
        return self.by_model_name.get(model_name, ())

    def accounts_of(self, model_names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Account name → the model names that are served there: where a file with these targets is to be usable."""
        found: dict[str, tuple[str, ...]] = {}
        for name in dict.fromkeys(model_names):
            for account in self.accounts_behind(name):
                found[account.name] = (*found.get(account.name, ()), name)
        return found

    def accounts_behind(self, model_name: str) -> list[Account]:
        """A model name's accounts, in the configuration's order."""
        return list({one.account.name: one.account for one in self.of(model_name)}.values())

    def shuffled(self, model_name: str) -> list[Deployment]:
        """The model name's deployments in random order, which spreads the load."""
        deployments = self.of(model_name)
        return random.sample(deployments, len(deployments)) if len(deployments) > 1 else list(deployments)


def build(settings: Settings, http: Http) -> Deployments:
    """Deployments and accounts of the configuration. Raises SettingsError with the line that is wrong."""
    entries, ignored = _resolved(settings)
    names = _account_names(entries)
    limits = _limits(entries)
    guards = {names[one.identity]: Guard(names[one.identity], one.kind.name, limits[one.identity]) for one in entries}
    accounts: dict[str, Account] = {}
    provider_accounts: dict[str, Account] = {}
    deployments: list[Deployment] = []
    # An account that files_settings has is used as they say.
    for one in sorted(entries, key=lambda one: one.entry.model_name is not None):
        name = names[one.identity]
        provider = Guarded(Observed(Impatient(one.kind.provider(one.params, http)), one.kind.name), guards[name])
        if name not in accounts:
            accounts[name] = Account(name, one.kind.name, Retrying(provider))
        if one.entry.model_name is None:
            provider_accounts.setdefault(one.kind.name, accounts[name])
        else:
            its = (accounts[name], provider, one.timeout_seconds, one.drop_params)
            deployments.append(Deployment(one.entry.model_name, one.entry.provider_model, *its))
    return Deployments(deployments, accounts, ignored, provider_accounts)


def check(settings: Settings) -> None:
    """Raise SettingsError with the line that `build` would stumble over; opens no connection."""
    entries, _ = _resolved(settings)
    _account_names(entries)
    _limits(entries)


def account_names(settings: Settings) -> dict[str, str]:
    """Account name → provider name, for all that is configured. Raises SettingsError."""
    return {account: provider for _, account, provider in listed(settings)}


def listed(settings: Settings) -> list[tuple[str | None, str, str]]:
    """Model, account and provider name of each entry of `model_list`, then `files_settings`. Raises SettingsError."""
    entries, _ = _resolved(settings)
    names = _account_names(entries)
    return [(one.entry.model_name, names[one.identity], one.kind.name) for one in entries]


def _resolved(settings: Settings) -> tuple[list[_Resolved], list[str]]:
    ignored: list[str] = []
    entries = [_Resolved.of(entry, ignored) for entry in (*settings.models, *settings.file_accounts)]
    names = {ALL_MODEL_NAMES, *(entry.model_name for entry in settings.models)}
    for target in settings.options.default_target_model_names:
        if target not in names:
            raise settings.default_targets_place.error(f"default_target_model_names: there is no model_name {target!r}")
    return entries, ignored


@dataclass(frozen=True, slots=True)
class _Resolved:
    """An entry whose provider is known and whose parameters are valid."""

    entry: Entry
    kind: ProviderKind
    params: BaseModel
    identity: str
    given_name: str | None
    timeout_seconds: float | None
    drop_params: bool
    max_parallel_requests: int | None

    @classmethod
    def of(cls, entry: Entry, ignored: list[str]) -> _Resolved:
        kind = REGISTRY.get(entry.provider)
        if kind is None:
            known = ", ".join(REGISTRY)
            reason = f"the provider {entry.provider!r} does not exist; there are {known}"
            raise entry.place_of("model").error(reason)
        written = {key: value for key, value in entry.params.items() if key not in DEPLOYMENT_PARAMS}
        for key in set(written) - set(kind.params.model_fields):
            if entry.strict:
                raise entry.place_of(key).error(f"{kind.name} has no parameter {key!r}")
            ignored.append(f"{entry.model_name or 'files_settings'}: {key}")
            del written[key]
        written = kind.filling() | written
        params = _validated(entry, kind, written)
        identity = _identity(kind, params, written)
        return cls(
            entry,
            kind,
            params,
            identity,
            _given_name(entry),
            _positive(entry, "timeout", float, "a number of seconds above 0"),
            _drop_params(entry),
            _positive(entry, "max_parallel_requests", int, "a whole number above 0"),
        )


def _validated(entry: Entry, kind: ProviderKind, written: Mapping[str, Any]) -> BaseModel:
    resolved = {}
    for key, value in written.items():
        try:
            resolved[key] = resolve(value, entry.place_of(key))
        except SettingsError as unset:
            raise entry.place_of(key).error(f"{key}: {unset.reason}") from None
    try:
        return kind.params.model_validate(resolved)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        reason = f"{kind.name}: {key}: {explain(first)}" if key else f"{kind.name}: {explain(first)}"
        raise entry.place_of(key).error(reason) from None


def _identity(kind: ProviderKind, params: BaseModel, written: Mapping[str, Any]) -> str:
    """Provider, endpoint and credential; a credential as the file writes it, so that the account outlives the
    rotation of its secret."""
    parts = [kind.name]
    for key, value in sorted(params):
        if value is not None and key not in NOT_IDENTITY:
            parts.append(f"{key}={written[key] if isinstance(value, SecretStr) else value}")
    return "\n".join(parts)


def _given_name(entry: Entry) -> str | None:
    name = entry.params.get("account")
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise entry.place_of("account").error("account must be a name")
    return name


def _positive(entry: Entry, key: str, kind: Callable[[str], Number], what: str) -> Number | None:
    value = resolve(entry.params.get(key), entry.place_of(key))
    if value is None:
        return None
    try:
        number = kind(str(value))
    except ValueError:
        number = kind("0")
    if not number > 0:
        raise entry.place_of(key).error(f"{key} must be {what}")
    return number


def _drop_params(entry: Entry) -> bool:
    value = resolve(entry.params.get("drop_params"), entry.place_of("drop_params"))
    if value not in (None, True, False):
        raise entry.place_of("drop_params").error("drop_params must be true or false")
    return bool(value)


def _account_names(entries: Iterable[_Resolved]) -> dict[str, str]:
    """Identity → account name: the given one, else the provider and a digest of the identity."""
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for one in entries:
        if one.given_name is None:
            continue
        if names.setdefault(one.identity, one.given_name) != one.given_name:
            reason = f"this account is already named {names[one.identity]!r} by another entry"
            raise one.entry.place_of("account").error(reason)
        if owners.setdefault(one.given_name, one.identity) != one.identity:
            reason = f"two different endpoints or credentials are both named {one.given_name!r}"
            raise one.entry.place_of("account").error(reason)
    for one in entries:
        names.setdefault(one.identity, f"{one.kind.name}-{hashlib.sha256(one.identity.encode()).hexdigest()[:8]}")
    return names


def _limits(entries: Iterable[_Resolved]) -> dict[str, int]:
    """Identity → how many calls an account takes at once."""
    limits: dict[str, int] = {}
    for one in entries:
        wanted = one.max_parallel_requests
        if wanted is not None and limits.setdefault(one.identity, wanted) != wanted:
            reason = f"max_parallel_requests is {limits[one.identity]} in another entry of this account"
            raise one.entry.place_of("max_parallel_requests").error(reason)
    return {one.identity: limits.get(one.identity, MAX_PARALLEL_REQUESTS) for one in entries}
