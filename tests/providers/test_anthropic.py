"""Anthropic: both versions and both headers, what goes over the wire, and what is made of the answers and errors."""

import json
import re
from contextlib import aclosing

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
from app.formats import tool_calls
from app.formats.batch_lines import CHAT_ENDPOINT
from app.formats.openai import FileFacts
from app.providers import translated
from app.providers.anthropic import MAX_EXPIRY_SECONDS, MIN_EXPIRY_SECONDS, Anthropic, AnthropicParams
from app.providers.protocol import BatchSubmission, ChatRequest, ProviderBatch, ProviderFile
from tests.support.providers import canned, chunks_of, upload_of

NEWEST, OLDER = "2026-10-21", "2023-06-01"
MODEL = "claude-sonnet-4-5"
PDF = {"mime_type": "application/pdf", "filename": "a.pdf"}
FILE = {
    "id": "file_011",
    "type": "file",
    "filename": "a.pdf",
    "mime_type": "application/pdf",
    "size_bytes": 5,
    "created_at": "2026-11-20T00:00:00Z",
    "downloadable": False,
    "expires_at": None,
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [{"type": "text", "text": "hi", "citations": None}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
both_ways = pytest.mark.parametrize("stream", [False, True])
both_versions = pytest.mark.parametrize("version", [NEWEST, OLDER])


def account(http, url, **params):
    return Anthropic(AnthropicParams.model_validate({"api_base": url, "api_key": "sk-secret", **params}), http)


@pytest.fixture
def anthropic(http, sandbox):
    """An account of the sandbox."""
    return account(http, f"{sandbox.url}/anthropic")


def encoded(body):
    return json.dumps(body).encode()


def chat_request(*messages, file_id=None, stream=False, model=MODEL, drop_params=False, **parameters):
    content = [{"type": "text", "text": "say this back"}]
    if file_id:
        content.append({"type": "file", "file": {"file_id": file_id}})
    said = list(messages) or [{"role": "user", "content": content}]
    body = encoded({"model": model, "messages": said, "stream": stream, **parameters})
    return ChatRequest(model, body, files={file_id: FileFacts("application/pdf", "a.pdf")}, drop_params=drop_params)


async def asked(provider, *messages, stream=False, **options):
    """The chunks of an answer, or the one object that it is."""
    request = chat_request(*messages, stream=stream, **options)
    if not stream:
        return [json.loads(await provider.chat(request))]
    async with aclosing(await provider.stream_chat(request)) as answer:
        *events, done, rest = b"".join([chunk async for chunk in answer]).split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


def text_of(bodies):
    choices = [choice for body in bodies for choice in body["choices"]]
    return "".join((choice.get("message") or choice["delta"]).get("content") or "" for choice in choices)


async def sent(http, call, answer=MESSAGE, **params):
    """The request line, the headers, and the body that a call of an account causes."""
    async with canned(body=encoded(answer)) as (url, requests):
        await call(account(http, url + params.pop("suffix", ""), **params))
    head, _, body = requests[0].partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    return line.removesuffix(" HTTP/1.1"), {header.lower() for header in headers}, body


async def message_sent(http, *messages, params=None, **options):
    """The body of the message that a chat becomes with an account of these parameters."""
    request = chat_request(*messages, **options)
    return json.loads((await sent(http, lambda provider: provider.chat(request), **(params or {})))[2])


# --- the wire ---------------------------------------------------------------------------------------------------


def checking(provider):
    return provider.check()


def chatting(provider):
    return provider.chat(chat_request())


def streaming(provider):
    return provider.stream_chat(chat_request(stream=True))


def uploading(provider):
    return provider.upload_file(upload_of())


async def reading(provider):
    async with provider.read_file("file_011"):
        pass


CALLS = [
    ("GET /v1/models?limit=1", checking),
    ("POST /v1/messages", chatting),
    ("POST /v1/messages", streaming),
    ("POST /v1/files", uploading),
    ("GET /v1/files/file_011", lambda provider: provider.retrieve_file("file_011")),
    ("GET /v1/files/file_011/content", reading),
    ("GET /v1/files?limit=10", lambda provider: provider.list_files(None, 10)),
    ("DELETE /v1/files/file_011", lambda provider: provider.delete_file("file_011")),
]


@pytest.mark.parametrize(("line", "call"), CALLS)
@pytest.mark.parametrize(
    ("params", "expected", "absent"),
    [
        ({}, {f"anthropic-version: {NEWEST}", "authorization: bearer sk-secret"}, ["x-api-key", "anthropic-workspace"]),
        (
            {"api_version": OLDER, "auth_header": "x-api-key", "workspace_id": "wrkspc_1"},
            {f"anthropic-version: {OLDER}", "x-api-key: sk-secret", "anthropic-workspace-id: wrkspc_1"},
            ["authorization"],
        ),
        ({"auth_header": "x-api-key"}, {f"anthropic-version: {NEWEST}", "x-api-key: sk-secret"}, ["authorization"]),
    ],
)
async def test_every_call_says_who_asks_and_in_which_version(http, line, call, params, expected, absent):
    asked_for, headers, _ = await sent(http, call, MESSAGE | FILE, **params)
    assert asked_for == line
    assert expected <= headers
    assert not any(header.startswith(name) for header in headers for name in (*absent, "anthropic-beta"))


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_the_base_may_be_written_in_every_way(http, suffix):
    assert (await sent(http, chatting, suffix=suffix))[0] == "POST /v1/messages"


@pytest.mark.parametrize(
    "params",
    [
        {"api_key": None},
        {"api_base": "api.anthropic.com"},
        {"api_version": "2026-10-22"},
        {"auth_header": "bearer"},
        {"max_tokens": 0},
        {"workspace": "wrkspc_1"},
    ],
)
def test_parameters_that_make_no_account_are_refused(params):
    with pytest.raises(ValidationError):
        AnthropicParams.model_validate({"api_key": "sk-secret", **params})


def test_a_key_is_never_shown():
    params = AnthropicParams(api_key="sk-secret")
    assert "sk-secret" not in repr(params) and "sk-secret" not in str(params)


# --- files ------------------------------------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("auth_header", ["authorization", "x-api-key"])
async def test_a_file_is_kept_described_listed_and_deleted(http, sandbox, version, auth_header):
    provider = account(http, f"{sandbox.url}/anthropic", api_version=version, auth_header=auth_header)
    file = await provider.upload_file(upload_of(b"%PDF-", **PDF))
    assert (file.filename, file.bytes, file.purpose, file.expires_at, file.ready) == ("a.pdf", 5, None, None, True)
    assert await provider.retrieve_file(file.id) == file
    assert (await provider.list_files(None, 10)).files == (file,)
    await provider.delete_file(file.id)
    with pytest.raises(Missing):
        await provider.delete_file(file.id)


async def test_what_the_vendor_says_of_a_file(http):
    async with canned(body=encoded({**FILE, "expires_at": "2026-11-21T00:00:00.5+00:00"})) as (url, _):
        file = await account(http, url).retrieve_file("file_011")
    assert file == ProviderFile("file_011", "a.pdf", 5, None, 1_795_132_800, 1_795_219_200)


@pytest.mark.parametrize(
    ("asked_for", "sent_on"),
    [
        (None, None),
        (1, MIN_EXPIRY_SECONDS),
        (86_400, 86_400),
        (MAX_EXPIRY_SECONDS + 1, MAX_EXPIRY_SECONDS),
    ],
)
async def test_an_expiry_is_what_the_vendor_takes(http, asked_for, sent_on):
    upload = upload_of(expires_after_seconds=asked_for)
    _, _, body = await sent(http, lambda provider: provider.upload_file(upload), FILE)
    field = b'name="expires_in_seconds"\r\n\r\n%d\r\n' % (sent_on or 0)
    assert (field in body) is (sent_on is not None)
    assert (b"expires_in_seconds" in body) is (sent_on is not None)
    assert b"purpose" not in body


async def test_an_expired_file_is_missing(anthropic, sandbox):
    file = await anthropic.upload_file(upload_of(expires_after_seconds=3600, **PDF))
    assert file.expires_at - file.created_at == 3600
    sandbox.advance(3601)
    for call in (anthropic.retrieve_file(file.id), asked(anthropic, file_id=file.id)):
        with pytest.raises(Missing):
            await call


async def test_what_was_uploaded_is_not_given_back(anthropic):
    file = await anthropic.upload_file(upload_of())
    with pytest.raises(Rejected) as refused:
        async with anthropic.read_file(file.id):
            pass
    assert refused.value.code == "file_not_downloadable"


async def test_what_a_tool_has_made_is_given_back(http):
    async with canned(body=b"bytes") as (url, _), account(http, url).read_file("file_011") as content:
        assert content.size_bytes == 5
        assert b"".join([chunk async for chunk in content.chunks]) == b"bytes"


@both_versions
async def test_pages_follow_one_another_to_the_end(http, sandbox, version):
    provider = account(http, f"{sandbox.url}/anthropic", api_version=version)
    uploaded = [(await provider.upload_file(upload_of())).id for _ in range(5)]
    found, after = [], None
    for size in (2, 2, 1):
        page = await provider.list_files(after, 2)
        assert len(page.files) == size
        found, after = found + [file.id for file in page.files], page.after
    assert (sorted(found), after) == (sorted(uploaded), None)


@pytest.mark.parametrize(
    ("page", "following"),
    [
        ({"next_page": "page_a=/+b"}, "page=page_a%3D/%2Bb"),
        ({"next_page": None}, None),
        ({"next_page": ""}, None),
        ({"has_more": True, "first_id": "file_3", "last_id": "file_2"}, "after_id=file_2"),
        ({"has_more": False, "first_id": "file_3", "last_id": "file_2"}, None),
        ({"has_more": True, "first_id": None, "last_id": None}, None),
        ({}, None),
    ],
)
async def test_a_page_goes_on_in_the_shape_in_which_it_came(http, page, following):
    async with canned(body=encoded({"data": [FILE], **page})) as (url, requests):
        provider = account(http, url)
        found = await provider.list_files(None, 5000)
        assert [file.id for file in found.files] == ["file_011"]
        assert requests.pop().startswith(b"GET /v1/files?limit=1000 ")
        assert (found.after is None) is (following is None)
        if found.after:
            await provider.list_files(found.after, 10)
            assert requests.pop().startswith(f"GET /v1/files?limit=10&{following} ".encode())


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"{}", b"[]"])
async def test_an_answer_that_is_no_file_is_unavailable(http, body):
    async with canned(body=body) as (url, _):
        provider = account(http, url)
        with pytest.raises(Unavailable) as failed:
            await provider.retrieve_file("file_011")
        assert not failed.value.outcome_unknown
        with pytest.raises(Unavailable) as failed:
            await provider.upload_file(upload_of())
    # It was accepted; whether there is a file, only the provider knows.
    assert failed.value.outcome_unknown


