"""Gemini: the resumable upload under our own names, what a 403 means, and what each documented answer means."""

import json
from contextlib import aclosing

import pytest
from pydantic import ValidationError

from app.errors import (
    Missing,
    ProviderTooLarge,
    RateLimited,
    Rejected,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from app.formats.batch_lines import CHAT_ENDPOINT
from app.providers.gemini import CAPABILITIES, Gemini, GeminiParams
from app.providers.protocol import BatchSubmission, ChatRequest, ProviderBatch
from app.providers.wrappers import Retrying
from tests.support.providers import canned, upload_of

MODEL, THIRD = "gemini-2.5-flash", "gemini-3-pro"
REPLICA = "0f" * 16


def account(http, url, **params):
    return Gemini(GeminiParams.model_validate({"api_base": url, "api_key": "key", **params}), http)


@pytest.fixture
def gemini(http, sandbox):
    """An account of the sandbox."""
    return account(http, f"{sandbox.url}/gemini")


def named(content=b"some bytes", **fields):
    """An upload whose replica has an id as real ones have."""
    return upload_of(content, replica_id=REPLICA, **fields)


async def processed(provider, file):
    """Ask for a file until it is ready."""
    while not file.ready:
        file = await provider.retrieve_file(file.id)


def asking_about(*file_ids, model=MODEL, stream=False):
    parts = [{"type": "file", "file": {"file_id": file_id, "format": "application/pdf"}} for file_id in file_ids]
    content = [*parts, {"type": "text", "text": "say this back"}]
    body = {"model": model, "messages": [{"role": "user", "content": content}], "stream": stream}
    return ChatRequest(model, json.dumps(body).encode())


# --- files ------------------------------------------------------------------------------------------------------


async def test_a_file_has_its_replicas_name_and_is_known_by_its_uri(gemini):
    file = await gemini.upload_file(named())
    assert file.id.endswith(f"/files/{REPLICA}") and file.ready
    assert (file.filename, file.bytes, file.expires_at - file.created_at) == (
        "a.txt",
        10,
        CAPABILITIES.file_ttl_seconds,
    )
    # Whatever version of the API its uri is of, and by its bare name too.
    for provider_file_id in (file.id, file.id.replace("/v1beta/", "/v1/"), gemini.chosen_file_id(REPLICA)):
        assert await gemini.retrieve_file(provider_file_id) == file


async def test_both_versions_of_the_api_see_the_same_files(gemini, http, sandbox):
    file = await gemini.upload_file(named())
    older = account(http, f"{sandbox.url}/gemini/v1beta", api_version="v1beta")
    assert await older.retrieve_file(file.id) == file
    await older.delete_file(file.id)
    assert sandbox.files == []


@pytest.mark.parametrize("promised", [True, False])
async def test_a_name_that_is_taken_is_the_file_of_an_earlier_attempt(gemini, sandbox, promised):
    file = await gemini.upload_file(named())
    assert await gemini.upload_file(named(promised=promised)) == file
    assert len(sandbox.files) == 1


async def test_a_file_of_another_size_is_not_taken_for_ours(gemini):
    await gemini.upload_file(named())
    with pytest.raises(RateLimited):
        await gemini.upload_file(named(b"others"))


async def test_an_upload_whose_answer_was_lost_is_found_by_its_name(gemini, sandbox):
    sandbox.fault("gemini", "upload_file", lose_answer=True)
    file = await Retrying(gemini).upload_file(named())
    assert [held["id"] for held in sandbox.files] == [file.id]


async def test_sound_and_film_are_processed_first(gemini):
    file = await gemini.upload_file(named(mime_type="video/mp4"))
    assert not file.ready
    with pytest.raises(Rejected, match="not in an ACTIVE state"):
        await gemini.chat(asking_about(file.id))
    await processed(gemini, file)
    assert b"say this back" in await gemini.chat(asking_about(file.id))


async def test_a_file_that_cannot_be_processed_is_rejected_when_it_is_asked_for(gemini):
    file = await gemini.upload_file(named(filename="this fails.mp4"))
    assert not file.ready
    with pytest.raises(Rejected) as rejected:
        await processed(gemini, file)
    assert (rejected.value.message, rejected.value.code) == ("The file could not be processed.", "file_not_processed")
    assert len((await gemini.list_files(None, 10)).files) == 1
    await gemini.delete_file(file.id)


async def test_a_name_is_cut_at_what_google_takes(gemini):
    file = await gemini.upload_file(named(filename="ä" * 600))
    assert file.filename == "ä" * 512


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"{}", b"[]"])
async def test_an_upload_that_does_not_begin_is_unavailable(http, body):
    async with canned(body=body) as (url, requests):
        with pytest.raises(Unavailable) as failed:
            await account(http, url).upload_file(named())
        assert not failed.value.outcome_unknown
    [start] = requests
    assert b"x-goog-upload-command: start" in start.lower()


