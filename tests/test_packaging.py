"""Image, compose file, balancer and example configuration: what can be told of them without a Docker engine."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import openai
import pytest
import yaml

from app import deployments, settings
from tests.conftest import MASTER_KEY
from tests.support.processes import clean_environment, free_port
from tests.support.sandbox import eventually
from tests.support.uploads import upload

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "filemux.example.yaml"
HAPROXY = ROOT / "docker" / "haproxy.cfg"
SECRETS = (
    "POSTGRES_PASSWORD",
    "FILEMUX_MASTER_KEY",
    "FILEMUX_SECRET_KEY",
    "OPENAI_API_KEY",
    "AZURE_API_BASE",
    "AZURE_API_KEY",
)


def required(tool):
    """The path of a tool; skips the test where it is not installed."""
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is not installed")
    return path


def run(*command, **environment):
    """A command to its end."""
    return subprocess.run(
        command,
        env=clean_environment(**environment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


# --- the example configuration ----------------------------------------------------------------------------------


@pytest.fixture
def example(tmp_path, monkeypatch):
    for name in re.findall(r"^[^#\n]*os\.environ/(\w+)", EXAMPLE.read_text(), re.MULTILINE):
        monkeypatch.setenv(name, "https://example.openai.azure.com" if name.endswith("_BASE") else "a-secret")
    return settings.load(EXAMPLE, settings.Environment(), tmp_path)


def test_the_example_configuration_is_valid(example):
    deployments.check(example)
    assert example.ignored == ()
    assert set(deployments.account_names(example)) == {"openai", "azure"}


def test_the_example_has_every_option():
    written = yaml.safe_load(EXAMPLE.read_text())["filemux"]
    assert set(written) == set(settings.Options.model_fields)


# --- for developers ---------------------------------------------------------------------------------------------


def test_the_commit_hooks_are_valid_and_run_what_is_installed():
    config = ROOT / ".pre-commit-config.yaml"
    done = run(sys.executable, "-m", "pre_commit", "validate-config", str(config))
    assert done.returncode == 0, done.stdout
    hooks = [hook for repo in yaml.safe_load(config.read_text())["repos"] for hook in repo["hooks"]]
    programs = {Path(hook["entry"].split()[0]).name for hook in hooks}
    assert programs == {"ruff", "mypy", "pytest"}
    assert all(Path(sys.executable).with_name(program).exists() for program in programs)


# --- the image --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def instructions():
    """The Dockerfile's instructions, continued lines joined, comments left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def test_the_bases_are_pinned(instructions):
    images = [rest.split()[0] for verb, rest in instructions if verb == "FROM"]
    stages = {rest.split()[2] for verb, rest in instructions if verb == "FROM" and " AS " in rest}
    outside = [image for image in images if image not in stages]
    assert outside
    assert all(re.fullmatch(r"python:3\.\d+-slim", image) for image in outside)


def test_the_image_runs_unprivileged(instructions):
    [user] = [rest for verb, rest in instructions if verb == "USER"]
    assert int(user) > 0


def test_the_image_has_pinned_packages_and_no_extras(instructions):
    [install] = [rest for verb, rest in instructions if verb == "RUN" and "pip" in rest and "install" in rest]
    assert re.search(r"-c constraints\.txt \.$", install)


def test_the_image_starts_the_command_itself(instructions):
    found = dict(instructions)
    assert json.loads(found["ENTRYPOINT"]) == ["filemux"]
    assert json.loads(found["CMD"])[0] == "serve"


def test_the_images_health_check_asks_the_gateway(instructions, gateway):
    _, command = dict(instructions)["HEALTHCHECK"].split("CMD ", 1)
    program = json.loads(command)[2]
    assert run(sys.executable, "-c", program.replace("http://127.0.0.1:4000", gateway.url)).returncode == 0
    with socket.socket() as taken:
        # Nobody listens there.
        taken.bind(("127.0.0.1", 0))
        assert run(sys.executable, "-c", program.replace(":4000", f":{taken.getsockname()[1]}")).returncode != 0


def test_what_the_image_copies_is_not_kept_from_it(instructions):
    kept = set(re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    copied = {
        word for verb, rest in instructions if verb == "COPY" and "--from" not in rest for word in rest.split()[:-1]
    }
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)


# --- compose ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def compose(*arguments, **environment):
    """Docker's compose plugin if there is one, else the program of that name; neither needs an engine to check."""
    if shutil.which("docker") and run("docker", "compose", "version").returncode == 0:
        return run("docker", "compose", *arguments, **environment)
    return run(required("docker-compose"), *arguments, **environment)


