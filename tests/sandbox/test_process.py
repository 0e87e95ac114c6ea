"""The sandbox as a process, a package and a configuration."""

import json
import signal
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest

from app.providers.http import open_http
from app.providers.protocol import ChatRequest
from app.providers.registry import REGISTRY
from app.sandbox import sample_path
from app.sandbox.config import sandbox_configuration
from app.sandbox.main import PROVIDERS
from tests.sandbox.conftest import Sandbox
from tests.support.processes import free_port

_COMMAND = [sys.executable, "-m", "app.sandbox"]
# Starts a sandbox as its child, passes its line on, and waits to be killed.
_PARENT = f"""
import subprocess, sys
subprocess.Popen([*{_COMMAND!r}, "--port", "0", *sys.argv[1:]])
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_cleanly(tmp_path, number):
    port = free_port()
    with subprocess.Popen(
        [*_COMMAND, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stdout.readline() == f"sandbox listening on http://127.0.0.1:{port}\n"
        with urlopen(f"http://127.0.0.1:{port}/_sandbox/state") as answer:
            assert answer.status == 200
        process.send_signal(number)
        assert process.wait(120) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
    assert [*tmp_path.iterdir()] == []


def test_a_port_that_is_taken_is_said_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        finished = subprocess.run([*_COMMAND, "--port", str(port)], capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stderr.startswith(f"sandbox: cannot listen on 127.0.0.1:{port}: ")
    assert finished.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_it_dies_with_its_parent(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, "--die-with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"TMPDIR": str(tmp_path)},
    ) as parent:
        assert parent.stdout.readline().startswith("sandbox listening on ")
        parent.kill()
        assert parent.stdout.read() == ""  # the sandbox, who shares the pipe, has ended too
    assert [*tmp_path.iterdir()] == []


def test_it_imports_nothing_of_the_gateway():
    program = (
        "import sys, app.sandbox, app.sandbox.main, app.sandbox.config\n"
        "print(*(name for name in sys.modules if name.startswith('app.') and name.split('.')[1] != 'sandbox'))"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == ""


def test_the_sample_is_a_small_pdf():
    data = sample_path().read_bytes()
    assert data.startswith(b"%PDF-1.4\n")
    assert data.endswith(b"%%EOF\n")
    assert b"(filemux)" in data
    assert len(data) < 2048
    start = int(data.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
    assert data[start:].startswith(b"xref\n")
    offsets = [int(line[:10]) for line in data[start:].splitlines()[3:8]]
    assert [data[offset:].split(b"\n")[0] for offset in offsets] == [b"%d 0 obj" % n for n in range(1, 6)]


def test_every_provider_is_configured():
    configuration = sandbox_configuration("http://sandbox")
    names = {entry["litellm_params"]["model"].partition("/")[0] for entry in configuration["model_list"]}
    assert names == {provider.name for provider in PROVIDERS}
    assert {entry["custom_llm_provider"] for entry in configuration["files_settings"]} == names


async def test_the_configuration_works(sandbox: Sandbox):
    async with open_http() as http:
        for entry in sandbox_configuration(sandbox.base_url)["model_list"]:
            params = dict(entry["litellm_params"])
            name, _, model = params.pop("model").partition("/")
            kind = REGISTRY[name]
            provider = kind.provider(kind.params.model_validate(params), http)
            await provider.check()
            body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
            answer = json.loads(await provider.chat(ChatRequest(model, json.dumps(body).encode())))
            assert answer["choices"][0]["message"]["content"] == "hi"
