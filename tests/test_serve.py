"""`filemux serve` as processes: quick to start, hard to kill, and never leaving anything behind."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.mmap_dict import MmapedDict

from app.serve import EARLY_SECONDS
from tests.conftest import MASTER_KEY, configuration
from tests.support.processes import Gateway, alive, clean_environment, family, run_cli
from tests.support.sandbox import eventually

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and relies on PR_SET_PDEATHSIG")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs all the tests")
# Drops to the user only after the imports: the interpreter may lie below /root.
AS_NOBODY = """
import concurrent.futures.thread, os, pwd
import uvicorn.lifespan.on, uvloop
from app import main, serve
nobody = pwd.getpwnam("nobody")
os.setgroups([]), os.setgid(nobody.pw_gid), os.setuid(nobody.pw_uid)
serve.serve(serve.ServeOptions(port=0))
"""
# Waits no time for the database of another.
IMPATIENT = "from app import cli; from app.db import embedded; embedded._OWNER_WAIT_SECONDS = 0.05; cli.main()"


@pytest.fixture
def place(data_dir):
    """A data directory of the test's own that does not exist yet."""
    path = data_dir / uuid.uuid4().hex
    yield path
    shutil.rmtree(path, ignore_errors=True)


def status(gateway, path):
    return httpx.get(f"{gateway.url}{path}", headers={"authorization": f"Bearer {MASTER_KEY}"}).status_code


def fails_to_serve(*arguments, **options):
    """What `filemux serve` says before it ends with status 2."""
    done = run_cli("serve", *arguments, **options)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


# --- starting ---------------------------------------------------------------------------------------------------


def test_an_existing_data_directory_is_served_quickly(place):
    with Gateway(FILEMUX_DATA_DIR=place) as first:
        assert first.stop() == 0
    started = time.monotonic()
    with Gateway(FILEMUX_DATA_DIR=place) as gateway:
        assert httpx.get(f"{gateway.url}/readyz").status_code == 200
        # The target is 2 s, which the benchmark measures; this machine may be busy.
        assert time.monotonic() - started < 60


def test_a_new_master_key_is_said_once_kept_private_and_used_again(place):
    with Gateway(FILEMUX_DATA_DIR=place) as first:
        (line,) = [line for line in first.said if "master key" in line]
        path, key = re.fullmatch(r"new master key, kept in (\S+): (sk-\S+)", line).groups()
        assert Path(path).stat().st_mode & 0o777 == 0o600
    with Gateway(FILEMUX_DATA_DIR=place) as again:
        assert not any("master key" in line for line in again.said)
        models = httpx.get(f"{again.url}/v1/models", headers={"authorization": f"Bearer {key}"})
        assert models.status_code == 200
        again.stop()
        assert key not in "\n".join([*first.log, *again.log, *again.said])


def test_what_killed_gateways_have_spooled_is_removed_and_what_may_be_in_use_is_not(database_url, place):
    spooled = place / "spool"
    spooled.mkdir(parents=True)
    ages = {"old": 3700, "young": 1800, "new": 0}
    for name, seconds in ages.items():
        (spooled / name).write_bytes(b"half an upload")
        os.utime(spooled / name, (time.time() - seconds,) * 2)
    with Gateway(FILEMUX_DATA_DIR=place, DATABASE_URL=database_url):
        assert {path.name for path in spooled.iterdir()} == {"young", "new"}


def test_without_a_model_list_it_says_what_to_do(place):
    with Gateway(FILEMUX_DATA_DIR=place) as gateway:
        assert "no model_list is configured: pass --config FILE, or --sandbox to try filemux out" in gateway.said