async def test_an_accepted_upload_without_a_file_is_an_unknown_outcome(http):
    async with canned(body=b"{}") as (session, sent), canned(headers={"x-goog-upload-url": f"{session}/s"}) as (url, _):
        with pytest.raises(Unavailable) as failed:
            await account(http, url).upload_file(named())
    assert failed.value.outcome_unknown
    head, _, body = sent[0].lower().partition(b"\r\n\r\n")
    assert b"x-goog-upload-command: upload, finalize" in head and b"x-goog-upload-offset: 0" in head
    # Its address is its authority.
    assert b"x-goog-api-key" not in head and body == b"some bytes"


# --- a 403 ------------------------------------------------------------------------------------------------------


def reading(provider, file_id):
    return provider.read_file(file_id).__aenter__()


VERBS = {
    "retrieve_file": Gemini.retrieve_file,
    "read_file": reading,
    "delete_file": Gemini.delete_file,
}
each_verb = pytest.mark.parametrize("operation", VERBS)


@each_verb
async def test_a_forbidden_file_is_missing_where_the_key_is_good(gemini, operation):
    with pytest.raises(Missing):
        await VERBS[operation](gemini, "files/never-was")


@each_verb
async def test_a_forbidden_file_is_no_news_where_the_key_is_not(gemini, sandbox, operation):
    file = await gemini.upload_file(named())
    sandbox.fault("gemini", operation, status=403)
    sandbox.fault("gemini", "list_models", status=403)
    with pytest.raises(Unauthorized):
        await VERBS[operation](gemini, file.id)


@pytest.mark.parametrize("operation", ["chat", "stream_chat"])
async def test_a_forbidden_chat_is_for_a_missing_file_if_one_is(gemini, sandbox, operation):
    file = await gemini.upload_file(named(mime_type="application/pdf"))
    request = asking_about(file.id, stream=operation == "stream_chat")
    sandbox.fault("gemini", operation, status=403)
    with pytest.raises(Unauthorized):
        await getattr(gemini, operation)(request)
    await gemini.delete_file(file.id)
    with pytest.raises(Missing):
        await getattr(gemini, operation)(request)


async def test_a_missing_model_is_no_missing_file(gemini):
    file = await gemini.upload_file(named(mime_type="application/pdf"))
    with pytest.raises(Rejected) as rejected:
        await gemini.chat(asking_about(file.id, model="gemini-0"))
    assert rejected.value.code == "model_not_found"


# --- chats, errors, parameters ----------------------------------------------------------------------------------


def showing(part):
    body = {"model": MODEL, "messages": [{"role": "user", "content": [part]}]}
    return ChatRequest(MODEL, json.dumps(body).encode())


@pytest.mark.parametrize(
    "address",
    [
        "{base}/v1beta/files/abc",
        "{base}/else",
        "https://generativelanguage.googleapis.com/v1beta/files/abc",
        "http://x@GenerativeLanguage.GoogleAPIs.com.:443/v1/files/abc",
        "https://generativelanguage\uff0egoogleapis.com/v1beta/files/abc",
        "https://eu-generativelanguage.googleapis.com/v1/files/abc",
        "https://[",
    ],
)
def test_a_file_at_the_provider_is_not_shown_by_its_address(gemini, sandbox, address):
    """Google reads it with the gateway's key, whichever team's it is."""
    url = address.format(base=sandbox.url)
    file = {"type": "file", "file": {"file_url": url}}
    image = {"type": "image_url", "image_url": {"url": url}}
    for part, where in ((file, "file.file_url"), (image, "image_url.url")):
        with pytest.raises(Rejected) as rejected:
            gemini.translated(showing(part))
        assert (rejected.value.param, rejected.value.code) == (f"messages[0].content[0].{where}", "invalid_url")


