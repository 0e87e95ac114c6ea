"""The documentation names what there is, and nothing that is not there."""

import importlib
import re
from operator import attrgetter

import click
import pytest
from prometheus_client import REGISTRY as METRICS

import app.main  # noqa: F401  its rooms register their metrics
from app import deployments, entries, routes, settings
from app.cli import commands
from tests.readme.markdown import README, ROOT, blocks, tables
from tests.test_architecture import LAYERS

PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
ARCHITECTURE = ROOT / "docs" / "architecture.md"


def readme_names(name):
    return f"`{name}`" in README.read_text()


def command_names(command=commands, name="filemux"):
    """Every command that does something, such as `filemux keys list`."""
    if not isinstance(command, click.Group):
        return [name]
    subs = [command.get_command(None, sub) for sub in command.list_commands(None)]
    return [one for sub in subs for one in command_names(sub, f"{name} {sub.name}")]


@pytest.mark.parametrize("name", command_names())
def test_each_command_is_in_the_readme(name):
    assert readme_names(name) or re.search(rf"`{name} ", README.read_text())


def test_the_readme_has_exactly_the_routes():
    documented = re.findall(r"`((?:GET|POST|DELETE) /\S*)`", "\n".join(row[0] for row in tables(README, "HTTP")[0]))
    built = [f"{verb} {_plain(route.path)}" for route in routes.ROUTES for verb in route.methods - {"HEAD"}]
    assert sorted(documented) == sorted(built)


def _plain(path):
    return path.replace(":path}", "}")


@pytest.mark.parametrize("name", settings.Options.model_fields)
def test_each_setting_is_in_the_readme(name):
    assert readme_names(f"filemux.{name}")


@pytest.mark.parametrize(
    "name",
    [*settings.SourceOptions.model_fields, *settings.PARAMS_SPELLINGS[1:], *sorted(entries.DEPLOYMENT_PARAMS)],
)
def test_each_part_of_a_setting_is_in_the_readme(name):
    assert readme_names(name)


@pytest.mark.parametrize("name", settings.Environment.model_fields)
def test_each_environment_variable_is_in_the_readme(name):
    assert readme_names(name.upper())


def test_the_readme_has_exactly_the_metrics():
    documented = {row[0].strip("`") for table in tables(README, "Operations") for row in table[1:]}
    built = {_exposed(metric) for metric in METRICS.collect() if metric.name.startswith("filemux_")}
    # Two gauges are made when they are scraped.
    assert {name for name in documented if name.startswith("filemux_")} == built | {
        "filemux_replicas",
        "filemux_backlog",
        "filemux_blocked",
    }


def _exposed(metric):
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


@pytest.mark.parametrize("number", range(len(blocks(README, "yaml"))))
def test_the_readmes_configurations_are_valid(number, tmp_path, monkeypatch):
    text = blocks(README, "yaml")[number]
    for name in {*re.findall(r"os\.environ/(\w+)", text), "ANTHROPIC_API_KEY"}:
        monkeypatch.setenv(name, "a-secret")
    config = tmp_path / "filemux.yaml"
    config.write_text(text)
    found = settings.load(config, settings.Environment(), tmp_path)
    deployments.check(found)
    assert found.ignored == ()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text()):
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", one).lower().replace(" ", "-") for one in headings]


def test_the_architecture_names_what_there_is():
    text = ARCHITECTURE.read_text()
    named = re.findall(r"`(app/[\w/]+)\.py::([\w.]+)`", text)
    assert len(named) > 20
    for module, attribute in named:
        attrgetter(attribute)(importlib.import_module(module.replace("/", ".")))
    for path in re.findall(r"`((?:app|migrations|tests)/[\w/.]*)`", text):
        assert (ROOT / path).exists(), path


def test_the_architecture_shows_the_layers():
    drawn = blocks(ARCHITECTURE, "")
    assert "".join(f"{' · '.join(rooms.split())}\n" for rooms in LAYERS) in drawn