@needs_root
def test_an_ordinary_user_can_run_it(place):
    place.mkdir(mode=0o700)
    shutil.chown(place, "nobody")
    with subprocess.Popen(
        [sys.executable, "-c", AS_NOBODY],
        env=clean_environment(FILEMUX_DATA_DIR=place),
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        lines = iter(process.stdout.readline, "")
        url = next(line.split()[-1] for line in lines if "filemux listening on" in line)
        assert httpx.get(f"{url}/readyz").status_code == 200
        process.terminate()
    assert process.returncode == 0
    assert {path.owner() for path in (place, place / "master_key", place / "postgres")} == {"nobody"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_that_is_taken_is_told(database_url, place, workers):
    # As another gateway has it.
    with socket.create_server(("127.0.0.1", 0), reuse_port=workers > 1) as listener:
        port = listener.getsockname()[1]
        arguments = ("--port", port, "--workers", workers)
        said = fails_to_serve(*arguments, FILEMUX_DATA_DIR=place, DATABASE_URL=database_url)
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in said


def test_a_host_that_is_not_ours_is_told(database_url, place):
    said = fails_to_serve("--host", "192.0.2.1", FILEMUX_DATA_DIR=place, DATABASE_URL=database_url)
    assert "cannot listen on 192.0.2.1:4000" in said


def test_two_on_one_data_directory_refuse_clearly(place):
    with Gateway(FILEMUX_DATA_DIR=place) as first:
        said = fails_to_serve("--port", 0, program=("-c", IMPATIENT), FILEMUX_DATA_DIR=place)
        assert f"process {first.process.pid} already runs the database of {place}" in said
        assert "--workers N" in said
        assert httpx.get(f"{first.url}/readyz").status_code == 200


# --- workers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(database_url, sandbox_process, place):
    """A gateway of two workers whose data directory is `place`."""
    place.mkdir()
    config = place / "config.yaml"
    config.write_text(yaml.safe_dump(configuration(sandbox_process.url)))
    arguments = ("--config", config, "--workers", 2)
    with Gateway(*arguments, FILEMUX_DATA_DIR=place, DATABASE_URL=database_url) as gateway:
        yield gateway


def answered(place):
    """Worker's pid → how many requests it has answered."""
    counts = {}
    for path in (place / "metrics").glob("counter_*.db"):
        values = MmapedDict.read_all_values_from_file(str(path))
        pid = int(path.stem.removeprefix("counter_"))
        counts[pid] = sum(value for key, value, *_ in values if "filemux_requests_total" in key)
    return counts


@needs_proc
def test_every_worker_answers(pair, place):
    assert {status(pair, "/v1/models") for _ in range(40)} == {200}
    counts = answered(place)
    assert set(counts) == set(family(pair.process.pid))
    assert min(counts.values()) > 0
    # A request is counted when it has been answered.
    assert eventually(lambda: sum(answered(place).values()) == 40)


@needs_proc
def test_a_worker_that_dies_is_replaced_and_its_callers_only_wait(pair):
    ready_at = time.monotonic()
    assert eventually(lambda: time.monotonic() - ready_at > EARLY_SECONDS)
    before = set(family(pair.process.pid))
    os.kill(min(before), signal.SIGKILL)
    assert {status(pair, "/v1/models") for _ in range(20)} == {200}
    assert eventually(lambda: len(now := set(family(pair.process.pid))) == 2 and min(before) not in now)


@needs_proc
def test_a_worker_that_never_works_stops_the_gateway(pair, place):
    """Its configuration was taken away meanwhile: to start it again for ever would help nobody."""
    ready_at = time.monotonic()
    assert eventually(lambda: time.monotonic() - ready_at > EARLY_SECONDS)
    (place / "config.yaml").unlink()
    os.kill(min(family(pair.process.pid)), signal.SIGKILL)
    assert pair.process.wait(120) == 2
    pair.stop()
    assert "a worker ended at once with status" in pair.log[-1]


# --- ending -----------------------------------------------------------------------------------------------------


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_ends_everything_in_order(place, number, workers):
    with Gateway("--sandbox", "--workers", workers, FILEMUX_DATA_DIR=place) as gateway:
        processes = family(gateway.process.pid)
        assert len(processes) >= 3 + (workers if workers > 1 else 0)
        assert gateway.stop(number) == 0
        assert not any(map(alive, processes))
        assert not any("Traceback" in line for line in gateway.log)


@needs_proc
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_gateway_leaves_no_process_and_the_next_one_finds_its_rows(place, workers):
    environment = {"FILEMUX_DATA_DIR": place, "FILEMUX_MASTER_KEY": MASTER_KEY}
    with Gateway("--sandbox", "--workers", workers, **environment) as gateway:
        headers = {"authorization": f"Bearer {MASTER_KEY}"}
        httpx.post(f"{gateway.url}/admin/teams", json={"name": "kept"}, headers=headers).raise_for_status()
        processes = family(gateway.process.pid)
        gateway.stop(signal.SIGKILL)
        assert eventually(lambda: not any(map(alive, processes))), [pid for pid in processes if alive(pid)]
    with Gateway("--sandbox", "--workers", workers, **environment) as gateway:
        teams = httpx.get(f"{gateway.url}/admin/teams", headers=headers).json()["data"]
        assert {team["name"] for team in teams} == {"default", "kept"}


# --- the database -----------------------------------------------------------------------------------------------


def test_an_unmigrated_database_is_said_until_it_is_migrated(empty_database_url, place):
    environment = {"DATABASE_URL": empty_database_url, "FILEMUX_DATA_DIR": place, "FILEMUX_MASTER_KEY": MASTER_KEY}
    with Gateway(**environment) as gateway:
        assert status(gateway, "/healthz") == 200
        ready = httpx.get(f"{gateway.url}/readyz")
        assert ready.status_code == 503
        assert "run `filemux migrate`" in ready.json()["error"]["message"]
        refused = httpx.get(f"{gateway.url}/v1/files", headers={"authorization": f"Bearer {MASTER_KEY}"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert "filemux migrate" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) > 0
        assert run_cli("migrate", **environment).returncode == 0
        assert (status(gateway, "/readyz"), status(gateway, "/v1/files")) == (200, 200)
