"""Entries of the configuration, each checked: its provider, its parameters, and which account it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from app.providers.limits import Limits
from app.providers.registry import REGISTRY, ProviderKind
from app.settings import ALL_MODEL_NAMES, Entry, Settings, explain
from app.yaml_file import SettingsError, resolve

# Parameters of an entry that the provider does not know.
DEPLOYMENT_PARAMS = frozenset({"account", "timeout", "drop_params", "max_parallel_requests", "allowed_fails"})
# Two entries that differ only in these speak to the same account.
NOT_IDENTITY = frozenset({"api_version", "auth_header", "max_tokens", "allowed_buckets", "batch_min_lines"}) | {
    *("aws_batch_role_arn", "s3_encryption_key_id", "s3_output_bucket_name")
}

Number = TypeVar("Number", int, float)


def resolved(settings: Settings) -> tuple[list[Resolved], list[str]]:
    """All entries, and which of their parameters are ignored. Raises SettingsError with the line that is wrong."""
    ignored: list[str] = []
    entries = [Resolved.of(entry, ignored) for entry in (*settings.models, *settings.file_accounts)]
    names = {ALL_MODEL_NAMES, *(entry.model_name for entry in settings.models)}
    for target in settings.options.default_target_model_names:
        if target not in names:
            raise settings.default_targets_place.error(f"default_target_model_names: there is no model_name {target!r}")
    return entries, ignored


@dataclass(frozen=True, slots=True)
class Resolved:
    """An entry whose provider is known and whose parameters are valid."""

    entry: Entry
    kind: ProviderKind
    params: BaseModel
    identity: str
    given_name: str | None
    timeout_seconds: float | None
    drop_params: bool
    max_parallel_requests: int | None
    allowed_fails: int | None

    @classmethod
    def of(cls, entry: Entry, ignored: list[str]) -> Resolved:
        """Check an entry; what it ignores is added to `ignored`. Raises SettingsError."""
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
            _positive(entry, "allowed_fails", int, "a whole number above 0"),
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


def names_of(entries: Iterable[Resolved]) -> dict[str, str]:
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


def limits_of(entries: Iterable[Resolved]) -> dict[str, Limits]:
    """Identity → the account's limits. Raises SettingsError where two of its entries differ in them."""
    max_calls = _agreed(entries, "max_parallel_requests", Limits.max_calls)
    allowed_fails = _agreed(entries, "allowed_fails", Limits.allowed_fails)
    return {identity: Limits(max_calls[identity], allowed_fails[identity]) for identity in max_calls}


def _agreed(entries: Iterable[Resolved], key: str, default: int) -> dict[str, int]:
    """Identity → what the account's entries say of it, where any does."""
    said: dict[str, int] = {}
    for one in entries:
        wanted = getattr(one, key)
        if wanted is not None and said.setdefault(one.identity, wanted) != wanted:
            raise one.entry.place_of(key).error(f"{key} is {said[one.identity]} in another entry of this account")
    return {one.identity: said.get(one.identity, default) for one in entries}
