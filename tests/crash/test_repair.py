"""Whatever ends an upload, a delete or a backfill, once the worker is idle the providers hold exactly what the rows
say, and no file that a client was told about is gone."""

import asyncio
import contextlib
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import openai
import pytest

from app.db import readonly
from app.files.leases import LEASE_SECONDS
from app.sandbox.config import BUCKET, sandbox_configuration
from tests.conftest import Clients
from tests.every_provider.test_errors import PROVIDERS
from tests.every_provider.test_files_in_chats import MODEL_NAMES, every_model
from tests.support.chats import answer_of, ask, file_part
from tests.support.replicas import Replicas
from tests.support.rest import SOURCES_KEY, Traces
from tests.support.sandbox import eventually
from tests.support.uploads import CLOSING, PURPOSE, part, post_form, raw_client, sha256

LEASE = timedelta(seconds=LEASE_SECONDS)
# More than the kernel takes in for a provider that reads no more.
LARGE = 8 * 1024 * 1024
OPENAI, CLAUDE, GEMINI = "gpt-4o-mini-openai", "claude-sonnet", "gemini-flash"
IN_THE_MIDDLE, BEFORE_ITS_ANSWER, AFTER_ITS_ANSWER = (
    {"kill_after_bytes": 1024 * 1024},
    {"kill_at": "before_answer"},
    {"kill_at": "after_answer"},
)


@pytest.fixture(scope="module")
def start(make_gateway, sandbox_process):
    """Start a gateway with every provider; what it keeps, all of them can read."""
    keys = {"access_key_id": SOURCES_KEY, "secret_access_key": "secret"}
    sources = {"store": "s3", "bucket": BUCKET, "endpoint_url": f"{sandbox_process.url}/s3", **keys}
    return lambda: make_gateway(filemux={"sources": sources}, **sandbox_configuration(sandbox_process.url))


@pytest.fixture(scope="module")
def survivor(start):
    with start() as running:
        yield running


@pytest.fixture(scope="module")
def next_victim(start):
    """A gateway to be killed; the one after it is started meanwhile."""
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        starting = pool.submit(start)

        def take():
            nonlocal starting
            victim, starting = stack.enter_context(starting.result()), pool.submit(start)
            return victim

        yield take
        starting.result().stop()


@pytest.fixture
def client(survivor, sandbox):
    """The SDK at the gateway that lives, with a key of a team of the test's own."""
    with contextlib.closing(Clients(survivor.url)) as opened:
        yield opened.member()


@pytest.fixture
def doomed(next_victim, client, sandbox):
    """The same key at a gateway that dies as told: `doomed("gemini-flash", "upload_file", kill_at="start")`."""
    with contextlib.ExitStack() as stack:

        def at(model_name, operation, **fault):
            victim = next_victim()
            kill = {"kill_pid": victim.process.pid, "account": account_of(sandbox, model_name)}
            sandbox.fault(PROVIDERS[model_name], operation, **kill, **fault)
            return stack.enter_context(client.with_options(base_url=f"{victim.url}/v1", http_client=httpx.Client()))

        yield at


# Their files bear a name of ours.
NAMED = [name for name, provider in PROVIDERS.items() if provider in ("gemini", "vertex_ai", "bedrock")]


def account_of(sandbox, model_name):
    """How the sandbox names a model name's account: the kept bytes are at another one of the same S3."""
    [entry] = [one for one in sandbox_configuration(sandbox.url)["model_list"] if one["model_name"] == model_name]
    params = entry["litellm_params"]
    secrets = ("api_key", "vertex_access_token", "aws_access_key_id")
    [secret] = [params[name] for name in secrets if name in params]
    return sha256(secret.encode())[:8]


@pytest.fixture
def name():
    return f"{uuid.uuid4().hex}.pdf"


@pytest.fixture
def traces(database, sandbox, name):
    """Of the file of this name, whose content is the name as often as it fits."""
    return lambda size_bytes=None: Traces(database, sandbox, name, content_of(name, size_bytes))


