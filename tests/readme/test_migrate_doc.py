"""docs/migrate.md: its commands and its configuration are taken, and it names every reason that the import gives."""

import re
import shlex
from pathlib import Path

import click
import pytest

from app import deployments, settings
from app.cli import commands
from app.files.imported import litellm, take_over
from app.settings import Environment
from app.yaml_file import YamlFile
from tests.readme.markdown import ROOT, blocks, tables

PAGE = ROOT / "docs" / "migrate.md"
COMMANDS = [line for line in blocks(PAGE, "bash")[0].splitlines() if line.startswith("filemux ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_is_taken(line):
    name, *arguments = shlex.split(line, comments=True)[1:]
    command = commands.get_command(click.Context(commands), name)
    command.make_context(name, arguments)


def test_the_configuration_is_taken(tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, "a-key")
    [block] = blocks(PAGE, "yaml")
    found = settings.from_document(YamlFile.parse(block, "migrate.md"), Environment(), tmp_path)
    deployments.check(found)
    assert set(deployments.account_names(found).values()) == {"openai", "anthropic", "gemini", "bedrock"}


def test_each_reason_of_the_import_is_explained():
    documented = {row[0].strip("`").removesuffix(" …") for row in tables(PAGE, "What the import does")[0][1:]}
    sources = "".join(Path(module.__file__).read_text() for module in (litellm, take_over))
    given = {reason.partition(" {")[0] for reason in re.findall(r'NotImportable\(f?"(.+?)"\)', sources)}
    assert documented == given - {"all its model ids are left out by --map"}
