"""Azure OpenAI: which URL and which header its two forms have, and what its purposes become."""

import json
import re

import pytest
from pydantic import ValidationError

from app.errors import Unsupported
from app.providers.azure import Azure, AzureParams
from app.providers.protocol import ChatRequest
from tests.support.providers import canned, upload_of

DATED = "2024-10-21"


async def sent(http, call, **params):
    """The request line and the headers that a call of an Azure account causes."""
    async with canned(body=b'{"id": "file-1"}') as (url, requests):
        base = url + params.pop("suffix", "")
        credential = {} if "azure_ad_token" in params else {"api_key": "secret"}
        await call(Azure(AzureParams.model_validate({"api_base": base, **credential, **params}), http))
    head = requests[0].partition(b"\r\n\r\n")[0].decode()
    line, *headers = head.split("\r\n")
    return line.removesuffix(" HTTP/1.1"), {header.lower() for header in headers}


def retrieving(azure):
    return azure.retrieve_file("assistant-1")


def listing(azure):
    return azure.list_batches(None, 5)


def chatting(azure):
    return azure.chat(ChatRequest("my gpt/4o", b"{}"))


@pytest.mark.parametrize("suffix", ["", "/", "/openai", "/openai/", "/openai/v1", "/openai/v1/"])
@pytest.mark.parametrize(
    ("api_version", "file_line", "chat_line"),
    [
        ("v1", "GET /openai/v1/files/assistant-1", "POST /openai/v1/chat/completions"),
        ("latest", "GET /openai/v1/files/assistant-1", "POST /openai/v1/chat/completions"),
        (
            DATED,
            f"GET /openai/files/assistant-1?api-version={DATED}",
            f"POST /openai/deployments/my%20gpt%2F4o/chat/completions?api-version={DATED}",
        ),
    ],
)
async def test_the_base_may_be_written_in_every_way(http, suffix, api_version, file_line, chat_line):
    assert (await sent(http, retrieving, suffix=suffix, api_version=api_version))[0] == file_line
    query = f"api-version={DATED}&" if api_version == DATED else ""
    prefix = file_line.partition("/files")[0]
    assert (await sent(http, listing, suffix=suffix, api_version=api_version))[0] == f"{prefix}/batches?{query}limit=5"
    assert (await sent(http, chatting, suffix=suffix, api_version=api_version))[0] == chat_line


@pytest.mark.parametrize("api_version", ["v1", DATED])
@pytest.mark.parametrize(
    ("credential", "header", "absent"),
    [
        ({"api_key": "secret"}, "api-key: secret", "authorization"),
        ({"azure_ad_token": "secret"}, "authorization: bearer secret", "api-key"),
    ],
)
async def test_the_credential_is_sent_in_its_own_header(http, api_version, credential, header, absent):
    for call in (retrieving, chatting):
        _, headers = await sent(http, call, api_version=api_version, **credential)
        assert header in headers
        assert not any(one.startswith(absent) for one in headers)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"api_key": "key", "azure_ad_token": "token"},
        {"api_key": "key", "api_version": "2024"},
        {"api_key": "key", "api_version": "2024-10-21-beta"},
        {"api_key": "key", "api_base": "example.openai.azure.com"},
        {"api_key": "key", "azure_deployment": "unknown"},
    ],
)
def test_parameters_that_make_no_account_are_refused(params):
    with pytest.raises(ValidationError):
        AzureParams.model_validate({"api_base": "https://example.openai.azure.com", **params})


@pytest.mark.parametrize(
    ("purpose", "at_azure"),
    [("user_data", "assistants"), *((same, same) for same in ("assistants", "batch", "fine-tune", "vision"))],
)
async def test_purposes_become_those_that_azure_has(http, sandbox, purpose, at_azure):
    params = AzureParams(api_base=f"{sandbox.url}/azure", api_key="key", api_version=DATED)
    file = await Azure(params, http).upload_file(upload_of(purpose=purpose))
    assert [(held["id"], held["purpose"]) for held in sandbox.files] == [(file.id, at_azure)]
    assert re.match(r"assistant-" if at_azure == "assistants" else r"file-", file.id)


def test_batches_have_the_endpoints_that_azure_runs(http):
    azure = Azure(AzureParams(api_base="https://example.openai.azure.com", api_key="key"), http)
    line = azure.batch_line("key", "/v1/responses", ChatRequest("my-gpt", b'{"model": "my-gpt", "input": "a"}'))
    assert json.loads(line)["body"] == {"model": "my-gpt", "input": "a"}
    with pytest.raises(Unsupported):
        azure.batch_line("key", "/v1/embeddings", ChatRequest("my-gpt", b"{}"))
    assert azure.capabilities.batch.max_lines == 100_000