def test_the_vendor_chooses_the_ids(http):
    with pytest.raises(Unsupported):
        account(http, "http://unused").chosen_file_id("replica")


# --- chats ------------------------------------------------------------------------------------------------------


@both_ways
@both_versions
async def test_a_chat_about_a_file(http, sandbox, version, stream):
    provider = account(http, f"{sandbox.url}/anthropic", api_version=version)
    file = await provider.upload_file(upload_of(b"%PDF-", **PDF))
    text = text_of(await asked(provider, file_id=file.id, stream=stream))
    assert text.startswith("[file filename=a.pdf bytes=5 ") and text.endswith("say this back")


@pytest.mark.parametrize(
    ("params", "given", "max_tokens"),
    [
        ({}, {}, 4096),
        ({"max_tokens": 100}, {}, 100),
        ({"max_tokens": 100}, {"max_tokens": 200}, 200),
        ({}, {"max_completion_tokens": 5}, 5),
    ],
)
async def test_the_answers_limit_is_the_callers_or_the_accounts(http, params, given, max_tokens):
    assert (await message_sent(http, params=params, **given))["max_tokens"] == max_tokens


@both_ways
async def test_sampling_is_left_out_and_said_in_the_newest_version(anthropic, stream):
    first, *others = await asked(anthropic, stream=stream, temperature=0.5, top_p=0.9)
    assert first["filemux"] == {"dropped_params": ["temperature", "top_p"]}
    assert not any("filemux" in chunk for chunk in others)