def content_of(name, size_bytes=None):
    return name.encode() * ((size_bytes or 1) // len(name) or 1)


def upload(client, name, *model_names, size_bytes=None):
    return client.files.create(
        file=(name, content_of(name, size_bytes), "application/pdf"),
        purpose="user_data",
        extra_body={"target_model_names": ",".join(model_names)},
    )


def chat(client, model_name, file_id):
    return answer_of(ask(client, model_name, file_part(file_id)))


# --- uploads ----------------------------------------------------------------------------------------------------


@every_model
async def test_a_gateway_that_is_killed_in_the_middle_of_an_upload(doomed, traces, name, model_name):
    left = traces(LARGE)
    with pytest.raises(openai.APIConnectionError):
        upload(doomed(model_name, "upload_file", **IN_THE_MIDDLE), name, model_name, size_bytes=LARGE)
    [replica] = await left.replicas()
    assert replica["state"] == "pending" and replica["lease"] <= LEASE
    await left.end_leases()
    # The sandbox has cut the connection, so that nothing more comes from it.
    assert await left.come_to_rest(hurried=True) == []


@pytest.mark.parametrize(
    ("model_name", "operation", "size_bytes"),
    [
        *((model_name, "upload_file", None) for model_name in MODEL_NAMES),
        ("gemini-2.0-flash", "finish_upload", LARGE),
        ("nova-lite", "finish_upload", LARGE),
    ],
)
async def test_a_gateway_killed_when_its_upload_is_done(doomed, traces, name, model_name, operation, size_bytes):
    left = traces(size_bytes)
    with pytest.raises(openai.APIConnectionError):
        upload(doomed(model_name, operation, **BEFORE_ITS_ANSWER), name, model_name, size_bytes=size_bytes)
    assert left.held()
    await left.end_leases()
    assert await left.come_to_rest() == []


async def test_a_gateway_that_is_killed_when_one_of_its_uploads_is_answered(doomed, traces, sandbox, name):
    """The other is not, so nothing is recorded before the kill comes."""
    left, victim = traces(), doomed(OPENAI, "upload_file", **AFTER_ITS_ANSWER)
    sandbox.fault("anthropic", "upload_file", delay_seconds=600)
    with pytest.raises(openai.APIConnectionError):
        upload(victim, name, OPENAI, CLAUDE)
    assert left.held()
    await left.end_leases()
    assert await left.come_to_rest(hurried=True) == []


async def test_a_killed_upload_whose_form_had_an_end_of_its_own(next_victim, client, sandbox, traces, name):
    """Nothing follows its last boundary: till then the file seems smaller than it is."""
    left, victim = traces(), next_victim()
    sandbox.fault("anthropic", "upload_file", delay_seconds=600, times=-1)
    targets = part("target_model_names", f"{OPENAI},{CLAUDE}")
    form = (PURPOSE, targets, part("file", content_of(name), name, "application/pdf"))
    to_victim = client.with_options(base_url=f"{victim.url}/v1")
    with raw_client(to_victim) as http, ThreadPoolExecutor(1) as pool:
        posting = pool.submit(post_form, http, *form, closing=CLOSING.rstrip())
        assert eventually(left.held)
        victim.process.kill()
        assert isinstance(posting.exception(), httpx.TransportError)
    await left.end_leases()
    assert await left.come_to_rest(hurried=True) == []


async def test_the_other_targets_of_a_killed_upload_are_gone_too(doomed, traces, sandbox, name):
    left, victim = traces(), doomed("gpt-4o-azure", "upload_file", **BEFORE_ITS_ANSWER, delay_seconds=600)
    with ThreadPoolExecutor(1) as pool:
        uploading = pool.submit(upload, victim, name, *MODEL_NAMES)
        assert eventually(lambda: len(left.held()) == len(MODEL_NAMES) - 1)
        sandbox.release("azure.upload_file")
        assert isinstance(uploading.exception(), openai.APIConnectionError)
    assert len(left.held()) == len(MODEL_NAMES)
    await left.end_leases()
    assert await left.come_to_rest() == []


@every_model
async def test_a_lost_answer_to_an_upload_leaves_no_orphan(client, sandbox, traces, name, model_name):
    """Where the file bears a name of ours it is known again, and the upload has ended well."""
    sandbox.fault(PROVIDERS[model_name], "upload_file", lose_answer=True, account=account_of(sandbox, model_name))
    told = []
    with contextlib.suppress(openai.InternalServerError):
        told = [upload(client, name, model_name).id]
    assert bool(told) is (model_name in NAMED)
    assert await traces().come_to_rest() == told


@pytest.mark.parametrize("model_name", NAMED)
async def test_a_lost_answer_and_then_a_provider_that_does_not_answer_leave_no_orphan(
    client, sandbox, traces, name, model_name
):
    """The later attempts come to nothing before their first byte; what the first has made is there all the same."""
    provider, account = PROVIDERS[model_name], account_of(sandbox, model_name)
    sandbox.fault(provider, "upload_file", lose_answer=True, account=account)
    # The first attempt begins all the same: a fault that is counted comes first.
    sandbox.fault(provider, "start_upload", delay_seconds=0.01, account=account)
    for operation in ("start_upload", "retrieve_file", "upload_file", "query_upload"):
        sandbox.fault(provider, operation, status=503, times=-1, account=account)
    with pytest.raises(openai.InternalServerError):
        upload(client, name, model_name)
    left = traces()
    assert len(left.held()) == 1
    sandbox.heal()
    await left.end_leases()
    assert await left.come_to_rest() == []


# --- deletes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [{"kill_at": "start"}, BEFORE_ITS_ANSWER, AFTER_ITS_ANSWER])
async def test_a_gateway_that_is_killed_during_a_delete(client, doomed, traces, sandbox, name, moment):
    """Another provider has not answered by then, whenever the kill comes."""
    file, victim = upload(client, name, *MODEL_NAMES), doomed(CLAUDE, "delete_file", **moment)
    sandbox.fault("openai", "delete_file", delay_seconds=600)
    with pytest.raises(openai.APIConnectionError):
        victim.files.delete(file.id)
    assert {row["state"] for row in await traces().replicas()} == {"deleting"}
    await traces().end_leases()
    assert await traces().come_to_rest() == []


# --- backfills --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_name", "moment", "size_bytes"),
    [
        *((model_name, BEFORE_ITS_ANSWER, None) for model_name in MODEL_NAMES),
        (OPENAI, IN_THE_MIDDLE, LARGE),
        (GEMINI, IN_THE_MIDDLE, LARGE),
    ],
)
async def test_a_gateway_that_is_killed_during_a_backfill(client, doomed, traces, name, model_name, moment, size_bytes):
    """The other adopts what was made, or makes it."""
    first = CLAUDE if model_name != CLAUDE else OPENAI
    file = upload(client, name, first, size_bytes=size_bytes)
    with pytest.raises(openai.APIConnectionError):
        chat(doomed(model_name, "upload_file", **moment), model_name, file.id)
    left = traces(size_bytes)
    assert max(row["lease"] for row in await left.replicas() if row["state"] == "pending") <= LEASE
    await left.end_leases()
    assert await left.come_to_rest(hurried=True) == [file.id]
    for either in (first, model_name):
        assert sha256(content_of(name, size_bytes)) in chat(client, either, file.id)
    assert len(await left.replicas()) == 2


