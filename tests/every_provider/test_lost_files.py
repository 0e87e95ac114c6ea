"""A provider that holds a file no more: a chat notices, and it is sent there again, once."""

import contextlib

import openai
import pytest

from app.deployments import build
from app.providers.http import open_http
from app.sandbox.config import sandbox_configuration
from app.settings import Environment, from_mapping
from tests.conftest import Clients
from tests.every_provider.test_errors import PROVIDERS
from tests.every_provider.test_files_in_chats import FILES, every_model, upload
from tests.support.chats import answer_of, ask, file_part, streamed_answer, text_part
from tests.support.replicas import Replicas
from tests.support.uploads import sha256

HOUR = 3600
PDF = FILES["report.pdf"][0]
streamed_or_not = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture(scope="module")
async def accounts(sandbox_process, tmp_path_factory):
    """The accounts themselves, for what happens to them behind the gateway's back."""
    content = sandbox_configuration(sandbox_process.url)
    async with open_http() as http:
        yield build(from_mapping(content, Environment(), tmp_path_factory.mktemp("accounts")), http).accounts


@pytest.fixture
def lose(accounts, database):
    """Delete a file at its providers, or at one of them: `await lose(file, "gemini")`."""

    async def lose(file, provider=None):
        for replica in await Replicas(database, file.id).all():
            if provider in (None, replica["provider"]):
                await accounts[replica["account"]].provider.delete_file(replica["provider_file_id"])

    return lose


@pytest.fixture(scope="module")
def keepless_gateway(make_gateway, sandbox_process):
    sections = sandbox_configuration(sandbox_process.url)
    with make_gateway(filemux={"sources": {"store": "none"}}, **sections) as running:
        yield running


@pytest.fixture
def keepless(keepless_gateway, sandbox):
    with contextlib.closing(Clients(keepless_gateway.url)) as opened:
        yield opened.member()


def said(client, model_name, file, stream=False):
    answer = ask(client, model_name, text_part("Look:"), file_part(file.id), stream=stream)
    return streamed_answer(answer) if stream else answer_of(answer)


@streamed_or_not
@every_model
async def test_a_lost_file_is_sent_again(client, sandbox, lose, model_name, stream):
    file = upload(client, "report.pdf", [model_name])
    assert sha256(PDF) in said(client, model_name, file, stream)
    await lose(file)
    assert sandbox.files == []
    for _ in range(2):
        assert sha256(PDF) in said(client, model_name, file, stream)
    assert [one["sha256"] for one in sandbox.files] == [sha256(PDF)]
    assert sandbox.calls(f"{PROVIDERS[model_name]}.upload_file") == 2
    assert [target["state"] for target in client.files.retrieve(file.id).filemux["targets"]] == ["stored"]


@streamed_or_not
def test_a_gemini_file_is_sent_again_after_its_48_hours(client, sandbox, stream):
    file = upload(client, "report.pdf", ["gemini-flash"])
    sandbox.advance(49 * HOUR)
    assert sandbox.files == []
    assert sha256(PDF) in said(client, "gemini-flash", file, stream)
    assert [one["sha256"] for one in sandbox.files] == [sha256(PDF)]
    assert sandbox.calls("gemini.upload_file") == 2


@streamed_or_not
@every_model
async def test_a_file_that_is_lost_again_at_once_is_an_error(client, sandbox, lose, model_name, stream):
    provider, operation = PROVIDERS[model_name], "stream_chat" if stream else "chat"
    file = upload(client, "report.pdf", [model_name])
    await lose(file)
    sandbox.fault(provider, operation, status=404, times=2)
    with pytest.raises(openai.BadRequestError):
        said(client, model_name, file, stream)
    assert sandbox.calls(f"{provider}.{operation}") == 2
    assert sandbox.calls(f"{provider}.upload_file") == 2
    assert sha256(PDF) in said(client, model_name, file, stream)


@every_model
def test_a_refusal_that_has_nothing_to_do_with_the_file_costs_a_question(client, sandbox, model_name):
    provider = PROVIDERS[model_name]
    file = upload(client, "report.pdf", [model_name])
    asked = sandbox.calls(f"{provider}.retrieve_file")
    sandbox.fault(provider, "chat", status=400, times=2)
    messages = []
    for parts in ([file_part(file.id)], []):
        with pytest.raises(openai.BadRequestError) as refused:
            ask(client, model_name, text_part("Look:"), *parts)
        messages.append(refused.value.body["message"])
    assert messages[0] == messages[1]
    # Google's providers ask on their own, to tell a missing file from a refusal (wire.md §4c, §5c).
    assert sandbox.calls(f"{provider}.retrieve_file") == asked + (2 if provider in ("gemini", "vertex_ai") else 1)
    assert (sandbox.calls(f"{provider}.chat"), sandbox.calls(f"{provider}.upload_file")) == (2, 1)


@every_model
async def test_without_kept_bytes_the_error_says_what_happened(keepless, sandbox, lose, model_name):
    provider = PROVIDERS[model_name]
    file = upload(keepless, "report.pdf", [model_name])
    await lose(file)
    for _ in range(2):
        with pytest.raises(openai.BadRequestError) as refused:
            said(keepless, model_name, file)
        assert refused.value.code == "file_without_replica"
        assert f"is not at the provider of '{model_name}', and the gateway keeps no copy" in refused.value.message
    assert (sandbox.calls(f"{provider}.chat"), sandbox.calls(f"{provider}.upload_file")) == (1, 1)


async def test_without_kept_bytes_another_provider_may_give_them_back(keepless, sandbox, lose):
    file = upload(keepless, "report.pdf", ["claude-sonnet", "nova-lite"])
    await lose(file, "anthropic")
    assert sha256(PDF) in said(keepless, "claude-sonnet", file)
    assert sorted(one["provider"] for one in sandbox.files) == ["anthropic", "bedrock"]


async def test_one_of_several_files_is_lost(client, sandbox, lose):
    first, second = upload(client, "report.pdf", ["claude-sonnet"]), upload(client, "report.pdf", ["claude-sonnet"])
    await lose(first)
    answer = answer_of(ask(client, "claude-sonnet", file_part(first.id), file_part(second.id)))
    assert answer.count(sha256(PDF)) == 2
    assert sandbox.calls("anthropic.upload_file") == 3
