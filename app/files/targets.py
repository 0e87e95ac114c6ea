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
from app.providers.protocol import PURPOSES
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

    @property
    def complete(self) -> bool:
        """Whether the fan-out can begin although more fields may follow the file."""
        return self.purpose is not None and bool(self.target_names)


def wanted_from(
    fields: Sequence[tuple[str, str]], query: Iterable[tuple[str, str]], headers: Mapping[str, str]
) -> Wanted:
    """Read the wishes. Raises BadRequest for one that is malformed or contradicts another."""
    query = list(query)
    names = _names(fields) or _names(query) or _split(headers.get(TARGETS_HEADER, ""))
    model = _single(fields, "model") or _single(query, "model") or _first_header(headers, MODEL_HEADERS)
    provider = next((found for name in PROVIDER_PARAMS if (found := _single(fields, name))), None)
    provider = provider or next((found for name in PROVIDER_PARAMS if (found := _single(query, name))), None)
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
        provider=provider or headers.get(PROVIDER_HEADER),
        expires_after_seconds=_expiry(fields),
    )


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
    usable = ", ".join(may_use) or "none"
    if not names:
        raise _no_targets(wanted, usable)
    for name in names:
        if not deployments.of(name):
            reason = f"there is no model name {name!r}; your key may use: {usable}"
            raise BadRequest(reason, param=TARGETS, code="unknown_model_name")
        if not caller.may_use(name):
            reason = f"this key may not use the model name {name!r}; it may use: {usable}"
            raise Forbidden(reason, param=TARGETS, code="model_name_not_allowed")
    accounts = deployments.accounts_of(names)
    targets = {deployments.accounts[account]: served for account, served in accounts.items()}
    _check_capabilities(wanted.purpose, targets, keeps_sources)
    return accounts


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


def _no_targets(wanted: Wanted, usable: str) -> BadRequest:
    if wanted.model or wanted.provider:
        way = "model" if wanted.model else "provider"
        return BadRequest(
            f"uploads to a single account, named by {way}, are not available in this version; name the model in "
            f"{TARGETS} instead",
            param=way,
            code="not_available",
        )
    return BadRequest(
        f"the upload names no target: send {TARGETS} (a form field, a comma-separated string or repeated; a query "
        f"parameter; or the header {TARGETS_HEADER}), or have defaults configured; your key may use: {usable}",
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


def _first_header(headers: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((found for name in names if (found := headers.get(name))), None)


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