@both_ways
async def test_sampling_is_sent_as_far_as_it_goes_in_the_older_version(http, sandbox, stream):
    provider = account(http, f"{sandbox.url}/anthropic", api_version=OLDER)
    answer = await asked(provider, stream=stream, temperature=1.5, top_p=0.9)
    assert text_of(answer) == "say this back" and "filemux" not in answer[0]
    body = await message_sent(http, params={"api_version": OLDER}, temperature=1.5, top_p=0.9)
    assert (body["temperature"], body["top_p"]) == (1, 0.9)


@both_ways
async def test_what_the_vendor_does_not_have_is_refused_or_dropped_and_said(anthropic, sandbox, stream):
    with pytest.raises(Unsupported) as refused:
        await asked(anthropic, stream=stream, seed=7)
    assert refused.value.param == "seed"
    assert sandbox.calls("anthropic.chat") + sandbox.calls("anthropic.stream_chat") == 0
    answer = await asked(anthropic, stream=stream, seed=7, n=2, drop_params=True)
    assert answer[0]["filemux"] == {"dropped_params": ["n", "seed"]}
    assert text_of(answer) == "say this back"


def calling(call_id):
    call = {"id": call_id, "type": "function", "function": {"name": "lookup", "arguments": "{}"}}
    return (
        {"role": "user", "content": "go on"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": "found it"},
    )


async def test_thinking_comes_back_in_a_calls_id_and_the_sandbox_knows_it_again(anthropic):
    tool = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}
    options = {"tools": [tool], "reasoning_effort": "low"}
    question = {"role": "user", "content": "call:lookup"}
    [answer] = await asked(anthropic, question, **options)
    [call] = answer["choices"][0]["message"]["tool_calls"]
    messages = calling(call["id"])
    assert "found it" in text_of(await asked(anthropic, *messages, **options))
    # Without it the turn is refused.
    with pytest.raises(Rejected, match="thinking"):
        await asked(anthropic, *calling(tool_calls.without_extra(call["id"])), **options)


