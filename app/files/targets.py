"""What an upload asks for: purpose, targets, expiry; from form fields, query parameters and headers.

Pure: the ways of naming are design §5's, and each mistake is its own error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.access.authenticate import Caller
from app.deployments import Account, Deployments
from app.errors import BadRequest, Forbidden, ProviderTooLarge
from app.providers.protocol import PURPOSES, StoragePlace
from app.settings import ALL_MODEL_NAMES

TARGETS = "target_model_names"
TARGETS_HEADER = "x-filemux-target-model-names"
MODEL_HEADERS = ("x-filemux-model", "x-litellm-model", "x-dheera_ai-model")
PROVIDER_PARAMS = ("provider", "custom_llm_provider")
PROVIDER_HEADER = "custom-llm-provider"

MIN_EXPIRY_SECONDS, MAX_EXPIRY_SECONDS = 3600, 2_592_000
# OpenAI deletes batch inputs after 30 days unless told otherwise (openai-python 3.52, files.create).
BATCH_EXPIRY_SECONDS = 2_592_000

_LIST_FIELD = re.compile(r"target_model_names(\[\d*\])?")
# As Bifrost's users send it.
_STORAGE_FIELD = re.compile(r"storage_config\[(s3|gcs)\]\[(bucket|region|prefix)\]")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,12}")
# The SDK sends brackets, Azure's documentation dots (wire.md §2b).
_EXPIRY_FIELD = re.compile(r"expires_after(?:\[(.*)\]|\.(.*))?", re.DOTALL)


class HalfExpiry(BadRequest):
    """expires_after lacks one of its two parts; while the form is being read, it may still come."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An upload's wishes, read from whatever parts of the request are there so far."""

    purpose: str | None
    target_names: tuple[str, ...]
    model: str | None
    provider: str | None
    expires_after_seconds: int | None
    storage: StoragePlace | None = None

    @property
    def complete(self) -> bool:
        """Whether the upload can begin although more fields may follow the file."""
        # What is wrong with a batch's lines is known at their end, where no row tells what to do about it.
        return self.purpose is not None and bool(self.target_names or (self.is_direct and self.purpose != "batch"))

    @property
    def is_direct(self) -> bool:
        """Whether it goes to one account, and no row is made of it."""
        return not self.target_names and bool(self.model or self.provider)


def wanted_from(
    fields: Sequence[tuple[str, str]],
    query: Sequence[tuple[str, str]],
    headers: Mapping[str, str],
    provider: str | None = None,
) -> Wanted:
    """Read the wishes; `provider` is the one that the path names. Raises BadRequest for one that is malformed or
    contradicts another."""
    names = _names(fields) or _names(query) or _split(headers.get(TARGETS_HEADER, ""))
    model = _single(fields, "model") or named_model(query, headers)
    if names and model:
        raise BadRequest(
            f"both {TARGETS} and model are given: {TARGETS} uploads to every model named, model to one account; "
            "send only one of them",
            param="model",
            code="contradicting_targets",
        )
    return Wanted(
        purpose=_purpose(_single(fields, "purpose")),
        target_names=names,
        model=model,
        provider=provider or _provider(fields) or named_provider(query, headers),
        expires_after_seconds=_expiry(fields),
        storage=storage_place(fields) or storage_place(query),
    )


def named_model(query: Sequence[tuple[str, str]], headers: Mapping[str, str]) -> str | None:
    """The model name that a request without a form asks for."""
    return _single(query, "model") or next((found for name in MODEL_HEADERS if (found := headers.get(name))), None)


def named_provider(query: Sequence[tuple[str, str]], headers: Mapping[str, str]) -> str | None:
    """The provider that a request without a form asks for."""
    return _provider(query) or headers.get(PROVIDER_HEADER)