def test_compose_accepts_the_file():
    done = compose("config", **dict.fromkeys(SECRETS, "x"))
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == {"postgres", "migrate", "gateway", "balancer"}


@pytest.mark.parametrize("missing", SECRETS)
def test_compose_asks_for_each_secret(missing):
    done = compose("config", "--quiet", **{name: "x" for name in SECRETS if name != missing})
    assert done.returncode != 0
    assert missing in done.stderr


def test_the_services_start_in_order(services):
    waits = {
        (name, needed): how["condition"]
        for name, service in services.items()
        for needed, how in service.get("depends_on", {}).items()
    }
    assert waits == {
        ("migrate", "postgres"): "service_healthy",
        ("gateway", "postgres"): "service_healthy",
        ("gateway", "migrate"): "service_completed_successfully",
        ("balancer", "gateway"): "service_healthy",
    }


def test_two_gateways_on_postgres_18_keep_their_data(services):
    assert services["gateway"]["deploy"]["replicas"] == 2
    assert services["postgres"]["image"] == "postgres:18"
    assert services["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]


def test_what_is_mounted_is_there(services):
    mounts = [volume for service in services.values() for volume in service.get("volumes", ())]
    sources = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert len(sources) == 2
    assert all((ROOT / source).is_file() for source in sources)


def test_the_gateways_get_what_their_configuration_names(services):
    named = set(re.findall(r"^[^#\n]*os\.environ/(\w+)", EXAMPLE.read_text(), re.MULTILINE))
    assert named <= set(services["gateway"]["environment"])


# --- the balancer -----------------------------------------------------------------------------------------------


def test_haproxy_accepts_its_configuration():
    done = run(required("haproxy"), "-c", "-f", str(HAPROXY))
    assert done.returncode == 0, done.stderr


@pytest.fixture
def balancer(gateway, tmp_path):
    """The URL of HAProxy with the configuration of the compose file, in front of the tests' gateway."""
    program, port = required("haproxy"), free_port()
    text = HAPROXY.read_text().replace("bind :4000", f"bind 127.0.0.1:{port}")
    address = gateway.url.removeprefix("http://")
    text, replaced = re.subn(r"server-template gateway 2 \S+ (.*) resolvers.*", rf"server one {address} \1", text)
    assert replaced == 1
    config = tmp_path / "haproxy.cfg"
    config.write_text(text)
    with subprocess.Popen([program, "-f", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            assert eventually(lambda: _is_ready(url))
            yield url
        finally:
            process.kill()


def _is_ready(url):
    with contextlib.suppress(httpx.ConnectError):
        return httpx.get(f"{url}/readyz").status_code == 200
    return False


@pytest.fixture
def balanced(balancer):
    """The SDK, through the balancer."""
    with openai.OpenAI(base_url=f"{balancer}/v1", api_key=MASTER_KEY, max_retries=0) as client:
        yield client


def test_uploads_flow_through_the_balancer(balancer, sandbox):
    """The provider is called while the client still holds back the end of the body."""
    end = threading.Event()

    def body():
        yield b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        yield b'--b\r\nContent-Disposition: form-data; name="target_model_names"\r\n\r\nmini\r\n'
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n%PDF-1.4'
        end.wait(120)
        yield b"\r\n--b--\r\n"

    answers = []

    def post():
        headers = {"authorization": f"Bearer {MASTER_KEY}", "content-type": "multipart/form-data; boundary=b"}
        answers.append(httpx.post(f"{balancer}/v1/files", content=body(), headers=headers, timeout=60))

    uploading = threading.Thread(target=post)
    uploading.start()
    try:
        assert eventually(lambda: sandbox.calls("openai.upload_file"))
    finally:
        end.set()
        uploading.join()
    assert answers[0].status_code == 200, answers[0].text


def test_events_flow_through_the_balancer(balanced, sandbox):
    """The first event arrives long before the last one, which is sent after some minutes."""
    file = upload(balanced, "mini")
    sandbox.fault("openai", "stream_chat", bytes_per_second=2000)
    parts = [{"type": "file", "file": {"file_id": file.id}}, {"type": "text", "text": "word " * 2000}]
    started = time.monotonic()
    with balanced.chat.completions.create(
        model="mini", messages=[{"role": "user", "content": parts}], stream=True
    ) as chunks:
        assert next(iter(chunks))
    assert time.monotonic() - started < 60


def test_the_balancer_keeps_the_metrics_to_itself(balancer):
    assert httpx.get(f"{balancer}/metrics").status_code == 404
    assert httpx.get(f"{balancer}/v1/metrics").status_code == 404