FORGERIES = {
    "a file of another team": tool_calls.with_extra(
        "toolu_1", "anthropic", [{"type": "document", "source": {"type": "file", "file_id": "file_of_another"}}]
    ),
    "no list": tool_calls.with_extra("toolu_1", "anthropic", {"type": "thinking"}),
    "another vendor's": tool_calls.with_extra("toolu_1", "gemini", "c2ln"),
    "nothing that is packed": f"toolu_1{tool_calls.MARK}AAAA",
    "no base64": f"toolu_1{tool_calls.MARK}ü",
}


@pytest.mark.parametrize("forged", FORGERIES.values(), ids=FORGERIES)
async def test_a_forged_call_id_brings_nothing_in(http, forged):
    honest = await message_sent(http, *calling("toolu_1"))
    assert await message_sent(http, *calling(forged)) == honest


async def test_a_forged_signature_is_the_vendors_to_refuse(anthropic):
    thought = {"type": "thinking", "thinking": "hm", "signature": "Zm9yZ2Vk"}
    with pytest.raises(Rejected, match="signature"):
        await asked(anthropic, *calling(tool_calls.with_extra("toolu_1", "anthropic", [thought])))


# --- errors -----------------------------------------------------------------------------------------------------


def envelope(message="no", kind="invalid_request_error", code=None):
    error = {"type": kind, "message": message, "details": code and {"error_code": code}}
    return encoded({"type": "error", "error": error, "request_id": "req_1"})


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (400, envelope("bad field"), Rejected, "bad field"),
        (400, envelope("full", code="storage_quota_exceeded"), QuotaExceeded, "full"),
        (401, envelope("invalid sk-secret", "authentication_error"), Unauthorized, "credentials (401)"),
        (402, envelope("pay first", "billing_error"), QuotaExceeded, "pay first"),
        (403, envelope("not for sk-secret", "permission_error"), Unauthorized, "credentials (403)"),
        (404, envelope("not here", "not_found_error"), Missing, "not here"),
        (404, envelope("too late", "not_found_error", "file_expired"), Missing, "too late"),
        (405, envelope(), Unsupported, "no"),
        (408, envelope("too slow"), RateLimited, "too slow"),
        (409, envelope("wait", "conflict_error"), RateLimited, "wait"),
        (413, envelope("too large", "request_too_large"), ProviderTooLarge, "too large"),
        (422, envelope("odd"), Rejected, "odd"),
        (429, envelope("slow down", "rate_limit_error"), RateLimited, "slow down"),
        (
            429,
            envelope("enough spent", "rate_limit_error", "workspace_spend_limit_reached"),
            QuotaExceeded,
            "enough spent",
        ),
        (500, envelope("internals: sk-secret", "api_error"), Unavailable, "the provider answered 500"),
        (504, envelope("timed out", "timeout_error"), Unavailable, "the provider answered 504"),
        (529, envelope("overloaded", "overloaded_error"), Unavailable, "the provider answered 529"),
        (302, b"", Unavailable, "the provider answered 302"),
        (502, b"<html>bad gateway</html>", Unavailable, "the provider answered 502"),
        (400, b"<html>bad request</html>", Rejected, "the provider answered 400"),
        (400, b"[]", Rejected, "the provider answered 400"),
        (400, b'{"error": "only a string"}', Rejected, "the provider answered 400"),
        (400, b'{"error": null}', Rejected, "the provider answered 400"),
    ],
)
async def test_an_answers_meaning_is_in_its_status_and_code(http, status, body, error, message):
    async with canned(status, {"retry-after": "7"}, body) as (url, _):
        provider = account(http, url)
        for call in (provider.check, lambda: provider.upload_file(upload_of()), lambda: reading(provider)):
            with pytest.raises(error) as failed:
                await call()
            assert type(failed.value) is error
            assert failed.value.message.endswith(message)
            assert "sk-secret" not in failed.value.message
            assert failed.value.retry_after_seconds == (7 if error.retryable else None)