def storage_place(pairs: Iterable[tuple[str, str]]) -> StoragePlace | None:
    """The folder of a bucket that fields or a query name, as `storage_config[s3][bucket]`. Raises BadRequest."""
    given = {match[2]: value.strip() for name, value in pairs if (match := _STORAGE_FIELD.fullmatch(name))}
    if not given:
        return None
    if not given.get("bucket"):
        raise BadRequest("storage_config names no bucket", param="storage_config", code="invalid_storage_config")
    prefix = given.get("prefix", "").strip("/")
    return StoragePlace(given["bucket"], prefix and f"{prefix}/", given.get("region") or None)


def target_accounts(
    wanted: Wanted, caller: Caller, deployments: Deployments, defaults: Sequence[str], *, keeps_sources: bool
) -> dict[str, tuple[str, ...]]:
    """Account name → the target model names there. Raises BadRequest or Forbidden with what would be right."""
    may_use = deployments.names(caller.models)
    names = wanted.target_names or caller.default_targets or tuple(defaults)
    if ALL_MODEL_NAMES in names:
        names = _all_that_take(wanted.purpose, names, may_use, deployments, keeps_sources)
    elif not wanted.target_names:
        names = tuple(name for name in names if name in may_use)
    if not names:
        raise _no_targets(", ".join(may_use) or "none")
    names = tuple(dict.fromkeys(name for one in names for name in _meant(one, may_use, deployments)))
    for name in names:
        check_model_name(name, caller, deployments, TARGETS)
    accounts = deployments.accounts_of(names)
    targets = {deployments.accounts[account]: served for account, served in accounts.items()}
    _check_capabilities(wanted.purpose, targets, keeps_sources)
    return accounts


def _meant(target: str, may_use: Sequence[str], deployments: Deployments) -> tuple[str, ...]:
    """The target, or the model names of the provider's model that it names, as `vertex_ai/gemini-2.0-flash` does:
    LiteLLM's page on managed files shows both."""
    if deployments.of(target):
        return (target,)
    models = {
        name: {f"{one.account.provider_name}/{one.provider_model}" for one in deployments.of(name)} for name in may_use
    }
    return tuple(name for name, its in models.items() if target in its) or (target,)


def check_model_name(name: str, caller: Caller, deployments: Deployments, param: str) -> None:
    """Raise BadRequest or Forbidden for a name that there is not, or not for this caller."""
    usable = ", ".join(deployments.names(caller.models)) or "none"
    if not deployments.of(name):
        reason = f"there is no model name {name!r}; your key may use: {usable}"
        raise BadRequest(reason, param=param, code="unknown_model_name")
    if not caller.may_use(name):
        reason = f"this key may not use the model name {name!r}; it may use: {usable}"
        raise Forbidden(reason, param=param, code="model_name_not_allowed")


def _all_that_take(
    purpose: str | None, asked: Sequence[str], may_use: Sequence[str], deployments: Deployments, keeps_sources: bool
) -> tuple[str, ...]:
    """The model names that a file of this purpose can be for; all of them, and so their error, if there is none."""
    if set(asked) != {ALL_MODEL_NAMES}:
        reason = f"{TARGETS}: {ALL_MODEL_NAMES} stands for every model name that your key may use; send it alone"
        raise BadRequest(reason, param=TARGETS, code="contradicting_targets")
    accounts = {name: {one.account for one in deployments.of(name)} for name in may_use}
    taking = [name for name in may_use if all(_takes(one, purpose) for one in accounts[name])]
    readable = keeps_sources or any(_gives_back(one, purpose) for name in taking for one in accounts[name])
    able = [name for name in taking if readable or all(one.stores_files for one in accounts[name])]
    return tuple(able or may_use)


def _takes(account: Account, purpose: str | None) -> bool:
    """Whether an account stores files of a purpose, if it stores any."""
    return not account.stores_files or purpose is None or purpose in account.provider.capabilities.purposes


def _gives_back(account: Account, purpose: str | None) -> bool:
    return purpose in account.provider.capabilities.readable


