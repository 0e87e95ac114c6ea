"""filemux.example.yaml: what is commented out in it is valid too, and all of it together is everything there is."""

import json
import re

import pytest
import yaml

from app import deployments, entries, settings
from app.providers.registry import REGISTRY
from tests.readme.markdown import ROOT

# An entry that is commented out: its # is followed by an item or by its indented lines, never by prose.
TEXT = re.sub(r"^  #(?=- |  )", "  ", (ROOT / "filemux.example.yaml").read_text(), flags=re.MULTILINE)
# Provider → what stands in its entries, their comments included.
ENTRIES = {}
for entry in re.split(r"^  - model_name: ", TEXT.partition("files_settings:")[0], flags=re.MULTILINE)[1:]:
    provider = re.search(r"model: (\w+)/", entry)[1]
    ENTRIES[provider] = ENTRIES.get(provider, "") + entry
AUTHORIZED_USER = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "t"}


def test_each_provider_has_a_valid_entry(tmp_path, monkeypatch):
    for name in re.findall(r"os\.environ/(\w+)", TEXT):
        secret = json.dumps(AUTHORIZED_USER) if name.endswith("CREDENTIALS") else "a-secret"
        monkeypatch.setenv(name, "https://example.openai.azure.com" if name.endswith("_BASE") else secret)
    config = tmp_path / "filemux.yaml"
    config.write_text(TEXT)
    found = settings.load(config, settings.Environment(), tmp_path)
    deployments.check(found)
    assert found.ignored == ()
    assert {entry.provider for entry in found.models} == set(REGISTRY)


@pytest.mark.parametrize("provider", ["openai", "azure", "anthropic", "gemini", "vertex_ai", "bedrock"])
def test_each_parameter_is_shown(provider):
    shown = set(re.findall(r"(\w+): ", ENTRIES[provider]))
    assert shown >= set(REGISTRY[provider].params.model_fields)


def test_each_option_of_a_bucket_for_kept_bytes_is_shown_and_valid():
    options = re.search(r"^#   sources:\n((?:#     .*\n)+)", TEXT, re.MULTILINE)[1]
    found = settings.SourceOptions.model_validate(yaml.safe_load(options.replace("#     ", "")))
    assert found.model_fields_set == set(settings.SourceOptions.model_fields)


def test_each_parameter_of_a_deployment_is_shown():
    assert set(re.findall(r"(\w+): ", TEXT)) >= entries.DEPLOYMENT_PARAMS