@pytest.mark.parametrize(
    ("code", "expected"), [(None, "invalid_request_error"), ("file_not_downloadable", "file_not_downloadable")]
)
async def test_the_code_of_a_rejection_is_kept_or_its_type(http, code, expected):
    async with canned(400, body=envelope(code=code)) as (url, _):
        with pytest.raises(Rejected) as rejected:
            await account(http, url).check()
    assert rejected.value.code == expected


@both_ways
async def test_a_missing_file_and_a_missing_model_are_told_apart(anthropic, stream):
    """The vendor answers both with the same 404."""
    file = await anthropic.upload_file(upload_of(**PDF))
    with pytest.raises(Rejected) as rejected:
        await asked(anthropic, file_id=file.id, model="claude-0", stream=stream)
    assert rejected.value.code == "model_not_found"
    await anthropic.delete_file(file.id)
    for model in (MODEL, "claude-0"):
        with pytest.raises(Missing):
            await asked(anthropic, file_id=file.id, model=model, stream=stream)


def sse(*events):
    return b"".join(f"event: {event['type']}\n".encode() + b"data: " + encoded(event) + b"\n\n" for event in events)


BEGINNING = (
    {"type": "message_start", "message": MESSAGE | {"content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
)


@pytest.mark.parametrize("said", [(), BEGINNING[:1], BEGINNING])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("overloaded_error", Unavailable),
        ("api_error", Unavailable),
        ("rate_limit_error", RateLimited),
        ("invalid_request_error", Rejected),
        ("an_error_of_tomorrow", Unavailable),
    ],
)
async def test_an_error_in_a_stream_is_raised_behind_what_was_said(http, said, kind, error):
    failure = {"type": "error", "error": {"type": kind, "message": "oh"}}
    received = bytearray()

    async def read(url):
        async with aclosing(await account(http, url).stream_chat(chat_request(stream=True))) as stream:
            async for chunk in stream:
                received.extend(chunk)

    async with canned(body=sse(*said, failure, {"type": "message_stop"})) as (url, _):
        with pytest.raises(error) as failed:
            await read(url)
    assert type(failed.value) is error
    assert (b'"content":"hi"' in received) is (said == BEGINNING)
    assert b"[DONE]" not in received