@pytest.mark.parametrize("url", ["https://x.org/generativelanguage.googleapis.com/a", "data:image/png;base64,aGk="])
def test_any_other_address_is_shown(gemini, url):
    assert gemini.translated(showing({"type": "image_url", "image_url": {"url": url}}))


async def test_a_chat_is_answered_whole_and_streamed(gemini):
    file = await gemini.upload_file(named(b"%PDF", mime_type="application/pdf", filename="a.pdf"))
    whole = json.loads(await gemini.chat(asking_about(file.id, model=f"models/{MODEL}")))
    text = whole["choices"][0]["message"]["content"]
    assert text.startswith("[file filename=a.pdf bytes=4 ") and text.endswith("say this back")
    async with aclosing(await gemini.stream_chat(asking_about(file.id, stream=True))) as stream:
        lines = b"".join([chunk async for chunk in stream]).split(b"\n\n")[:-2]
    chunks = [json.loads(line.removeprefix(b"data: ")) for line in lines]
    assert "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]) == text


def talking(messages):
    tool = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}
    return ChatRequest(THIRD, json.dumps({"model": THIRD, "messages": messages, "tools": [tool]}).encode())


@pytest.mark.parametrize("foreign", [False, True])
async def test_the_third_generation_gets_its_signatures_back_or_a_word_that_there_are_none(gemini, foreign):
    messages = [{"role": "user", "content": "call:lookup"}]
    [choice] = json.loads(await gemini.chat(talking(messages)))["choices"]
    [call] = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls" and "~mux." in call["id"]
    call_id = "call_of_another" if foreign else call["id"]
    messages += [
        {"role": "assistant", "tool_calls": [{**call, "id": call_id}]},
        {"role": "tool", "tool_call_id": call_id, "content": "found it"},
    ]
    [choice] = json.loads(await gemini.chat(talking(messages)))["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("stop", "found it")


def error(message="no", status="INVALID_ARGUMENT", **details):
    found = [{"@type": f"type.googleapis.com/google.rpc.{kind}", **detail} for kind, detail in details.items()]
    return json.dumps({"error": {"code": 400, "message": message, "status": status, "details": found}}).encode()


WRONG_KEY = error("API key not valid: sk-secret", ErrorInfo={"reason": "API_KEY_INVALID", "domain": "googleapis.com"})


@pytest.mark.parametrize(
    ("status", "body", "meaning", "message"),
    [
        (400, error("bad field"), Rejected, "bad field"),
        (400, WRONG_KEY, Unauthorized, "credentials (400)"),
        (400, b"[" + error("in a list") + b"]", Rejected, "in a list"),
        (401, error("sk-secret"), Unauthorized, "credentials (401)"),
        (403, error("sk-secret was leaked"), Unauthorized, "credentials (403)"),
        (404, error("not here"), Missing, "not here"),
        (405, error("no"), Unsupported, "no"),
        (409, error("there is one"), RateLimited, "there is one"),
        (413, error("too large"), ProviderTooLarge, "too large"),
        (429, error("slow down"), RateLimited, "slow down"),
        (499, error("cancelled"), Rejected, "cancelled"),
        (500, error("internals: sk-secret"), Unavailable, "the provider answered 500"),
        (302, b"", Unavailable, "the provider answered 302"),
        (502, b"<html>bad gateway</html>", Unavailable, "the provider answered 502"),
        (400, b"<html>bad request</html>", Rejected, "the provider answered 400"),
        (400, b"[]", Rejected, "the provider answered 400"),
        (400, b'{"error": "only a string"}', Rejected, "the provider answered 400"),
        (400, b'{"error": null}', Rejected, "the provider answered 400"),
    ],
)
async def test_an_answers_meaning_is_in_its_status_and_reason(http, status, body, meaning, message):
    async with canned(status, body=body) as (url, _):
        with pytest.raises(meaning) as failed:
            await account(http, url).check()
    assert type(failed.value) is meaning
    assert failed.value.message.endswith(message)
    assert "sk-secret" not in failed.value.message


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [
        ({}, {"RetryInfo": {"retryDelay": "7.5s"}}, 7.5),
        ({"retry-after": "3"}, {"RetryInfo": {"retryDelay": "7s"}}, 3),
        ({}, {"RetryInfo": {"retryDelay": "soon"}}, None),
        ({}, {"QuotaFailure": {}}, None),
    ],
)
async def test_the_wait_is_in_a_header_or_in_the_details(http, headers, details, seconds):
    async with canned(429, headers, error(status="RESOURCE_EXHAUSTED", **details)) as (url, _):
        with pytest.raises(RateLimited) as limited:
            await account(http, url).check()
    assert limited.value.retry_after_seconds == seconds


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1beta/"])
@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_the_base_may_be_written_in_every_way(http, suffix, version):
    async with canned() as (url, requests):
        await account(http, url + suffix, api_version=version).check()
    head = requests[0].decode().lower()
    assert head.startswith(f"get /{version}/models?pagesize=1 ") and "x-goog-api-key: key" in head


