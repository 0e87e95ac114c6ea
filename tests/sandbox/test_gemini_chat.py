"""generateContent at Gemini, through google-genai; what the SDK would never send, by hand."""

import json

import httpx
import pytest
from google.genai import errors, types

from tests.sandbox.conftest import Sandbox, Switchboard
from tests.sandbox.gemini_client import PDF, SECOND, THIRD, ask, line, open_client, parts_of, post, stream, upload


@pytest.fixture
def client(sandbox: Sandbox):
    with open_client(sandbox.base_url) as client:
        yield client


def test_the_answer_names_the_files_and_repeats_the_text(client):
    uploaded = upload(client, display_name="a.pdf")
    contents = [
        uploaded,
        types.Part.from_bytes(data=b"png", mime_type="image/png"),
        types.Part.from_text(text='<file name="b.md">\n# hi\n</file>'),
        types.Part.from_uri(file_uri="https://example.org/c.pdf", mime_type="application/pdf"),
        types.Part.from_text(text="What is "),
        types.Part.from_text(text="this?"),
    ]
    answer = ask(client, contents, system_instruction="Be kind.")
    lines = [line(PDF, "a.pdf"), line(b"png", "upload"), line(b"# hi", "b.md"), "What is this?"]
    assert answer.text.splitlines() == lines
    assert (answer.candidates[0].finish_reason, answer.model_version) == (types.FinishReason.STOP, SECOND)
    usage = answer.usage_metadata
    assert usage.total_token_count == sum(
        (usage.prompt_token_count, usage.candidates_token_count, usage.thoughts_token_count)
    )
    assert usage.cached_content_token_count is None
    assert ask(client, "cached: hi").usage_metadata.cached_content_token_count > 0


