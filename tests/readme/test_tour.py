"""The README's tour, block by block and unchanged, as its reader would run it."""

import contextlib
import hashlib
import re
import shutil
import subprocess
import sys

import pytest

from app.sandbox import sample_path
from tests.readme.markdown import README, blocks
from tests.support.processes import Gateway, clean_environment
from tests.support.sandbox import Switchboard, eventually

NODE_SDK = "openai@7.55.0"
SHA256 = hashlib.sha256(sample_path().read_bytes()).hexdigest()


class Tour:
    """A directory with report.pdf, and the environment that the README has its reader make."""

    def __init__(self, directory, gateway, key):
        self.directory, self.url, self.key = directory, gateway.url, key
        self._environment = clean_environment(OPENAI_BASE_URL=f"{gateway.url}/v1", OPENAI_API_KEY=key)
        shutil.copy(sample_path(), directory / "report.pdf")

    def run(self, command, filename, content):
        """Save a block under this name and run it; what it prints."""
        script = self.directory / filename
        script.write_text(content)
        done = subprocess.run(
            [*command, script],
            env=self._environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, database_url):
    """`make serve`, but on the tests' database."""
    with Gateway("--sandbox", FILEMUX_DATA_DIR=tmp_path_factory.mktemp("data"), DATABASE_URL=database_url) as running:
        yield running


@pytest.fixture
def tour(gateway, tmp_path):
    said = "\n".join(gateway.said)
    key = re.search(r"new master key.* (sk-\S+)", said)[1]
    yield Tour(tmp_path, gateway, key)
    sandbox_url = re.search(r"sandbox listening on (\S+)", said)[1]
    with contextlib.closing(Switchboard(sandbox_url)) as sandbox:
        assert eventually(lambda: not sandbox.files)


def test_python(tour):
    _check(tour.run([sys.executable], "tour.py", blocks(README, "python")[0]), answers=6, deleted="True")


def test_the_example_of_the_unified_file_id(tour):
    block = blocks(README, "python")[1].replace("http://127.0.0.1:4000", tour.url).replace("sk-1234", tour.key)
    _check(tour.run([sys.executable], "unified.py", block), answers=2, deleted="True")


def test_files_at_one_account(tour):
    [block] = [one for one in blocks(README, "python") if "sealed" in one]
    name, deleted, described, listed, deleted_too = tour.run([sys.executable], "direct.py", block).splitlines()
    own_id, size_bytes = described.split()
    assert (name, deleted, deleted_too, listed) == ("report.pdf", "True", "True", f"['{own_id}']")
    assert own_id.startswith("s3://") and int(size_bytes) > 0


def test_batches(tour):
    [block] = [one for one in blocks(README, "python") if "batches.create" in one]
    said = tour.run([sys.executable], "batches.py", block).splitlines()
    models = ("gpt-4o-mini-openai", "claude-sonnet", "gemini-2.0-flash")
    assert (said[0], said[-1]) == ("completed 9", "True")
    assert sorted(said[1:-1]) == sorted(f"{model}-{number} Say {number}" for model in models for number in range(3))


def test_node(tour):
    if shutil.which("npm") is None:
        pytest.skip("there is no npm")
    install = [
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
        "--fetch-retries=0",
        "--fetch-timeout=60000",
    ]
    installed = subprocess.run(
        [*install, NODE_SDK], cwd=tour.directory, capture_output=True, text=True, timeout=600, check=False
    )
    if installed.returncode != 0:
        pytest.skip(f"npm does not get {NODE_SDK}: {installed.stderr[-300:]}")
    [block] = blocks(README, "js")
    _check(tour.run(["node"], "tour.mjs", block), answers=1, deleted="true")


def test_curl(tour):
    [block] = blocks(README, "bash")
    _check(tour.run(["bash", "-euo", "pipefail"], "tour.sh", block), answers=1, deleted='"deleted":true')


def _check(said, answers, deleted):
    """Check that it told the id, what the models were given, and the delete."""
    assert re.match(r"file-mux-[0-9a-f]{32}\n", said)
    assert said.count(f" bytes={sample_path().stat().st_size} sha256={SHA256}]") == answers
    assert deleted in said.splitlines()[-1]