@every_model
async def test_a_chat_waits_for_what_is_found_after_a_lost_answer(client, sandbox, traces, name, model_name):
    file = upload(client, name, CLAUDE if model_name != CLAUDE else OPENAI)
    sandbox.fault(PROVIDERS[model_name], "upload_file", lose_answer=True, account=account_of(sandbox, model_name))
    assert sha256(content_of(name)) in chat(client, model_name, file.id)
    assert await traces().come_to_rest() == [file.id]


# --- two gateways, and other clients ----------------------------------------------------------------------------


async def test_two_gateways_that_repair_the_same_upload(client, next_victim, sandbox, traces, database, name):
    """The first one's last look takes longer than its lease; the second one finds the file meanwhile, which cannot be
    deleted at once. What the first one then does not find is not forgotten."""
    next_victim()
    sandbox.fault("anthropic", "upload_file", delay_seconds=600, lose_answer=True)
    sandbox.fault("anthropic", "list_files", delay_seconds=600)
    sandbox.fault("anthropic", "delete_file", status=503, times=2)
    with ThreadPoolExecutor(1) as pool:
        uploading = pool.submit(upload, client, name, CLAUDE)
        assert eventually(lambda: sandbox.calls("anthropic.upload_file"))
        [row] = await traces().replicas()
        await Replicas(database, row["file_id"]).set(looks="4")
        sandbox.release()
        assert isinstance(uploading.exception(), openai.InternalServerError)
    assert eventually(lambda: sandbox.calls("anthropic.list_files") == 1)
    await traces().end_leases()
    assert eventually(lambda: sandbox.calls("anthropic.delete_file"))
    sandbox.release()
    assert await traces().come_to_rest() == []
    assert [sandbox.calls(f"anthropic.{operation}") for operation in ("list_files", "delete_file")] == [2, 3]


async def test_what_may_be_another_clients_file_is_not_touched(client, sandbox, database, traces, name):
    key = {"authorization": "Bearer sk-sandbox-openai"}
    form = {"data": {"purpose": "user_data"}, "files": {"file": (name, content_of(name))}, "headers": key}
    httpx.post(f"{sandbox.url}/openai/v1/files", **form).raise_for_status()
    sandbox.fault("openai", "upload_file", lose_answer=True)
    with pytest.raises(openai.InternalServerError):
        upload(client, name, OPENAI)
    async with asyncio.timeout(120):
        while (await traces().replicas())[0]["state"] != "failed":
            await traces().end_waits()
    suspects = f"SELECT provider_file_id FROM orphan_suspects WHERE filename = '{name}'"
    found = (await readonly.select(database, suspects))[1]
    assert {row[0] for row in found} == {one["id"] for one in sandbox.files if one["filename"] == name}
    assert len(found) == 2
