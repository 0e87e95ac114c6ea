"""`filemux demo`: the whole story in one run; exit status 0 only if every step held."""

import re

import pytest

from app.sandbox.config import sandbox_configuration
from tests.support.processes import run_cli

MODEL_NAMES = [entry["model_name"] for entry in sandbox_configuration("")["model_list"]]


@pytest.mark.parametrize("content", [None, "Größe, 你好\n" * 1000], ids=["sample", "own file"])
def test_every_step_holds(tmp_path, content):
    arguments = []
    if content:
        # A name that would be markup.
        arguments = [tmp_path / "[red] résumé.txt"]
        arguments[0].write_text(content)
    # What configures another gateway must not reach the demo's.
    foreign = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "FILEMUX_CONFIG": "/none.yaml"}
    done = run_cli("demo", *arguments, **foreign)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every step held" in done.stdout
    assert "✗" not in done.stdout
    for name in MODEL_NAMES:
        assert f"✓ chat with {name}" in done.stdout
    assert re.search(r"file-mux-[0-9a-f]{32}  \d+ bytes", done.stdout)
    assert done.stdout.count("stored") == len(MODEL_NAMES)
    assert "✓ no provider holds anything" in done.stdout


def test_a_file_that_does_not_exist_is_told(tmp_path):
    done = run_cli("demo", tmp_path / "none.pdf")
    assert done.returncode == 2
    assert "does not exist" in done.stderr


def test_an_empty_file_is_a_step_that_failed(tmp_path):
    (tmp_path / "empty.txt").touch()
    done = run_cli("demo", tmp_path / "empty.txt")
    assert done.returncode == 1
    assert "a step failed" in done.stdout
    assert "the file is empty" in done.stdout
    assert "Traceback" not in done.stderr
