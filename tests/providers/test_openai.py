"""OpenAI and its likes: what each documented answer means, and what configuration makes of the request."""

import json

import pytest
import stamina
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
from app.formats.batch_lines import CHAT_ENDPOINT, MAX_LINE_BYTES
from app.providers.openai import CAPABILITIES, Compatible, CompatibleParams, OpenAI, OpenAIParams
from app.providers.protocol import NO_LIMIT, BatchError, BatchSubmission, ChatRequest, ProviderBatch
from app.providers.wrappers import ATTEMPTS, Retrying
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


@pytest.mark.parametrize(
    ("status", "unknown"), [(500, False), (502, True), (503, False), (504, True), (520, True), (529, False)]
)
async def test_an_upload_that_a_proxy_has_lost_sight_of_is_not_sent_again(http, status, unknown):
    """The provider may have stored it: nobody would ever delete the first of two."""
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        async with canned(status, body=b"<html>sorry</html>") as (url, requests):
            with pytest.raises(Unavailable) as failed:
                await Retrying(account(http, url)).upload_file(upload_of())
    assert (failed.value.outcome_unknown, len(requests)) == (unknown, 1 if unknown else ATTEMPTS)


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
    elsewhere = account(http, "http://127.0.0.1:1").capabilities
    assert (elsewhere.max_file_bytes, elsewhere.batch.max_bytes, elsewhere.batch.max_lines) == (NO_LIMIT,) * 3


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


# --- batches ------------------------------------------------------------------------------------------------------

BATCH = {"id": "batch_1", "object": "batch", "status": "completed", "created_at": 100}


def described(**facts):
    return json.dumps(BATCH | facts).encode()


def submission(**changes):
    return BatchSubmission(**{"name": "0" * 32, "provider_model": "gpt-4o", "endpoint": CHAT_ENDPOINT} | changes)


def chat_of(text):
    return ChatRequest(
        "gpt-4o", json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}).encode()
    )


async def retrieved(http, body):
    async with canned(body=body) as (url, _):
        return await account(http, url).retrieve_batch("batch_1")


async def results(http, *lines):
    """What is made of an output file of these lines."""
    async with canned(body=b"\n".join(lines)) as (url, _):
        batch = ProviderBatch("batch_1", "completed", result_ids=("file-1",))
        async with account(http, url).read_batch_output(batch) as output:
            return [result async for several in output for result in several]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"status": "Validating"}, {"status": "validating"}),
        ({"created_at": "1970-01-01T00:01:40Z"}, {"created_at": 100}),
        ({"created_at": "", "expires_at": "soon"}, {"created_at": None, "expires_at": None}),
        ({"completed_at": 200, "failed_at": 0, "cancelled_at": None}, {"ended_at": 200}),
        ({"request_counts": None}, {"total": None, "completed": None, "failed": None}),
        ({"request_counts": {"total": 3, "completed": None}}, {"total": 3, "completed": None}),
        ({"metadata": None}, {"name": None, "metadata": {}}),
        ({"metadata": {"filemux": "n", "by": "me"}}, {"name": "n", "metadata": {"by": "me"}}),
        ({"errors": {"object": "list", "data": None}}, {"errors": ()}),
        (
            {"errors": {"data": [{"code": "empty_file", "message": "no lines", "line": None, "param": None}]}},
            {"errors": (BatchError("empty_file", "no lines"),)},
        ),
    ],
)
async def test_a_batch_is_read_in_whichever_way_it_is_described(http, facts, expected):
    batch = await retrieved(http, described(**facts))
    assert {name: getattr(batch, name) for name in expected} == expected


@pytest.mark.parametrize("body", [b"{}", b"[]", described(status="dreaming"), b'{"status": "completed"}'])
async def test_an_answer_that_is_no_batch_is_unavailable(http, body):
    with pytest.raises(Unavailable):
        await retrieved(http, body)
    async with canned(body=body) as (url, _):
        with pytest.raises(Unavailable) as failed:
            await account(http, url).create_batch(submission())
    assert failed.value.outcome_unknown


@pytest.mark.parametrize(("pairs", "named"), [(0, True), (15, True), (16, False)])
async def test_a_name_is_put_in_where_the_callers_metadata_leaves_room(http, pairs, named):
    metadata = {f"key {number}": "mine" for number in range(pairs)}
    async with canned(body=described()) as (url, requests):
        await account(http, url).create_batch(submission(metadata=metadata, input_file_id="file-1"))
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /batches ")
    assert json.loads(body) == {
        "input_file_id": "file-1",
        "endpoint": CHAT_ENDPOINT,
        "completion_window": "24h",
        "metadata": metadata | ({"filemux": "0" * 32} if named else {}),
    }


