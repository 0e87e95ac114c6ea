"""OpenAI and its likes: what each documented answer means, and what configuration makes of the request."""

import json

import pytest
from pydantic import ValidationError

from app.errors import (
    Missing,
    ProviderTooLarge,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from app.providers.openai import CAPABILITIES, Compatible, CompatibleParams, OpenAI, OpenAIParams
from app.providers.protocol import ChatRequest
from tests.support.providers import canned, upload_of


def envelope(message="no", **rest):
    return json.dumps({"error": {"message": message, "type": "error", "param": None, "code": None, **rest}}).encode()


def account(http, url, **params):
    return OpenAI(OpenAIParams.model_validate({"api_base": url, "api_key": "sk-secret", **params}), http)


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (400, envelope("no such purpose", param="purpose", code="invalid_value"), Rejected, "no such purpose"),
        (401, envelope("Incorrect API key provided: sk-secret"), Unauthorized, "credentials (401)"),
        (403, envelope("sk-secret is not allowed"), Unauthorized, "credentials (403)"),
        (404, envelope("No such File object"), Missing, "No such File object"),
        (404, envelope("no such model", code="model_not_found"), Rejected, "no such model"),
        (404, envelope("no such deployment", code="DeploymentNotFound"), Rejected, "no such deployment"),
        (405, envelope(), Unsupported, "no"),
        (413, envelope("too large", param="file"), ProviderTooLarge, "too large"),
        (429, envelope("slow down", code="rate_limit_exceeded"), RateLimited, "slow down"),
        (429, envelope("pay first", code="insufficient_quota"), QuotaExceeded, "pay first"),
        (500, envelope("internals: sk-secret"), Unavailable, "the provider answered 500"),
        (302, b"", Unavailable, "the provider answered 302"),
        (502, b"<html>bad gateway</html>", Unavailable, "the provider answered 502"),
        (400, b"<html>bad request</html>", Rejected, "the provider answered 400"),
        (400, b'{"detail": "of another shape"}', Rejected, "the provider answered 400"),
        (400, b'{"error": "only a string"}', Rejected, "only a string"),
        (400, b'{"object": "error", "message": "vLLM\'s", "code": 40001}', Rejected, "vLLM's"),
        (400, b"[]", Rejected, "the provider answered 400"),
        (400, b'{"error": null}', Rejected, "the provider answered 400"),
    ],
)
async def test_an_answers_meaning_is_in_its_status_and_code(http, status, body, error, message):
    async with canned(status, body=body) as (url, _):
        provider = account(http, url)
        for call in (provider.check, lambda: provider.upload_file(upload_of())):
            with pytest.raises(error) as failed:
                await call()
            assert type(failed.value) is error
            assert failed.value.message.endswith(message)
            assert "sk-secret" not in failed.value.message


async def test_param_and_code_of_a_rejection_are_kept(http):
    async with canned(400, body=envelope(param="purpose", code="invalid_value")) as (url, _):
        with pytest.raises(Rejected) as rejected:
            await account(http, url).check()
    assert (rejected.value.param, rejected.value.code) == ("purpose", "invalid_value")


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_the_wait_is_kept(http, status):
    async with canned(status, {"Retry-After-Ms": "1500"}, envelope()) as (url, _):
        with pytest.raises((RateLimited, Unavailable)) as failed:
            await account(http, url).check()
    assert failed.value.retry_after_seconds == 1.5


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"{}", b"[]"])
async def test_an_answer_that_is_no_file_is_unavailable(http, body):
    async with canned(body=body) as (url, _):
        provider = account(http, url)
        with pytest.raises(Unavailable):
            await provider.retrieve_file("file-1")
        with pytest.raises(Unavailable) as failed:
            await provider.upload_file(upload_of())
    # It was accepted; whether there is a file, only the provider knows.
    assert failed.value.outcome_unknown


async def test_organization_and_project_are_sent(http):
    async with canned(body=b'{"data": []}') as (url, requests):
        await account(http, url + "/", organization="org-1", project="proj_1").check()
    lines = requests[0].decode().lower().split("\r\n")
    assert lines[0] == "get /models http/1.1"
    assert {"authorization: bearer sk-secret", "openai-organization: org-1", "openai-project: proj_1"} <= {*lines}


@pytest.mark.parametrize(("promised", "framing"), [(True, b"content-length: "), (False, b"transfer-encoding: chunked")])
async def test_the_length_is_sent_when_it_is_known(http, promised, framing):
    async with canned(400, body=envelope()) as (url, requests):
        with pytest.raises(Rejected):
            await account(http, url).upload_file(upload_of(promised=promised))
    assert framing in requests[0].lower()


@pytest.mark.parametrize("api_base", ["api.openai.com/v1", "ftp://api.openai.com", ""])
def test_a_base_that_is_no_url_is_refused(api_base):
    with pytest.raises(ValidationError, match="http"):
        OpenAIParams(api_base=api_base, api_key="sk")


def test_a_key_is_never_shown():
    params = OpenAIParams(api_key="sk-secret")
    assert "sk-secret" not in repr(params) and "sk-secret" not in str(params)


def test_the_vendors_limits_are_the_vendors(http):
    assert OpenAI(OpenAIParams(api_key="sk"), http).capabilities == CAPABILITIES
    assert account(http, "http://127.0.0.1:1").capabilities.max_file_bytes > CAPABILITIES.max_file_bytes


def test_a_compatible_server_declares_that_it_has_no_files():
    assert not Compatible.capabilities.stores_files
    assert not Compatible.capabilities.readable and not Compatible.capabilities.lists_files
    assert Compatible.capabilities.batch_input == "none"
    assert "reference" not in Compatible.capabilities.chat_files.values()


async def test_a_compatible_server_needs_no_key(http):
    async with canned(body=b'{"choices": []}') as (url, requests):
        provider = Compatible(CompatibleParams(api_base=f"{url}/v1"), http)
        body = b'{"model": "llama",  "messages": []}'
        assert await provider.chat(ChatRequest("llama", body)) == b'{"choices": []}'
    head, _, sent = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions ") and b"authorization" not in head.lower()
    assert sent == body
