"""Older official clients of Anthropic, which send another key header, another version, and the beta's list."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sandbox.conftest import Sandbox

_JOURNEY = Path(__file__).with_name("anthropic_journey.py")


@pytest.fixture(scope="session", params=["1.17.0", "0.125.0"])
def older(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An older version of the SDK, and the directory that holds it; what it needs is in our environment."""
    directory = tmp_path_factory.mktemp("anthropic")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command = [*install, "--target", str(directory), f"anthropic=={request.param}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"anthropic {request.param} cannot be installed: {done.stderr.strip()[-300:]}")
    return request.param, directory


def test_an_older_client_travels(older: tuple[str, Path], sandbox: Sandbox):
    version, directory = older
    done = subprocess.run(
        [sys.executable, str(_JOURNEY), f"{sandbox.base_url}/anthropic"],
        env=os.environ | {"PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    # 1.2.0 is the first whose beta files have the present shapes.
    pages = ["next_page"] if version == "1.17.0" else ["first_id", "has_more", "last_id"]
    models = told.pop("models")
    assert len(models) == len(set(models)) == 5
    assert told == {
        "version": version,
        "same": True,
        "listed": ["c.pdf", "b.pdf", "a.pdf"],
        "first_page": pages,
        "download": ["BadRequestError", "invalid_request_error"],
        "called": ["tool_use", {"q": "call:lookup"}],
        "answer": f"[file filename=a.pdf bytes=1 sha256={hashlib.sha256(b'a').hexdigest()}]\n42",
        "batch": ["in_progress", "ended", "a", "hi", "message_batch_deleted"],
        "deleted": ["file_deleted"] * 3,
        "missing": ["NotFoundError", "not_found_error"],
        "unauthorized": ["AuthenticationError", "authentication_error"],
    }