@pytest.mark.parametrize("params", [{}, {"api_key": "k", "api_version": "v2"}, {"api_key": "k", "api_base": "x.org"}])
def test_parameters_that_are_wrong_are_refused(params):
    with pytest.raises(ValidationError):
        GeminiParams.model_validate(params)


# --- batches ----------------------------------------------------------------------------------------------------

SUBMITTED = BatchSubmission("a" * 32, MODEL, CHAT_ENDPOINT, input_file_id=f"https://a.test/v1beta/files/{REPLICA}")
SAID = {"candidates": [{"content": {"parts": [{"text": "hi"}], "role": "model"}, "finishReason": "STOP"}]}


def operation(state="SUCCEEDED", response=None, error=None, **metadata):
    """A batch as the API shows it."""
    told = {
        "model": f"models/{MODEL}",
        "displayName": "a" * 32,
        "state": f"BATCH_STATE_{state}",
        "createTime": "2026-11-20T00:00:00.123456789Z",
        "inputConfig": {"fileName": f"files/{REPLICA}"},
        **metadata,
    }
    shown = {"name": "batches/b1", "metadata": told, "response": response, "error": error}
    return {name: value for name, value in shown.items() if value is not None}


def with_responses(shown, *lines):
    """What a canned server says of a batch, and of its file of responses."""

    def answer(request):
        if b":download?alt=media" in request.partition(b"\r\n")[0]:
            return b"\n".join(lines)
        return json.dumps(shown).encode()

    return answer


async def described(http, **told):
    async with canned(body=json.dumps(operation(**told)).encode()) as (url, _):
        return await account(http, url).retrieve_batch("batches/b1")


async def results_of(http, shown, *lines):
    """Key → result."""
    batch = ProviderBatch("batches/b1", "completed")
    answer = with_responses(shown, *lines)
    async with canned(body=answer) as (url, _), account(http, url).read_batch_output(batch) as output:
        return {result.key: result async for several in output for result in several}


def text_of(result):
    answer = json.loads(result.body)
    return answer["model"], answer["choices"][0]["message"]["content"]


def test_a_line_is_the_request_that_a_chat_would_be(http):
    line = json.loads(account(http, "http://127.0.0.1").batch_line("key-1", CHAT_ENDPOINT, asking_about()))
    assert line["key"] == "key-1"
    assert line["request"]["contents"] == [{"role": "user", "parts": [{"text": "say this back"}]}]


async def test_a_batch_names_its_file_as_google_does(http):
    async with canned(body=json.dumps(operation("PENDING")).encode()) as (url, requests):
        batch = await account(http, url).create_batch(SUBMITTED)
    assert (batch.id, batch.status, batch.name) == ("batches/b1", "validating", "a" * 32)
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(f"POST /v1/models/{MODEL}:batchGenerateContent ".encode())
    lines = {"fileName": f"files/{REPLICA}"}
    assert json.loads(body) == {"batch": {"displayName": "a" * 32, "inputConfig": lines}}


async def test_lines_that_are_in_no_file_are_rejected(gemini):
    with pytest.raises(Rejected):
        await gemini.create_batch(BatchSubmission("a" * 32, MODEL, CHAT_ENDPOINT))


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}"])
async def test_a_batch_may_exist_when_its_answer_cannot_be_read(http, body):
    async with canned(body=body) as (url, _):
        with pytest.raises(Unavailable) as failed:
            await account(http, url).create_batch(SUBMITTED)
    assert failed.value.outcome_unknown


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("PENDING", "validating"),
        ("RUNNING", "in_progress"),
        ("SUCCEEDED", "completed"),
        ("FAILED", "failed"),
        ("CANCELLED", "cancelled"),
        ("EXPIRED", "expired"),
        ("OF_TOMORROW", "in_progress"),
    ],
)
async def test_a_batch_is_described_in_openais_words(http, state, status):
    batch = await described(http, state=state, endTime="2026-11-20T00:01:00Z")
    assert (batch.status, batch.endpoint, batch.input_file_id) == (status, CHAT_ENDPOINT, f"files/{REPLICA}")
    assert (batch.expires_at - batch.created_at, batch.ended_at - batch.created_at) == (48 * 3600, 60)
    assert (batch.total, batch.completed, batch.failed) == (None, None, None)