async def test_a_list_may_be_wrapped_in_value(http):
    async with canned(body=b'{"value": [' + described() + b'], "has_more": true}') as (url, requests):
        page = await account(http, url).list_batches("batch_0", 1)
    assert ([batch.id for batch in page.batches], page.after) == (["batch_1"], "batch_1")
    assert requests[0].startswith(b"GET /batches?limit=1&after=batch_0 ")


async def test_an_id_stays_one_step_of_the_path(http):
    async with canned(body=described()) as (url, requests):
        await account(http, url).retrieve_batch("../files?a")
    assert requests[0].startswith(b"GET /batches/..%2Ffiles%3Fa ")


def test_a_line_is_openais_own(http):
    provider = account(http, "http://127.0.0.1:1")
    body = b'{"model": "gpt-4o",\n "messages": [{"role": "assistant", "content": "a", "reasoning_content": "b"}]}'
    line = provider.batch_line("key", CHAT_ENDPOINT, ChatRequest("gpt-4o", body))
    message = {"role": "assistant", "content": "a"}
    assert json.loads(line) == {
        "custom_id": "key",
        "method": "POST",
        "url": CHAT_ENDPOINT,
        "body": {"model": "gpt-4o", "messages": [message]},
    }
    other = b'{"model": "m",\n "input": ["\\"reasoning_content\\""]}'
    line = provider.batch_line("key", "/v1/embeddings", ChatRequest("m", other))
    assert b"\n" not in line and json.loads(line)["body"] == json.loads(other)
    with pytest.raises(Unsupported):
        provider.batch_line("key", "/v1/files", ChatRequest("m", other))


@pytest.mark.parametrize(
    "body",
    [
        {"reasoning_content": "b"},
        {"messages": None, "reasoning_content": "b"},
        {"messages": [{"role": "user", "content": "reasoning_content"}, "reasoning_content"]},
        {"messages": [{"reasoning_content": "b"}], "metadata": json.loads('{"a":' * 300 + "1" + "}" * 300)},
    ],
    ids=["no messages", "null", "odd messages", "deep"],
)
def test_what_is_wrong_with_a_chat_openai_says_itself(http, body):
    line = account(http, "http://unused").batch_line("key", CHAT_ENDPOINT, ChatRequest("m", json.dumps(body).encode()))
    assert json.loads(line)["body"] == body


async def test_results_say_what_became_of_each_line(http):
    answered = b'{"custom_id": "a", "response": {"status_code": 200, "body": {"id": "c"}}, "error": null}'
    refused = b'{"custom_id": "b", "response": {"status_code": 400, "body": {"error": {}}}}'
    unrun = b'{"custom_id": "c", "response": null, "error": {"code": "batch_expired", "message": "late"}}'
    codeless = b'{"custom_id": "d", "response": {}, "error": {"message": "no"}}'
    a, b, c, d = await results(http, answered, refused, b"", unrun, codeless)
    assert (a.key, a.status, json.loads(a.body)) == ("a", 200, {"id": "c"})
    assert (b.key, b.status, b.succeeded) == ("b", 400, False)
    assert (c.key, c.status, c.code, c.message) == ("c", None, "batch_expired", "late")
    assert (d.key, d.status, d.code, d.message) == ("d", None, None, "no")


@pytest.mark.parametrize("line", [b"{", b"[]", b"null", b"{}", b'{"custom_id": "a"}', b"\xef\xbb\xbf{}"])
async def test_a_result_that_cannot_be_read_is_unavailable(http, line):
    with pytest.raises(Unavailable, match="cannot be read"):
        await results(http, line)


async def test_a_result_may_be_longer_than_a_line_that_is_sent(http):
    line = {"custom_id": "one", "response": {"status_code": 200, "body": {"image": "x" * MAX_LINE_BYTES}}}
    [found] = await results(http, json.dumps(line).encode())
    assert (found.key, len(found.body) > MAX_LINE_BYTES) == ("one", True)


async def test_a_batch_without_results_has_none(http):
    provider = account(http, "http://127.0.0.1:1")
    batch = ProviderBatch("batch_1", "failed")
    async with provider.read_batch_output(batch) as output:
        assert [several async for several in output] == []
    await provider.forget_batch(batch)


@pytest.mark.parametrize("status", [400, 409, 429])
async def test_a_cancel_that_is_refused_while_it_runs_is_a_failure(http, sandbox, status):
    provider = account(http, f"{sandbox.url}/openai/v1")
    line = provider.batch_line("key", CHAT_ENDPOINT, chat_of("slow:60"))
    file = await provider.upload_file(upload_of(line, purpose="batch"))
    batch = await provider.create_batch(submission(input_file_id=file.id))
    sandbox.fault("openai", "cancel_batch", status=status)
    with pytest.raises((Rejected, RateLimited)):
        await provider.cancel_batch(batch.id)
    sandbox.advance(60)
    sandbox.fault("openai", "cancel_batch", status=status)
    await provider.cancel_batch(batch.id)
