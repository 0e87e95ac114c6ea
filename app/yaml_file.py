"""A YAML mapping that knows the line of each of its parts, so that a mistake can be told with its place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]
ENVIRONMENT_MARK = "os.environ/"


class _Loader(yaml.SafeLoader):
    """YAML without dates: an API version that looks like one is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  annotated in the parent
        first: [one for one in resolvers if one[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class SettingsError(Exception):
    """A wrong setting: `FILE, line N: where: why`."""

    def __init__(self, reason: str, *, file: Path | str = "environment", line: int | None = None) -> None:
        self.file, self.line, self.reason = str(file), line, reason
        super().__init__(f"{file}, line {line}: {reason}" if line is not None else f"{file}: {reason}")


@dataclass(frozen=True, slots=True)
class Place:
    """A spot in the configuration file."""

    file: str
    line: int | None

    def error(self, reason: str) -> SettingsError:
        """A `SettingsError` that points here."""
        return SettingsError(reason, file=self.file, line=self.line)


def resolve(value: Any, place: Place) -> Any:
    """`os.environ/NAME` → the variable's value; anything else as it is. An unset variable is a `SettingsError`."""
    if not (isinstance(value, str) and value.startswith(ENVIRONMENT_MARK)):
        return value
    name = value.removeprefix(ENVIRONMENT_MARK)
    found = os.environ.get(name)
    if not found:
        raise place.error(f"the environment variable {name} is not set")
    return found


def shown(path: KeyPath) -> str:
    """A path as people write it: `model_list[0].params.api_key`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


@dataclass(frozen=True, slots=True)
class YamlFile:
    """The parsed content, the file's name, and the line of each path."""

    content: Mapping[str, Any]
    file: str
    lines: Mapping[KeyPath, int]

    @classmethod
    def empty(cls) -> YamlFile:
        """What stands for no file at all."""
        return cls({}, "no configuration file", {})

    @classmethod
    def read(cls, path: Path) -> YamlFile:
        """Read a file. Raises SettingsError."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as failure:
            raise SettingsError(f"cannot be read: {failure}", file=path) from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, file: str) -> YamlFile:
        """Parse a text; `file` names it in errors. Raises SettingsError."""
        try:
            node = yaml.compose(text, Loader=_Loader)
            content = yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
        except yaml.MarkedYAMLError as failure:
            line = failure.problem_mark.line + 1 if failure.problem_mark else None
            raise SettingsError(f"not valid YAML: {failure.problem}", file=file, line=line) from None
        except yaml.reader.ReaderError as failure:
            line = text.count("\n", 0, failure.position) + 1
            raise SettingsError(f"not valid YAML: {failure.reason}", file=file, line=line) from None
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
        """A top-level mapping, empty when it is not there. Raises SettingsError."""
        value = self.content.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.place((key,)).error(f"{key} must be a mapping")
        return value

    def text(self, section: str, key: str) -> str | None:
        """A string of a section, looked up in the environment if it says so. Raises SettingsError."""
        value = self.section(section).get(key)
        place = self.place((section, key))
        if value is not None and not isinstance(value, str):
            raise place.error(f"{section}.{key} must be a string")
        found = resolve(value, place)
        return found if found is None else str(found)

    def items(self, key: str) -> list[Mapping[str, Any]]:
        """A top-level list of mappings, empty when it is not there. Raises SettingsError."""
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
                reason = f"{shown((*path, key.value))} is given twice"
                raise SettingsError(reason, file=file, line=key.start_mark.line + 1)
            seen.add(key.value)
            lines[(*path, key.value)] = key.start_mark.line + 1
            _collect_lines(value, (*path, key.value), lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _collect_lines(item, (*path, index), lines, file)
