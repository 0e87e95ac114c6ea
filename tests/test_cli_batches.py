"""`filemux batches` as a user runs it, beside a gateway that goes on when the command has ended."""

import json
import time

import pytest

from app.files.leases import LEASE_SECONDS
from tests.conftest import Clients
from tests.support.batches import ENDED, answer_in, jsonl, line
from tests.support.processes import run_cli
from tests.support.sandbox import eventually

LIFE = ("validating", "in_progress", "finalizing", "completed")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("batches")


@pytest.fixture(scope="module")
def running(make_gateway, directory):
    with make_gateway(directory=directory) as gateway:
        yield gateway


@pytest.fixture
def client(running, sandbox):
    clients = Clients(running.url)
    yield clients.admin
    clients.close()


@pytest.fixture
def filemux(client, directory, database_url):
    """`filemux batches ARGUMENTS`, or another command, as an operator of that gateway; what it prints."""

    def run(*arguments, status=0, command="batches"):
        environment = {"DATABASE_URL": database_url, "FILEMUX_DATA_DIR": directory}
        done = run_cli(command, *arguments, "--config", directory / "config.yaml", **environment)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout or done.stderr

    return run


@pytest.fixture
def lines(tmp_path):
    """Write lines to a file; its path."""

    def write(*lines):
        path = tmp_path / "lines.jsonl"
        path.write_bytes(jsonl(lines))
        return path

    return write


def test_a_batch_from_its_creation_to_its_output(filemux, lines, tmp_path):
    path = lines(line("one", "mini", "Hello"), line("two", "azure", "Hello"), line("bad", "mini", "fail:400"))
    changes = [
        json.loads(one) for one in filemux("create", path, "--metadata", "for=a=test", "--watch", "--json").splitlines()
    ]
    statuses = [one["status"] for one in changes]
    assert statuses[0] in ("validating", "in_progress")
    assert statuses == sorted(statuses, key=LIFE.index) and statuses[-1] == "completed"
    batch = changes[-1]
    assert batch["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    assert batch["metadata"] == {"for": "a=test"}
    assert {part["model_name"] for part in batch["filemux"]["parts"]} == {"mini", "azure"}
    output = [json.loads(one) for one in filemux("output", batch["id"]).splitlines()]
    assert {one["custom_id"]: answer_in(one) for one in output} == {"one": "Hello", "two": "Hello"}
    filemux("output", batch["id"], "--errors", "--out", tmp_path / "errors.jsonl")
    assert json.loads((tmp_path / "errors.jsonl").read_bytes())["custom_id"] == "bad"
    assert batch["id"] in [one["id"] for one in json.loads(filemux("list", "--json"))]
    table = filemux("show", batch["id"])
    assert all(cell in table for cell in (batch["id"], "completed", "azure", batch["error_file_id"]))


def test_a_batch_goes_on_in_the_gateway_when_the_command_has_ended(filemux, client, lines, sandbox):
    batch = json.loads(filemux("create", lines(line("one", "gpt-4o-mini", "slow:60")), "--target", "mini", "--json"))
    assert batch["status"] == "in_progress"
    ended_at = time.monotonic()
    sandbox.advance(3600)
    assert eventually(lambda: client.batches.retrieve(batch["id"]).status in ENDED)
    assert client.batches.retrieve(batch["id"]).status == "completed"
    # The lease that the command had lasts for longer.
    assert time.monotonic() - ended_at < LEASE_SECONDS * 2 / 3
    assert sandbox.calls("openai.create_batch") == 1


def test_a_batch_is_watched_until_it_is_cancelled(filemux, lines, sandbox):
    path = lines(line("one", "other", "slow:3600"))
    batch = json.loads(filemux("create", path, "--model", "mini", "--json"))
    assert [part["model_name"] for part in batch["filemux"]["parts"]] == ["mini"]
    assert json.loads(filemux("cancel", batch["id"], "--json"))["status"] in ("cancelling", "cancelled")
    sandbox.advance(60)
    assert "cancelled" in filemux("watch", batch["id"], status=1)
    assert "there is no file of output: the batch is cancelled" in filemux("output", batch["id"], status=1)


def test_what_a_batch_waits_for_is_in_the_backlog(filemux, client, lines, sandbox):
    sandbox.fault("openai", "create_batch", status=429, times=-1)
    batch = json.loads(filemux("create", lines(line("one", "mini", "Hello")), "--json"))
    assert batch["status"] == "validating"
    assert batch["filemux"]["last_error"]
    [row] = [one for one in json.loads(filemux("--json", command="backlog")) if one["batch_id"] == batch["id"]]
    assert (row["file_id"], row["provider"], row["provider_id"]) == (batch["input_file_id"], "openai", None)
    assert row["attempts"] >= 1 and row["last_error"]
    sandbox.heal()
    assert eventually(lambda: client.batches.retrieve(batch["id"]).status != "validating")
    sandbox.advance(60)
    assert "completed" in filemux("watch", batch["id"])


def test_a_batch_that_fails_says_which_line(filemux, lines):
    missing = line("two", "mini", {"type": "file", "file": {"file_id": f"file-mux-{'0' * 32}"}})
    failed = filemux("create", lines(line("one", "mini", "Hello"), missing), status=1)
    assert "failed" in failed and "file_not_found" in failed


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (("create", __file__), 1, "line 1"),
        (("create", __file__, "--metadata", f"key={'long' * 200}"), 2, "--metadata: may have"),
    ],
)
def test_what_goes_wrong_is_said(filemux, arguments, status, reason):
    assert reason in filemux(*arguments, status=status)
