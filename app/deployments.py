"""Model name → deployments → account. Built once from the settings; also answers GET /models."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.entries import limits_of, names_of, resolved
from app.errors import NotFound
from app.gateway import caller_of, gateway_of
from app.providers.http import Http
from app.providers.limits import Guard, Guarded
from app.providers.protocol import Provider
from app.providers.wrappers import Impatient, Observed, Retrying
from app.settings import Settings


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
    entries, ignored = resolved(settings)
    names = names_of(entries)
    limits = limits_of(entries)
    kinds = {one.identity: one.kind for one in entries}
    guards = {one: Guard(names[one], kind.name, limits[one]) for one, kind in kinds.items()}
    accounts: dict[str, Account] = {}
    provider_accounts: dict[str, Account] = {}
    deployments: list[Deployment] = []
    # An account that files_settings has is used as they say.
    for one in sorted(entries, key=lambda one: one.entry.model_name is not None):
        name = names[one.identity]
        provider = Guarded(
            Observed(Impatient(one.kind.provider(one.params, http)), one.kind.name), guards[one.identity]
        )
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
    entries, _ = resolved(settings)
    names_of(entries)
    limits_of(entries)


def account_names(settings: Settings) -> dict[str, str]:
    """Account name → provider name, for all that is configured. Raises SettingsError."""
    return {account: provider for _, account, provider in listed(settings)}


def listed(settings: Settings) -> list[tuple[str | None, str, str]]:
    """Model, account and provider name of each entry of `model_list`, then `files_settings`. Raises SettingsError."""
    entries, _ = resolved(settings)
    names = names_of(entries)
    return [(one.entry.model_name, names[one.identity], one.kind.name) for one in entries]
