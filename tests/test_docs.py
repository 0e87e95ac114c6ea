"""Whatever a user can call or set is named in the README or in docs/."""

import re
from pathlib import Path

import click
import pytest

from app import routes
from app.cli import commands
from app.providers.registry import REGISTRY
from app.settings import Environment, Options, Sources

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(path.read_text() for path in DOCS)


def command_lines(group=commands, *names):
    found = []
    for name, command in group.commands.items():
        is_group = isinstance(command, click.Group)
        found += command_lines(command, *names, name) if is_group else [" ".join((*names, name))]
    return found


def paths():
    """Routes as people write them: `/files/{id}` for /files/{file_id}."""
    found = {re.sub(r"\{\w+(:path)?\}", "{id}", route.path) for route in routes.ROUTES}
    return sorted(found - {"/deployments/{id}/chat/completions"})


def is_named(words):
    return re.search(rf"(?<![\w-]){re.escape(words)}(?![\w-])", TEXT)


@pytest.mark.parametrize("words", command_lines())
def test_every_command_is_named(words):
    names = words.split()
    # `filemux teams create|list|update` names three.
    either = rf"filemux {' '.join(names[:-1])} ?(\S*\|)*{names[-1]}\b"
    assert re.search(either, TEXT), f"filemux {words}"


@pytest.mark.parametrize("path", paths())
def test_every_route_is_named(path):
    assert re.search(re.escape(path).replace(r"\{id\}", r"\{\w+\}") + r"(?![\w/{])", TEXT), path


@pytest.mark.parametrize("name", [*Options.model_fields, *(f"{name}" for name in Sources.model_fields)])
def test_every_option_is_named(name):
    assert is_named(name), name


@pytest.mark.parametrize("name", [name.upper() for name in Environment.model_fields])
def test_every_variable_is_named(name):
    assert is_named(name), name


@pytest.mark.parametrize("name", REGISTRY)
def test_every_provider_is_named(name):
    assert is_named(name), name


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text())
    missing = [link for link in links if not (path.parent / link).exists()]
    assert missing == []