def _check_capabilities(purpose: str | None, targets: Mapping[Account, tuple[str, ...]], keeps_sources: bool) -> None:
    """Raise BadRequest for a target that cannot take the file, or has none and would find its bytes nowhere."""
    readable = keeps_sources or any(_gives_back(account, purpose) for account in targets)
    for account, names in targets.items():
        provider = account.provider_name
        if not _takes(account, purpose):
            reason = f"{provider}, behind {names[0]!r}, takes no files of purpose {purpose!r}"
            raise BadRequest(reason, param="purpose", code="purpose_not_supported")
        if not account.stores_files and not readable:
            raise BadRequest(
                f"the model name {names[0]!r} cannot be a target: its provider {provider} has no Files API, and the "
                "gateway keeps no copy that could travel inline (filemux.sources)",
                param=TARGETS,
                code="target_without_files",
            )


def check_size(size_bytes: int, accounts: Mapping[str, tuple[str, ...]], deployments: Deployments) -> None:
    """Raise ProviderTooLarge when a target cannot take a file of this size."""
    for account, targets in accounts.items():
        provider = deployments.accounts[account].provider_name
        capabilities = deployments.accounts[account].provider.capabilities
        limit = capabilities.max_file_bytes
        if capabilities.stores_files and size_bytes > limit:
            reason = f"{provider}, behind {targets[0]!r}, takes files up to {limit} bytes; this one has {size_bytes}"
            raise ProviderTooLarge(reason, param="file")


def _no_targets(usable: str) -> BadRequest:
    return BadRequest(
        f"the upload names no target: send {TARGETS} (a form field, a comma-separated string or repeated; a query "
        f"parameter; or the header {TARGETS_HEADER}), or `model` for one account, or `provider` for a provider's own "
        f"Files API, or have defaults configured; your key may use: {usable}",
        param=TARGETS,
        code="no_targets",
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))


def _names(pairs: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return _split(",".join(value for name, value in pairs if _LIST_FIELD.fullmatch(name)))


def _single(pairs: Iterable[tuple[str, str]], wanted: str) -> str | None:
    values = [value for name, value in pairs if name == wanted]
    if len(values) > 1:
        raise BadRequest(f"`{wanted}` is given {len(values)} times; send it once", param=wanted, code="repeated_field")
    return values[0].strip() or None if values else None


def _provider(pairs: Sequence[tuple[str, str]]) -> str | None:
    return next((found for name in PROVIDER_PARAMS if (found := _single(pairs, name))), None)


def _purpose(value: str | None) -> str | None:
    if value is not None and value not in PURPOSES:
        known = ", ".join(sorted(PURPOSES))
        raise BadRequest(f"{value!r} is no purpose; there are {known}", param="purpose", code="invalid_purpose")
    return value


def _expiry(fields: Sequence[tuple[str, str]]) -> int | None:
    given: dict[str, str] = {}
    for name, value in fields:
        if match := _EXPIRY_FIELD.fullmatch(name):
            given[match[1] or match[2] or ""] = value.strip()
    if not given:
        return None
    if set(given) - {"anchor", "seconds"}:
        raise _bad_expiry("expires_after has only anchor and seconds", "")
    if given.get("anchor", "created_at") != "created_at":
        raise _bad_expiry("expires_after[anchor] must be `created_at`", "anchor")
    seconds = given.get("seconds")
    if seconds is not None and not _in_bounds(seconds):
        bounds = f"between {MIN_EXPIRY_SECONDS} and {MAX_EXPIRY_SECONDS}"
        raise _bad_expiry(f"expires_after[seconds] must be a whole number {bounds}", "seconds")
    if seconds is None or "anchor" not in given:
        part = "seconds" if seconds is None else "anchor"
        raise _bad_expiry(f"expires_after[{part}] is missing", part, HalfExpiry)
    return int(seconds)


def _in_bounds(seconds: str) -> bool:
    return bool(_WHOLE_NUMBER.fullmatch(seconds)) and MIN_EXPIRY_SECONDS <= int(seconds) <= MAX_EXPIRY_SECONDS


def _bad_expiry(reason: str, part: str, kind: type[BadRequest] = BadRequest) -> BadRequest:
    return kind(reason, param=f"expires_after[{part}]" if part else "expires_after", code="invalid_expires_after")
