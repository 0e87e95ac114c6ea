"""YAML and environment → one frozen `Settings`; every mistake is told with file, line and reason.

What a provider's parameters mean is the registry's business (`app.deployments` asks it); here an entry keeps its
parameters as the file writes them, together with the lines they stand on.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PARAMS_SPELLINGS = ("params", "litellm_params", "dheera_ai_params")
ENVIRONMENT_MARK = "os.environ/"
DEFAULT_PROVIDER = "openai"

KeyPath = tuple[str | int, ...]


class SettingsError(Exception):
    """A wrong setting: `FILE, line N: where: why`."""

    def __init__(self, reason: str, *, file: Path | str = "environment", line: int | None = None) -> None:
        self.file, self.line, self.reason = str(file), line, reason
        super().__init__(f"{file}, line {line}: {reason}" if line is not None else f"{file}: {reason}")


class Environment(BaseSettings):
    """The environment variables that filemux reads; each wins over the file."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    database_url: str | None = None
    filemux_config: Path | None = None
    filemux_data_dir: Path | None = None
    filemux_master_key: SecretStr | None = None
    filemux_secret_key: SecretStr | None = None


class Sources(BaseModel):
    """Where an upload's bytes are kept after the fan-out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: Literal["disk", "s3", "none"] = "disk"
    bucket: str | None = None
    region: str | None = None
    prefix: str = ""
    endpoint_url: str | None = None


class Options(BaseModel):
    """The `filemux:` section."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: Sources = Sources()
    upload_policy: Literal["all", "any"] = "all"
    max_file_bytes: int = Field(default=512 * 1024 * 1024, ge=1)
    default_target_model_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """A spot in the configuration file."""

    file: str
    line: int | None

    def error(self, reason: str) -> SettingsError:
        """A `SettingsError` that points here."""
        return SettingsError(reason, file=self.file, line=self.line)


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
    secret_key: SecretStr | None = None
    ignored: tuple[str, ...] = ()
    # Where to point when a default target turns out not to be a model name.
    default_targets_place: Place = Place("no configuration file", None)


def load(config: Path | None, environment: Environment, default_data_dir: Path) -> Settings:
    """Read the configuration file (if any) and the environment.

    Raises `SettingsError` at the first thing that is wrong.
    """
    document = _Document.read(config) if config else _Document.empty()
    return from_document(document, environment, default_data_dir)


def from_mapping(content: Mapping[str, Any], environment: Environment, default_data_dir: Path) -> Settings:
    """The same for a configuration that is made in the process, as the sandbox's is."""
    text = yaml.safe_dump(dict(content), sort_keys=False)
    return from_document(_Document.parse(text, "sandbox configuration"), environment, default_data_dir)


def from_document(document: _Document, environment: Environment, default_data_dir: Path) -> Settings:
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
        secret_key=environment.filemux_secret_key,
        ignored=tuple(ignored),
        default_targets_place=document.place(("filemux", "default_target_model_names")),
    )


def resolve(value: Any, place: Place) -> Any:
    """`os.environ/NAME` → the variable's value; anything else as it is. An unset variable is a `SettingsError`."""
    if not (isinstance(value, str) and value.startswith(ENVIRONMENT_MARK)):
        return value
    name = value.removeprefix(ENVIRONMENT_MARK)
    found = os.environ.get(name)
    if not found:
        raise place.error(f"the environment variable {name} is not set")
    return found


def kept_secret(path: Path) -> tuple[str, bool]:
    """A secret that is made once and kept in a file of mode 0600; returns it and whether it is new."""
    try:
        return path.read_text().strip(), False
    except FileNotFoundError:
        secret = "sk-" + secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
    return secret, True


def _secret(text: str | None) -> SecretStr | None:
    return SecretStr(text) if text else None


def _model_entries(document: _Document, ignored: list[str]) -> Iterator[Entry]:
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


def _params_spelling(document: _Document, path: KeyPath, item: Mapping[str, Any]) -> str:
    found = [spelling for spelling in PARAMS_SPELLINGS if spelling in item]
    if len(found) != 1:
        spellings = ", ".join(PARAMS_SPELLINGS)
        raise document.place(path).error(f"{_shown(path)} needs exactly one of {spellings}; it has {len(found)}")
    if not isinstance(item[found[0]], Mapping):
        raise document.place((*path, found[0])).error(f"{_shown((*path, found[0]))} must be a mapping")
    return found[0]