# --- batches ----------------------------------------------------------------------------------------------------

ZERO = {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
BATCH = {
    "id": "msgbatch_1",
    "type": "message_batch",
    "processing_status": "ended",
    "request_counts": ZERO | {"succeeded": 1},
    "created_at": "2026-11-20T00:00:00Z",
    "expires_at": "2026-11-21T00:00:00Z",
    "ended_at": "2026-11-20T00:01:00Z",
    "cancel_initiated_at": None,
    "results_url": None,
}


def submission(content=b"{}\n", chunk_bytes=64 * 1024):
    return BatchSubmission("a" * 32, MODEL, CHAT_ENDPOINT, open=lambda: chunks_of(content, chunk_bytes))


def line_of(text, key="key-1", stream=False):
    request = chat_request({"role": "user", "content": text}, stream=stream)
    return account(None, "http://127.0.0.1").batch_line(key, CHAT_ENDPOINT, request)


def with_results(*lines):
    """What a canned server says of a batch, and of its results, which are at its own host."""

    def answer(request):
        if b"/results" in request.partition(b"\r\n")[0]:
            return b"\n".join(lines)
        [host] = re.findall(rb"(?i)\r\nhost: (\S+)", request)
        return encoded(BATCH | {"results_url": f"http://{host.decode()}/v1/messages/batches/msgbatch_1/results"})

    return answer


async def results_of(http, answer):
    """Key → result."""
    batch = ProviderBatch("msgbatch_1", "completed")
    async with canned(body=answer) as (url, _), account(http, url).read_batch_output(batch) as output:
        return await by_key(output)


async def by_key(output):
    return {result.key: result async for several in output for result in several}


def succeeded(key, message=MESSAGE):
    return encoded({"custom_id": key, "result": {"type": "succeeded", "message": message}})


def test_a_line_is_the_message_that_a_chat_would_be():
    line = json.loads(line_of("hi"))
    assert line["custom_id"] == "key-1"
    assert line["params"]["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert "stream" not in line["params"]


@pytest.mark.parametrize("key", ["", "a" * 65, "a b", "ä", "a\n"])
def test_a_key_that_anthropic_does_not_take_is_rejected(key):
    with pytest.raises(Rejected) as rejected:
        line_of("hi", key=key)
    assert rejected.value.param == "custom_id"


def test_a_batch_neither_streams_nor_embeds(http):
    with pytest.raises(Rejected, match="does not stream"):
        line_of("hi", stream=True)
    with pytest.raises(Unsupported, match="/v1/embeddings"):
        account(http, "http://127.0.0.1").batch_line("key-1", "/v1/embeddings", chat_request())


@pytest.mark.parametrize("chunk_bytes", [1, 50, 10_000])
async def test_the_lines_travel_as_one_list(anthropic, sandbox, chunk_bytes):
    lines = b"".join(line_of("two\nlines", f"key-{number}") + b"\n" for number in range(3))
    batch = await anthropic.create_batch(submission(lines, chunk_bytes))
    assert (batch.total, batch.name) == (3, None)
    sandbox.advance(2)
    async with anthropic.read_batch_output(batch) as output:
        results = await by_key(output)
    assert results.keys() == {"key-0", "key-1", "key-2"}
    assert all(b"two\\nlines" in result.body for result in results.values())


async def test_lines_in_a_file_are_unsupported(anthropic):
    with pytest.raises(Unsupported, match="with the batch itself"):
        await anthropic.create_batch(BatchSubmission("a" * 32, MODEL, CHAT_ENDPOINT, input_file_id="file_1"))


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}"])
async def test_a_batch_may_exist_when_its_answer_cannot_be_read(http, body):
    async with canned(body=body) as (url, _):
        with pytest.raises(Unavailable) as failed:
            await account(http, url).create_batch(submission())
    assert failed.value.outcome_unknown


@pytest.mark.parametrize(
    ("told", "status", "counts"),
    [
        ({"processing_status": "in_progress", "request_counts": ZERO | {"processing": 3}}, "in_progress", (3, 0, 0)),
        ({"processing_status": "canceling"}, "cancelling", (1, 1, 0)),
        ({"cancel_initiated_at": "2026-11-20T00:00:30Z"}, "cancelled", (1, 1, 0)),
        ({"request_counts": ZERO | {"expired": 2}}, "expired", (2, 0, 2)),
        ({"request_counts": ZERO | {"expired": 2, "succeeded": 1}}, "completed", (3, 1, 2)),
        ({"request_counts": ZERO | {"errored": 2, "canceled": 1}}, "completed", (3, 0, 3)),
        ({"processing_status": "a status of tomorrow"}, "in_progress", (1, 1, 0)),
    ],
)
async def test_a_batch_is_described_in_openais_words(http, told, status, counts):
    async with canned(body=encoded(BATCH | told)) as (url, _):
        batch = await account(http, url).retrieve_batch("msgbatch_1")
    assert (batch.status, (batch.total, batch.completed, batch.failed)) == (status, counts)
    assert (batch.expires_at - batch.created_at, batch.ended_at - batch.created_at) == (24 * 3600, 60)
    assert batch.endpoint == CHAT_ENDPOINT


@pytest.mark.parametrize(
    ("kind", "status"),
    [("invalid_request_error", 400), ("rate_limit_error", 429), ("overloaded_error", 529), ("one_of_tomorrow", 500)],
)
async def test_an_errored_line_has_the_status_of_its_type(http, kind, status):
    error = {"type": "error", "error": {"type": kind, "message": "oh", "details": None}, "request_id": "req_1"}
    line = encoded({"custom_id": "a", "result": {"type": "errored", "error": error}})
    failed = (await results_of(http, with_results(line)))["a"]
    assert failed.status == status
    error = json.loads(failed.body)["error"]
    assert (error["message"], error["code"]) == ("oh", kind)


async def test_a_line_that_never_ran_says_why(http):
    lines = [encoded({"custom_id": kind, "result": {"type": kind}}) for kind in ("canceled", "expired")]
    results = await results_of(http, with_results(*lines))
    assert {key: (result.status, result.code) for key, result in results.items()} == {
        "canceled": (None, "batch_cancelled"),
        "expired": (None, "batch_expired"),
    }
    assert all(result.message for result in results.values())


@pytest.mark.parametrize(
    "result",
    [
        None,
        {"type": "succeeded"},
        {"type": "succeeded", "message": None},
        {"type": "succeeded", "message": {"id": "msg_1"}},
        {"type": "errored", "error": {"type": "error"}},
        {"type": "a type of tomorrow"},
    ],
)
async def test_a_line_that_cannot_be_read_fails_alone(http, result):
    odd = encoded({"custom_id": "odd", "result": result})
    results = await results_of(http, with_results(succeeded("a"), odd, b"{not JSON", b"[]", b"{}", succeeded("b")))
    assert results.keys() == {"a", "odd", "b"}
    assert (results["odd"].status, results["odd"].succeeded) == (503, False)
    assert "cannot be read" in json.loads(results["odd"].body)["error"]["message"]
    for key in ("a", "b"):
        answer = json.loads(results[key].body)
        assert (answer["model"], answer["choices"][0]["message"]["content"]) == ("claude-x", "hi")


async def test_a_line_without_an_end_is_unavailable(http, monkeypatch):
    monkeypatch.setattr(translated, "MAX_RESULT_LINE_BYTES", 1000)
    with pytest.raises(Unavailable, match="results cannot be read"):
        await results_of(http, with_results(b"x" * 1001))


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/results", "https://api.anthropic.com/results", "/results"])
async def test_results_are_fetched_from_the_accounts_host_alone(http, address):
    async with canned(body=encoded(BATCH | {"results_url": address})) as (url, requests):
        with pytest.raises(Unavailable, match="another host"):
            async with account(http, url).read_batch_output(ProviderBatch("msgbatch_1", "completed")):
                pass
    assert len(requests) == 1


async def test_results_that_are_kept_no_more_are_missing(http):
    async with canned(body=encoded(BATCH)) as (url, _):
        with pytest.raises(Missing):
            async with account(http, url).read_batch_output(ProviderBatch("msgbatch_1", "completed")):
                pass
