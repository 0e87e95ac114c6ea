"""`filemux files`: the same life of a file at the command line."""

import json

import pytest
import yaml

from tests.conftest import configuration
from tests.support.processes import run_cli
from tests.support.sandbox import eventually

PDF = b"%PDF-1.4 from the command line\n"


@pytest.fixture
def files(sandbox, database_url, tmp_path):
    """`filemux files ARGUMENTS` on the tests' database and sandbox; a CompletedProcess."""
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(configuration(sandbox.url)))

    def run(*arguments):
        return run_cli("files", *arguments, "--config", config, DATABASE_URL=database_url, FILEMUX_DATA_DIR=tmp_path)

    return run


def test_a_file_is_uploaded_shown_listed_and_deleted(files, clients, sandbox, tmp_path):
    team = clients.new_team()
    path = tmp_path / "report.pdf"
    path.write_bytes(PDF)
    made = json.loads(files("upload", path, "--target", "mini", "--target", "azure", "--team", team, "--json").stdout)
    assert (made["filename"], made["bytes"], made["mime_type"]) == ("report.pdf", len(PDF), "application/pdf")
    assert {(one["provider"], one["bytes"]) for one in sandbox.files} == {("openai", len(PDF)), ("azure", len(PDF))}
    assert json.loads(files("list", "--team", team, "--json").stdout) == [made]
    shown = json.loads(files("show", made["id"], "--json").stdout)
    assert {(*one["model_names"], one["state"]) for one in shown} == {("mini", "stored"), ("azure", "stored")}
    assert "is deleted" in files("delete", made["id"]).stdout
    assert eventually(lambda: not sandbox.files)
    assert json.loads(files("list", "--team", team, "--json").stdout) == []


def test_what_is_wrong_is_told_in_a_line(files, sandbox, tmp_path):
    path = tmp_path / "report.pdf"
    path.write_bytes(PDF)
    refused = files("upload", path, "--target", "nobody")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines()[-1].startswith("filemux: there is no model name 'nobody'")
    assert files("show", "file-mux-" + "0" * 32).stderr.splitlines()[-1].startswith("filemux: No such File object")
    sandbox.fault("openai", "upload_file", status=400)
    assert "mini (openai): " in files("upload", path, "--target", "mini").stderr
    assert not sandbox.files


def test_two_accounts_are_not_renamed_into_one(files, database_url, tmp_path):
    path = tmp_path / "report.pdf"
    path.write_bytes(PDF)
    files("upload", path, "--target", "pair")
    environment = {"DATABASE_URL": database_url, "FILEMUX_DATA_DIR": tmp_path}
    refused = run_cli("accounts", "rename", "openai-first", "openai-second", **environment)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "filemux: files are at both 'openai-first' and 'openai-second': these are two accounts\n"