def _file_entries(document: _Document) -> Iterator[Entry]:
    for index, item in enumerate(document.items("files_settings")):
        path: KeyPath = ("files_settings", index)
        if not isinstance(item.get("custom_llm_provider"), str):
            raise document.place(path).error(f"files_settings[{index}] needs a custom_llm_provider")
        yield _entry(document, path, dict(item), model_name=None)


def _entry(document: _Document, path: KeyPath, params: dict[str, Any], model_name: str | None) -> Entry:
    place = document.place(path)
    model = params.pop("model", "") or ""
    provider = params.pop("custom_llm_provider", None)
    if model_name is not None and not (isinstance(model, str) and model):
        raise place.error(f"{_shown(path)} needs a model, such as openai/gpt-4o-mini")
    if provider is None:
        provider, _, rest = model.partition("/")
        provider, model = (provider, rest) if rest else (DEFAULT_PROVIDER, model)
    else:
        model = model.removeprefix(f"{provider}/")
    places = {key: document.place((*path, key)) for key in (*params, "model", "custom_llm_provider")}
    return Entry(provider, model, params, path[-1] == "params", place, places, model_name)


def _options(document: _Document) -> Options:
    section = document.section("filemux")
    resolved = {key: resolve(value, document.place(("filemux", key))) for key, value in section.items()}
    try:
        return Options.model_validate(resolved)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        path: KeyPath = ("filemux", *first["loc"])
        raise document.place(path).error(f"{_shown(path)}: {explain(first)}") from None


def explain(problem: Mapping[str, Any]) -> str:
    """One of pydantic's errors in words, without the input (which may be a secret)."""
    if problem["type"] == "extra_forbidden":
        return "this key does not exist"
    if problem["type"] == "missing":
        return "this key is required"
    return str(problem["msg"])


def _shown(path: KeyPath) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


@dataclass(frozen=True, slots=True)
class _Document:
    """A YAML mapping that knows the line of each of its parts."""

    content: Mapping[str, Any]
    file: str
    lines: Mapping[KeyPath, int]

    @classmethod
    def empty(cls) -> _Document:
        return cls({}, "no configuration file", {})

    @classmethod
    def read(cls, path: Path) -> _Document:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as failure:
            raise SettingsError(f"cannot be read: {failure}", file=path) from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, file: str) -> _Document:
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            content = yaml.safe_load(text)
        except yaml.MarkedYAMLError as failure:
            line = failure.problem_mark.line + 1 if failure.problem_mark else None
            raise SettingsError(f"not valid YAML: {failure.problem}", file=file, line=line) from None
        if content is None:
            return cls({}, file, {})
        if not isinstance(content, dict) or node is None:
            raise SettingsError("must be a mapping with keys such as model_list", file=file, line=1)
        lines: dict[KeyPath, int] = {}
        _collect_lines(node, (), lines, file)
        return cls(content, file, lines)

    def place(self, path: KeyPath) -> Place:
        """The line of the deepest part of `path` that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return Place(self.file, self.lines.get(path))

    def section(self, key: str) -> Mapping[str, Any]:
        value = self.content.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.place((key,)).error(f"{key} must be a mapping")
        return value

    def text(self, section: str, key: str) -> str | None:
        value = self.section(section).get(key)
        place = self.place((section, key))
        if value is not None and not isinstance(value, str):
            raise place.error(f"{section}.{key} must be a string")
        found = resolve(value, place)
        return found if found is None else str(found)

    def items(self, key: str) -> list[Mapping[str, Any]]:
        value = self.content.get(key) or []
        if not isinstance(value, list):
            raise self.place((key,)).error(f"{key} must be a list")
        for index, item in enumerate(value):
            if not isinstance(item, dict):
                raise self.place((key, index)).error(f"{key}[{index}] must be a mapping")
        return value


def _collect_lines(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], file: str) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                reason = f"{_shown((*path, key.value))} is given twice"
                raise SettingsError(reason, file=file, line=key.start_mark.line + 1)
            seen.add(key.value)
            lines[(*path, key.value)] = key.start_mark.line + 1
            _collect_lines(value, (*path, key.value), lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _collect_lines(item, (*path, index), lines, file)
