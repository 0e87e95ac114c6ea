"""Fixtures of all tests: a real PostgreSQL, a real sandbox, a real gateway, and official SDK clients."""

import asyncio
import contextlib
import os
import tempfile
import uuid
from pathlib import Path

import asyncpg
import httpx
import hypothesis
import openai
import pytest
import yaml

from app.db import migrations
from app.db.embedded import EmbeddedPostgres
from app.db.session import Database, normalised
from tests.support.owed import forget_what_is_owed
from tests.support.processes import Gateway, SandboxProcess
from tests.support.sandbox import Switchboard

MASTER_KEY = "sk-master-of-the-tests"

# Each HTTP client would read all the world's authorities, for 17 ms, and no test speaks TLS to the world.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "support" / "authority.pem")

# Other tests run beside this one: how long an example takes says nothing. The examples are the same in every run.
hypothesis.settings.register_profile(
    "beside others",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("beside others")


@pytest.fixture(scope="session")
def data_dir():
    """A directory that the embedded PostgreSQL's own user can pass through (pytest's tmp_path is 0700)."""
    with tempfile.TemporaryDirectory(prefix="filemux-tests-") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


@pytest.fixture(scope="session")
def postgres_url(data_dir):
    """A PostgreSQL server: FILEMUX_TEST_DATABASE_URL, a container (FILEMUX_TEST_POSTGRES=container), or embedded."""
    if url := os.environ.get("FILEMUX_TEST_DATABASE_URL"):
        yield url
    elif os.environ.get("FILEMUX_TEST_POSTGRES") == "container":
        from testcontainers.postgres import PostgresContainer

        with PostgresContainer("postgres:18", driver="asyncpg") as container:
            yield container.get_connection_url()
    else:
        with EmbeddedPostgres(data_dir / "postgres") as server:
            yield server.url


@contextlib.asynccontextmanager
async def connected(url):
    """A raw asyncpg connection to a SQLAlchemy URL."""
    url = normalised(url)
    connection = await asyncpg.connect(**url.get_dialect()().create_connect_args(url)[1])
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def new_database(server_url):
    """The URL of an empty database, which is dropped in the end."""
    name = f"test_{uuid.uuid4().hex}"
    async with connected(server_url) as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    yield normalised(server_url).set(database=name).render_as_string(hide_password=False)
    async with connected(server_url) as connection:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def empty_database_url(postgres_url):
    """A database of the test's own, without a schema."""
    async with new_database(postgres_url) as url:
        yield url


@contextlib.asynccontextmanager
async def migrated_database(server_url):
    """The same with the schema."""
    async with new_database(server_url) as url:
        async with connected(server_url) as server:
            # The first migration on a server makes a role, which is the server's.
            await server.execute("SELECT pg_advisory_lock(1)")
            await asyncio.to_thread(migrations.upgrade, url)
        yield url


@pytest.fixture(scope="session")
async def database_url(postgres_url):
    """The migrated database that the tests' gateway uses: pytest-xdist's workers may share a server, but not rows."""
    async with migrated_database(postgres_url) as url:
        yield url


@pytest.fixture
async def database(database_url):
    """The tests' own way into the gateway's database."""
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def sandbox_process():
    """The simulated providers, one process for all tests."""
    with SandboxProcess() as process:
        yield process


@pytest.fixture(scope="session")
async def lasting_database(database_url):
    """The same, for all tests."""
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def sandbox(sandbox_process, lasting_database):
    """The switchboard of a sandbox without faults or files, where nothing happens but what the test itself begins."""
    switchboard = Switchboard(sandbox_process.url)
    switchboard.heal()
    switchboard.release()
    await forget_what_is_owed(lasting_database)
    switchboard.reset()
    yield switchboard
    switchboard.heal()
    switchboard.release()
    switchboard.close()


def configuration(sandbox_url):
    """The model names of the tests:

    mini, four  one OpenAI account, two model names and provider models
    other       another OpenAI account
    azure       Azure, dated form; azure-v1 the v1 form with a bearer token, an account of its own
    pair        two deployments on the accounts of mini and other
    vllm        an OpenAI-compatible server without a Files API
    """

    def entry(name, model, **params):
        return {"model_name": name, "litellm_params": {"model": model, **params}}

    openai_base, azure_base = f"{sandbox_url}/openai/v1", f"{sandbox_url}/azure"
    first = {"api_base": openai_base, "api_key": "sk-first"}
    second = {"api_base": openai_base, "api_key": "sk-second"}
    return patient(
        {
            "model_list": [
                entry("mini", "openai/gpt-4o-mini", account="openai-first", **first),
                entry("four", "gpt-4o", **first),
                entry("other", "openai/gpt-4o-mini", account="openai-second", **second),
                entry(
                    "azure",
                    "azure/gpt-4o",
                    account="azure",
                    api_base=azure_base,
                    api_key="az",
                    api_version="2024-10-21",
                ),
                entry("azure-v1", "azure/gpt-4o", account="azure-v1", api_base=azure_base, azure_ad_token="ad-token"),
                entry("pair", "openai/gpt-4o-mini", **first),
                entry("pair", "openai/gpt-4o", **second),
                entry("vllm", "hosted_vllm/gpt-4o", api_base=openai_base, api_key="sk-vllm"),
            ],
            "general_settings": {"master_key": MASTER_KEY},
        }
    )


def patient(content):
    """The configuration, with accounts that are called however often they fail: what the faults of one test have done
    to a gateway is nothing to the next one."""
    for entry in content["model_list"]:
        entry["litellm_params"]["allowed_fails"] = 1_000_000
    for account in content.get("files_settings", []):
        account["allowed_fails"] = 1_000_000
    return content


@pytest.fixture(scope="session")
def make_gateway(sandbox_process, database_url, tmp_path_factory):
    """Start further gateways: `make_gateway(filemux={"upload_policy": "any"}, workers=2)`, a context manager. On a
    data directory of their own, or on that of one that has ended."""

    # Two threads that are the first to ask for a directory would each clear the place of the other's.
    tmp_path_factory.getbasetemp()

    def make(*, filemux=None, workers=1, directory=None, **sections):
        directory = directory or tmp_path_factory.mktemp("gateway")
        content = {**configuration(sandbox_process.url), "filemux": filemux or {}, **sections}
        config = directory / "config.yaml"
        config.write_text(yaml.safe_dump(content, sort_keys=False))
        return Gateway("--config", config, "--workers", workers, FILEMUX_DATA_DIR=directory, DATABASE_URL=database_url)

    return make


@pytest.fixture(scope="session")
def gateway(make_gateway):
    """The gateway that most tests share: one worker, policy `all`."""
    with make_gateway() as running:
        yield running


@pytest.fixture(scope="session")
def keepless_gateway(make_gateway):
    """A gateway that keeps no sources: it has only what the providers give back."""
    with make_gateway(filemux={"sources": {"store": "none"}}) as running:
        yield running


class Clients:
    """SDK clients of one gateway; closed at the end of the test."""

    def __init__(self, url):
        self.url = url
        self._stack = contextlib.ExitStack()
        self.http = self._stack.enter_context(
            httpx.Client(base_url=url, headers={"authorization": f"Bearer {MASTER_KEY}"}, timeout=60)
        )
        self.admin = self.client(MASTER_KEY)

    def client(self, key, **options):
        """The official SDK with a key."""
        options = {"max_retries": 0, "timeout": 60, **options}
        return self._stack.enter_context(openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, **options))

    def new_team(self, **fields):
        """A team with a name of its own; its name."""
        name = f"team {uuid.uuid4().hex[:12]}"
        self.http.post("/admin/teams", json={"name": name, **fields}).raise_for_status()
        return name

    def new_key(self, team=None, role="member", **fields):
        """A key's object, secret included, of a new team unless one is named."""
        body = {"team": team or self.new_team(), "role": role, **fields}
        return self.http.post("/admin/keys", json=body).raise_for_status().json()

    def member(self, team=None, role="member", **fields):
        """The official SDK with a new key."""
        return self.client(self.new_key(team, role, **fields)["key"])

    def close(self):
        self._stack.close()


@pytest.fixture
def clients(gateway, sandbox):
    """Clients of the shared gateway, with a sandbox that was reset."""
    made = Clients(gateway.url)
    yield made
    made.close()


@pytest.fixture
def member(clients):
    """The official SDK with a member key of a team of the test's own, so that its lists are its own."""
    return clients.member()
