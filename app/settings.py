"""YAML and environment → one frozen `Settings`; every mistake is told with file, line and reason.

What a provider's parameters mean is the registry's business (`app.deployments` asks it); here an entry keeps its
parameters as the file writes them, together with the lines they stand on.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.yaml_file import KeyPath, Place, SettingsError, YamlFile, resolve, shown

PARAMS_SPELLINGS = ("params", "litellm_params", "dheera_ai_params")
DEFAULT_PROVIDER = "openai"
# As a target: every model name that the key may use.
ALL_MODEL_NAMES = "*"
# What is sealed is read by everybody who has it, and a secret that can be guessed could be found out from it.
MIN_SECRET_KEY_LENGTH = 16


class Environment(BaseSettings):
    """The environment variables that filemux reads; each wins over the file."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    database_url: str | None = None
    filemux_config: Path | None = None
    filemux_data_dir: Path | None = None
    filemux_master_key: SecretStr | None = None
    filemux_secret_key: SecretStr | None = None


class SourceOptions(BaseModel):
    """Where files' bytes are kept. All but `store` is for s3, and only `bucket` is needed there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: Literal["disk", "s3", "none"] = "disk"
    bucket: str | None = Field(default=None, min_length=1)
    region: str | None = Field(default=None, pattern=r"^[a-z0-9-]+$")
    prefix: str = "filemux-sources/"
    endpoint_url: str | None = Field(default=None, pattern=r"^https?://[^/]")
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    server_side_encryption: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: str | None = None

    @field_validator("prefix")
    @classmethod
    def _is_folder(cls, text: str) -> str:
        return f"{text.strip('/')}/".lstrip("/")

    @field_validator("endpoint_url")
    @classmethod
    def _ends_without_slash(cls, text: str | None) -> str | None:
        return text and text.rstrip("/")

    @model_validator(mode="after")
    def _is_one_store(self) -> Self:
        of_s3 = sorted(self.model_fields_set - {"store"})
        if self.store != "s3" and of_s3:
            raise ValueError(f"{', '.join(of_s3)}: only with store: s3, not with store: {self.store}")
        if self.store == "s3" and self.bucket is None:
            raise ValueError("store: s3 needs a bucket")
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key belong together")
        if self.kms_key_id and self.server_side_encryption != "aws:kms":
            raise ValueError("kms_key_id needs server_side_encryption: aws:kms")
        return self


class Options(BaseModel):
    """The `filemux:` section."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: SourceOptions = SourceOptions()
    upload_policy: Literal["all", "any"] = "all"
    max_file_bytes: int = Field(default=512 * 1024 * 1024, ge=1)
    default_target_model_names: tuple[str, ...] = ()
    refresh: Literal["ahead", "on_demand"] = "ahead"
    # Take LiteLLM's stateless ids, which anybody can make, for what they say.
    accept_litellm_ids: bool = False
    # How long running requests may go on after SIGTERM.
    drain_seconds: int = Field(default=30, ge=0)

    @field_validator("default_target_model_names")
    @classmethod
    def _all_are_named_alone(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if ALL_MODEL_NAMES in names and len(names) > 1:
            raise ValueError(f"{ALL_MODEL_NAMES} stands for all model names; write it alone")
        return names


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of `model_list` or `files_settings`, its parameters as the file writes them.

    `model_name` is None for `files_settings`. `strict` says whether an unknown parameter stops the start (our own
    spelling, `params`) or is listed in the warning (another gateway's file).
    """

    provider: str
    provider_model: str
    params: Mapping[str, Any]
    strict: bool
    place: Place
    places: Mapping[str, Place] = field(repr=False)
    model_name: str | None = None

    def place_of(self, param: str) -> Place:
        """Where the parameter stands, or else where its entry begins."""
        return self.places.get(param, self.place)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that was configured; `ignored` are the foreign keys that one warning lists."""

    data_dir: Path
    models: tuple[Entry, ...] = ()
    file_accounts: tuple[Entry, ...] = ()
    options: Options = Options()
    database_url: str | None = None
    master_key: SecretStr | None = None
    # They seal stateless ids: the first seals, each opens.
    secret_keys: tuple[SecretStr, ...] = ()
    ignored: tuple[str, ...] = ()
    # Where to point when a default target turns out not to be a model name.
    default_targets_place: Place = Place("no configuration file", None)


def load(config: Path | None, environment: Environment, default_data_dir: Path) -> Settings:
    """Read the configuration file (if any) and the environment.

    Raises `SettingsError` at the first thing that is wrong.
    """
    document = YamlFile.read(config) if config else YamlFile.empty()
    return from_document(document, environment, default_data_dir)


def from_mapping(content: Mapping[str, Any], environment: Environment, default_data_dir: Path) -> Settings:
    """The same for a configuration that is made in the process, as the sandbox's is."""
    text = yaml.safe_dump(dict(content), sort_keys=False)
    return from_document(YamlFile.parse(text, "sandbox configuration"), environment, default_data_dir)


def from_document(document: YamlFile, environment: Environment, default_data_dir: Path) -> Settings:
    """Read the sections of a parsed document."""
    ignored: list[str] = []
    general = document.section("general_settings")
    ignored += [f"general_settings.{key}" for key in general if key not in ("master_key", "database_url")]
    known = {"model_list", "files_settings", "general_settings", "filemux"}
    ignored += [str(key) for key in document.content if key not in known]
    database_url = environment.database_url or document.text("general_settings", "database_url")
    master_key = environment.filemux_master_key or _secret(document.text("general_settings", "master_key"))
    return Settings(
        data_dir=(environment.filemux_data_dir or default_data_dir).expanduser().absolute(),
        models=tuple(_model_entries(document, ignored)),
        file_accounts=tuple(_file_entries(document)),
        options=_options(document),
        database_url=database_url,
        master_key=master_key,
        secret_keys=_secret_keys(environment.filemux_secret_key),
        ignored=tuple(ignored),
        default_targets_place=document.place(("filemux", "default_target_model_names")),
    )


def kept_secret(path: Path) -> tuple[str, bool]:
    """A secret that is made once and kept in a file of mode 0600; returns it and whether it is new.

    Raises SettingsError where the file holds none that is worth the name.
    """
    new = not path.exists() and _make_secret(path)
    secret = path.read_text().strip()
    if len(secret) < MIN_SECRET_KEY_LENGTH:
        raise SettingsError(
            f"must hold a secret of {MIN_SECRET_KEY_LENGTH} characters at least; without the file, one is made",
            file=path,
        )
    return secret, new


def _make_secret(path: Path) -> bool:
    """Put a new secret there, whole or not at all; False when another process was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f"{path.name}.") as file:
        file.write(f"sk-{secrets.token_urlsafe(32)}\n")
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(file.name, path)
        except FileExistsError:
            return False
    return True


def _secret(text: str | None) -> SecretStr | None:
    return SecretStr(text) if text else None


def _secret_keys(given: SecretStr | None) -> tuple[SecretStr, ...]:
    """Those of FILEMUX_SECRET_KEY, which commas separate."""
    keys = given.get_secret_value().split(",") if given else []
    found = tuple(SecretStr(key.strip()) for key in keys if key.strip())
    if any(len(key) < MIN_SECRET_KEY_LENGTH for key in found):
        raise SettingsError(f"FILEMUX_SECRET_KEY: each secret must have {MIN_SECRET_KEY_LENGTH} characters at least")
    return found


def _model_entries(document: YamlFile, ignored: list[str]) -> Iterator[Entry]:
    for index, item in enumerate(document.items("model_list")):
        path: KeyPath = ("model_list", index)
        name = item.get("model_name")
        if not isinstance(name, str) or not name.strip():
            raise document.place(path).error(f"model_list[{index}] needs a model_name")
        if "," in name or name != name.strip():
            # target_model_names is a comma-separated string.
            reason = f"model_name {name!r} may not contain commas or begin or end with spaces"
            raise document.place((*path, "model_name")).error(reason)
        spelling = _params_spelling(document, path, item)
        allowed = {"model_name", "model_info", spelling}
        ignored += [f"model_list[{index}].{key}" for key in item if key not in allowed]
        yield _entry(document, (*path, spelling), dict(item[spelling]), model_name=name)


def _params_spelling(document: YamlFile, path: KeyPath, item: Mapping[str, Any]) -> str:
    found = [spelling for spelling in PARAMS_SPELLINGS if spelling in item]
    if len(found) != 1:
        spellings = ", ".join(PARAMS_SPELLINGS)
        raise document.place(path).error(f"{shown(path)} needs exactly one of {spellings}; it has {len(found)}")
    if not isinstance(item[found[0]], Mapping):
        raise document.place((*path, found[0])).error(f"{shown((*path, found[0]))} must be a mapping")
    return found[0]


def _file_entries(document: YamlFile) -> Iterator[Entry]:
    for index, item in enumerate(document.items("files_settings")):
        path: KeyPath = ("files_settings", index)
        if not isinstance(item.get("custom_llm_provider"), str):
            raise document.place(path).error(f"files_settings[{index}] needs a custom_llm_provider")
        yield _entry(document, path, dict(item), model_name=None)


def _entry(document: YamlFile, path: KeyPath, params: dict[str, Any], model_name: str | None) -> Entry:
    place = document.place(path)
    model = params.pop("model", "") or ""
    provider = params.pop("custom_llm_provider", None)
    if model_name is not None and not (isinstance(model, str) and model):
        raise place.error(f"{shown(path)} needs a model, such as openai/gpt-4o-mini")
    if provider is None:
        provider, _, rest = model.partition("/")
        provider, model = (provider, rest) if rest else (DEFAULT_PROVIDER, model)
    else:
        model = model.removeprefix(f"{provider}/")
    places = {key: document.place((*path, key)) for key in (*params, "model", "custom_llm_provider")}
    return Entry(provider, model, params, path[-1] == "params", place, places, model_name)


def _options(document: YamlFile) -> Options:
    section = document.section("filemux")
    try:
        return Options.model_validate(_resolved(document, ("filemux",), section))
    except ValidationError as invalid:
        first = invalid.errors()[0]
        path: KeyPath = ("filemux", *first["loc"])
        raise document.place(path).error(f"{shown(path)}: {explain(first)}") from None


def _resolved(document: YamlFile, path: KeyPath, value: Any) -> Any:
    """The value with what it takes from the environment."""
    if isinstance(value, dict):
        return {key: _resolved(document, (*path, key), one) for key, one in value.items()}
    return resolve(value, document.place(path))


def explain(problem: Mapping[str, Any]) -> str:
    """One of pydantic's errors in words, without the input (which may be a secret)."""
    if problem["type"] == "extra_forbidden":
        return "this key does not exist"
    if problem["type"] in ("model_type", "model_attributes_type"):
        return "must be an object"
    if problem["type"] == "missing":
        return "this key is required"
    return str(problem["msg"])
