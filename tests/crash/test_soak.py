"""The soak itself, for seconds instead of minutes."""

import json
import subprocess
import sys

from tests.support.processes import clean_environment


def test_a_short_soak_breaks_things_and_no_promise(tmp_path):
    """Two gateways killed in turn, failing providers, PostgreSQL restarted twice."""
    written = tmp_path / "soak.json"
    options = ["--minutes", "0.1", "--clients", "4", "--kill-seconds", "1.5", "--end-leases", "--seed", "1"]
    command = [sys.executable, "-m", "benchmarks.soak", *options, "--json", written]
    run = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    figures = json.loads(written.read_text())["figures"]
    promises = ("files lost", "orphans after drain", "wrong bytes", "rows not drained")
    assert [figures[name] for name in promises] == [0, 0, 0, 0]
    assert figures["gateways killed"] and figures["PostgreSQL restarts"] == 2
    assert figures["operations"] > 10 and figures["files told to clients"] and figures["provider faults"]