async def test_counts_are_texts_and_left_out_when_they_are_zero(http):
    batch = await described(http, batchStats={"requestCount": "3", "successfulRequestCount": "3"})
    assert (batch.total, batch.completed, batch.failed) == (3, 3, 0)


async def test_a_batch_that_failed_says_why(http):
    batch = await described(http, state="FAILED", error={"code": 3, "message": "line 7 is no JSON"})
    assert [error.message for error in batch.errors] == ["line 7 is no JSON"]


@pytest.mark.parametrize("place", ["metadata", "response"])
async def test_responses_are_found_wherever_they_are_told(http, place):
    def told(output):
        return operation(output=output) if place == "metadata" else operation(response=output)

    line = json.dumps({"key": "a", "response": SAID}).encode()
    results = await results_of(http, told({"responsesFile": "files/batch-b1"}), line)
    assert text_of(results["a"]) == (MODEL, "hi")
    inlined = [{"metadata": {"key": "b"}, "response": SAID}, {"metadata": {"key": "c"}, "error": {"code": 14}}]
    results = await results_of(http, told({"inlinedResponses": {"inlinedResponses": inlined}}))
    assert text_of(results["b"]) == (MODEL, "hi")
    assert (results["c"].status, results.keys()) == (503, {"b", "c"})


async def test_a_batch_without_an_output_has_no_results(http):
    assert await results_of(http, operation("CANCELLED")) == {}


@pytest.mark.parametrize("field", ["error", "status"])
@pytest.mark.parametrize(("code", "status"), [(3, 400), (7, 403), (8, 429), (13, 500), (404, 404), (None, 500)])
async def test_a_failed_line_has_the_status_of_its_code(http, field, code, status):
    line = json.dumps({"key": "a", field: {"code": code, "message": "oh"}}).encode()
    failed = (await results_of(http, operation(output={"responsesFile": "files/batch-b1"}), line))["a"]
    assert (failed.status, failed.succeeded) == (status, False)
    assert json.loads(failed.body)["error"]["message"] == "oh"


@pytest.mark.parametrize("odd", [{"response": {"candidates": 7}}, {"response": {"a": 1}}, {"error": "oh"}, {}])
async def test_a_line_that_cannot_be_read_fails_alone(http, odd):
    lines = [{"key": "a", "response": SAID}, {"key": "odd", **odd}, {"response": SAID}, {"key": "b", "response": SAID}]
    shown = operation(output={"responsesFile": "files/batch-b1"})
    results = await results_of(http, shown, b"{not JSON", *(json.dumps(line).encode() for line in lines))
    assert results.keys() == {"a", "odd", "b"}
    assert results["odd"].status >= 500 and json.loads(results["odd"].body)["error"]["message"]


async def test_an_expired_file_of_responses_is_missing(gemini, sandbox):
    line = gemini.batch_line("a", CHAT_ENDPOINT, asking_about())
    file = await gemini.upload_file(named(line))
    batch = await gemini.create_batch(BatchSubmission("a" * 32, MODEL, CHAT_ENDPOINT, input_file_id=file.id))
    sandbox.advance(2)
    assert (await gemini.retrieve_batch(batch.id)).status == "completed"
    sandbox.advance(CAPABILITIES.file_ttl_seconds)
    with pytest.raises(Missing):
        async with gemini.read_batch_output(batch):
            pass
    await gemini.forget_batch(batch)
    with pytest.raises(Missing):
        await gemini.retrieve_batch(batch.id)


async def test_a_wrong_key_is_not_a_wrong_batch(http, sandbox):
    with pytest.raises(Unauthorized):
        await account(http, f"{sandbox.url}/gemini", api_key="bad").create_batch(SUBMITTED)


async def test_an_input_that_is_gone_is_missing(gemini):
    with pytest.raises(Missing):
        await gemini.create_batch(SUBMITTED)