@pytest.mark.parametrize("model", ["gemini-2.0-flash", SECOND, THIRD])
def test_a_stream_says_the_same_in_pieces(client, model):
    contents = [upload(client, display_name="a.pdf"), "What is this?"]
    whole = ask(client, contents, model)
    chunks = stream(client, contents, model)
    assert len(chunks) > 3
    assert "".join(chunk.text or "" for chunk in chunks) == whole.text
    assert len({chunk.response_id for chunk in chunks}) == 1
    assert [chunk.candidates[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
    assert chunks[-1].usage_metadata == whole.usage_metadata
    signature = whole.candidates[0].content.parts[-1].thought_signature
    assert parts_of(chunks)[-1].thought_signature == signature
    assert (signature is not None) == (model == THIRD)


async def test_a_stream_is_events_or_a_list(http: httpx.AsyncClient):
    body = {"contents": [{"parts": [{"text": "hi there"}]}]}
    events = await post(http, body, verb="streamGenerateContent?alt=sse")
    assert events.headers["content-type"].startswith("text/event-stream")
    *framed, end = events.text.split("\r\n\r\n")
    assert end == ""
    chunks = [json.loads(event.removeprefix("data: ")) for event in framed]
    assert [chunk["candidates"][0]["content"]["parts"] for chunk in chunks] == [[{"text": "hi "}], [{"text": "there"}]]
    listed = (await post(http, body, verb="streamGenerateContent")).json()
    assert [chunk["candidates"] for chunk in listed] == [chunk["candidates"] for chunk in chunks]


async def test_an_error_of_a_stream_is_listed_too(http: httpx.AsyncClient):
    (listed,) = (await post(http, {}, verb="streamGenerateContent")).json()
    assert listed == (await post(http, {}, verb="streamGenerateContent?alt=sse")).json()
    assert listed["error"]["status"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("version", ["v1", "v1beta", "v1alpha", "v1main"])
def test_a_file_is_good_under_every_version(client, version):
    uploaded = upload(client)
    uri = uploaded.uri.replace("v1beta", version)
    part = types.Part.from_uri(file_uri=uri, mime_type="application/pdf")
    assert ask(client, part).text == line(PDF, uploaded.name.removeprefix("files/"))


async def test_a_file_that_is_gone_or_foreign_is_forbidden(client, http: httpx.AsyncClient, switchboard: Switchboard):
    foreign, deleted, expired = [upload(client).uri for _ in range(3)]
    client.files.delete(name=f"files/{deleted.rpartition('/')[2]}")

    async def status(uri: str, key: str) -> tuple[int, str]:
        body = {"contents": [{"parts": [{"fileData": {"fileUri": uri, "mimeType": "application/pdf"}}]}]}
        answer = await post(http, body, headers={"x-goog-api-key": key})
        return answer.status_code, answer.json().get("error", {}).get("status")

    assert await status(expired, "one") == (200, None)
    assert await status(foreign, "two") == (403, "PERMISSION_DENIED")
    assert await status(deleted, "one") == (403, "PERMISSION_DENIED")
    await switchboard.advance(48 * 3600)
    assert await status(expired, "one") == (403, "PERMISSION_DENIED")


async def test_a_file_must_be_active(client, switchboard: Switchboard):
    slow = upload(client, mime_type="video/mp4")
    failed = upload(client, display_name="it fails")
    for file in (slow, failed):
        with pytest.raises(errors.ClientError) as caught:
            ask(client, file)
        assert (caught.value.code, caught.value.status) == (400, "FAILED_PRECONDITION")
    await switchboard.advance(2)
    assert ask(client, slow).text == line(PDF, slow.name.removeprefix("files/"))
    with pytest.raises(errors.ClientError):
        ask(client, failed)


@pytest.mark.parametrize(
    ("config", "text", "finish_reason"),
    [
        ({"max_output_tokens": 2}, "one two ", "MAX_TOKENS"),
        ({"max_output_tokens": 3}, "one two three", "STOP"),
        ({"stop_sequences": ["three", "two"]}, "one ", "STOP"),
        ({"response_mime_type": "application/json"}, '{"answer":"one two three"}', "STOP"),
        (
            {"response_mime_type": "application/json", "response_json_schema": {"type": "object"}},
            '{"answer":"one two three"}',
            "STOP",
        ),
    ],
)
def test_how_an_answer_ends(client, config, text, finish_reason):
    whole, chunks = ask(client, "one two three", **config), stream(client, "one two three", **config)
    assert whole.text == "".join(chunk.text for chunk in chunks) == text
    for last in (whole, chunks[-1]):
        assert last.candidates[0].finish_reason.value == finish_reason


def test_a_refusal(client):
    for answer in (ask(client, "refuse: that"), *stream(client, "refuse: that")):
        (candidate,) = answer.candidates
        assert (candidate.finish_reason, candidate.content) == (types.FinishReason.SAFETY, None)
    for answer in (ask(client, "refuse:prompt"), *stream(client, "refuse:prompt")):
        assert answer.candidates is None
        assert answer.prompt_feedback.block_reason == types.BlockedReason.PROHIBITED_CONTENT


def test_candidates_and_their_tokens(client):
    config = {"candidate_count": 2, "response_logprobs": True, "logprobs": 2}
    answer = ask(client, "hi there", **config)
    assert [(one.index, one.content.parts[0].text) for one in answer.candidates] == [(0, "hi there"), (1, "hi there")]
    logprobs = answer.candidates[0].logprobs_result
    assert [one.token for one in logprobs.chosen_candidates] == ["hi ", "there"]
    assert [len(one.candidates) for one in logprobs.top_candidates] == [2, 2]
    chunks = stream(client, "hi there", **config)
    assert [chunk.candidates[0].index for chunk in chunks if chunk.candidates[0].finish_reason] == [0, 1]


def test_models(client):
    pager = client.models.list(config={"page_size": 2})
    assert [model.name for model in pager] == [
        "models/gemini-1.5-flash",
        "models/gemini-2.0-flash",
        "models/gemini-2.5-flash",
        "models/gemini-2.5-pro",
        "models/gemini-3-flash",
        "models/gemini-3-pro",
    ]
    assert client.models.get(model=THIRD).name == f"models/{THIRD}"
    for verb in (lambda: client.models.get(model="gemini-1"), lambda: ask(client, "hi", "gemini-1")):
        with pytest.raises(errors.ClientError) as caught:
            verb()
        assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


def test_there_are_no_cached_contents(client):
    with pytest.raises(errors.ClientError) as caught:
        ask(client, "hi", cached_content="cachedContents/a")
    assert caught.value.code == 403


async def test_faults_of_chats(client, switchboard: Switchboard):
    await switchboard.fault(provider="gemini", operation="stream_chat", status=429, retry_after_seconds=3)
    assert ask(client, "hi").text == "hi"
    with pytest.raises(errors.ClientError) as caught:
        stream(client, "hi")
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
    requests = await switchboard.requests()
    assert (requests["gemini.chat"], requests["gemini.stream_chat"]) == (1, 1)
