"""Bedrock: what goes over the wire, with whose credentials, and what is made of the answers and errors."""

import asyncio
import binascii
import dataclasses
import json
import re
import struct
import sys
from contextlib import aclosing
from urllib.parse import quote

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from moto.server import ThreadedMotoServer
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
from app.formats.batch_lines import CHAT_ENDPOINT
from app.providers.bedrock import Bedrock, BedrockParams, frame_events
from app.providers.protocol import BatchOptions, BatchSubmission, ChatRequest
from app.providers.registry import REGISTRY
from tests.support.providers import canned, chunks_of, upload_of

NOVA = "us.amazon.nova-lite-v1:0"
PROFILE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1"
KEYS = {"aws_access_key_id": "AKIATEST", "aws_secret_access_key": "secret"}
USAGE = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
ANSWER = {
    "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
    "stopReason": "end_turn",
    "usage": USAGE,
    "metrics": {"latencyMs": 5},
}


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """A machine on which botocore finds nothing."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_DEFAULT_REGION", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def aws():
    """The URL of moto's S3 and STS, with a bucket named files."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    s3 = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="any", aws_secret_access_key="any"
    )
    s3.create_bucket(Bucket="files")
    s3.close()
    yield url
    server.stop()


def account(http, url, **params):
    return Bedrock(BedrockParams.model_validate({"api_base": url, **params}), http)


def chat_request(model=NOVA, content="hello", *, stream=False):
    body = {"model": model, "messages": [{"role": "user", "content": content}], "stream": stream}
    return ChatRequest(model, json.dumps(body).encode())


def chatting(bedrock):
    return bedrock.chat(chat_request())


async def sent(http, call, **params):
    """The request that a call of an account causes."""
    async with canned(body=json.dumps(ANSWER).encode()) as (url, requests):
        await call(account(http, url, **params))
    return requests[0]


def head_of(request):
    """The request line, and the headers by their names in lower case."""
    line, *fields = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return line, {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}


# --- signatures and credentials ---------------------------------------------------------------------------------


def is_signed(request, secret="secret", region="us-east-1"):
    """Whether the signature is that of the request as it came, by botocore's own arithmetic."""
    line, headers = head_of(request)
    method, path, _ = line.split(" ")
    scope, names, signature = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=\w+/(\S+), SignedHeaders=(\S+), Signature=(\w+)", headers["authorization"]
    ).groups()
    assert scope == f"{headers['x-amz-date'][:8]}/{region}/bedrock/aws4_request"
    covered = {name: headers[name] for name in names.split(";")}
    rebuilt = AWSRequest(method, f"http://{covered['host']}{path}", covered, request.partition(b"\r\n\r\n")[2])
    rebuilt.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials("AKIATEST", secret), "bedrock", region)
    return signature == signer.signature(signer.string_to_sign(rebuilt, signer.canonical_request(rebuilt)), rebuilt)


@pytest.mark.parametrize("model", [NOVA, PROFILE])
async def test_a_chat_is_addressed_and_signed_as_boto3_does_it(http, model):
    with_boto = {"region_name": "us-east-1", "config": Config(retries={"total_max_attempts": 1}), **KEYS}
    messages = [{"role": "user", "content": [{"text": "hello"}]}]
    async with canned(body=json.dumps(ANSWER).encode()) as (url, requests):
        client = boto3.client("bedrock-runtime", endpoint_url=url, **with_boto)
        await asyncio.to_thread(client.converse, modelId=model, messages=messages)
        client.close()
        await account(http, url, **KEYS).chat(chat_request(model))
    theirs, ours = requests
    assert is_signed(theirs) and is_signed(ours)
    assert not is_signed(ours, secret="another")
    assert head_of(ours)[0] == head_of(theirs)[0]
    assert json.loads(ours.partition(b"\r\n\r\n")[2]) == {"messages": messages}


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda bedrock: bedrock.check(), "GET /foundation-models HTTP/1.1"),
        (chatting, "POST /model/us.amazon.nova-lite-v1%3A0/converse HTTP/1.1"),
        (
            lambda bedrock: bedrock.stream_chat(chat_request(stream=True)),
            "POST /model/us.amazon.nova-lite-v1%3A0/converse-stream HTTP/1.1",
        ),
        # So large that it is signed in a thread.
        (
            lambda bedrock: bedrock.chat(chat_request(content="x" * 300_000)),
            "POST /model/us.amazon.nova-lite-v1%3A0/converse HTTP/1.1",
        ),
    ],
)
async def test_every_call_is_signed_for_its_region(http, call, line):
    request = await sent(http, call, aws_region_name="eu-west-3", **KEYS)
    assert head_of(request)[0] == line
    assert is_signed(request, region="eu-west-3")


@pytest.mark.parametrize("call", [chatting, lambda bedrock: bedrock.check()])
async def test_an_api_key_is_sent_instead_of_a_signature(http, call):
    _, headers = head_of(await sent(http, call, api_key="bedrock-api-key"))
    assert headers["authorization"] == "Bearer bedrock-api-key"
    assert "x-amz-date" not in headers


async def test_given_keys_come_first_and_then_what_botocore_finds(http, monkeypatch, tmp_path):
    async def key_of(**params):
        _, headers = head_of(await sent(http, chatting, **params))
        return re.search(r"Credential=(\w+)/", headers["authorization"])[1], headers.get("x-amz-security-token")

    with pytest.raises(Unauthorized):
        await key_of()
    (tmp_path / "AWS_SHARED_CREDENTIALS_FILE").write_text(
        "[default]\naws_access_key_id = DEFAULT\naws_secret_access_key = x\n"
        "[work]\naws_access_key_id = WORK\naws_secret_access_key = x\naws_session_token = token\n"
    )
    assert await key_of() == ("DEFAULT", None)
    assert await key_of(aws_profile_name="work") == ("WORK", "token")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    assert await key_of() == ("ENVIRONMENT", None)
    assert await key_of(**KEYS, aws_session_token="session") == ("AKIATEST", "session")
    with pytest.raises(Unauthorized):
        await key_of(aws_profile_name="nobodys")


async def test_a_role_is_assumed(http, aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws)
    role = {"aws_role_name": "arn:aws:iam::123456789012:role/chat", "aws_session_name": "gateway"}
    _, headers = head_of(await sent(http, chatting, **KEYS, **role))
    assert re.search(r"Credential=ASIA\w+/", headers["authorization"])
    assert headers["x-amz-security-token"]


async def test_a_role_that_cannot_be_asked_for_is_unavailable(http, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(Unavailable):
        await sent(http, chatting, **KEYS, aws_role_name="arn:aws:iam::123456789012:role/chat")


ISSUER = """
import datetime, json, pathlib, sys
count = pathlib.Path(sys.argv[1])
count.write_text(count.read_text() + "x" if count.exists() else "x")
expiry = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=float(sys.argv[2]))
key = f"KEY{len(count.read_text())}"
print(json.dumps({"Version": 1, "AccessKeyId": key, "SecretAccessKey": "x", "Expiration": expiry.isoformat()}))
"""


@pytest.mark.parametrize(("lifetime_seconds", "renewed"), [(60, True), (7200, False)])
async def test_credentials_that_expire_are_renewed_in_time(http, tmp_path, lifetime_seconds, renewed):
    (tmp_path / "issue.py").write_text(ISSUER)
    issue = f"{sys.executable} {tmp_path}/issue.py {tmp_path}/count {lifetime_seconds}"
    (tmp_path / "AWS_CONFIG_FILE").write_text(f"[default]\ncredential_process = {issue}\n")
    async with canned(body=json.dumps(ANSWER).encode()) as (url, requests):
        bedrock = account(http, url)
        await chatting(bedrock)
        await chatting(bedrock)
    first, second = (re.search(r"Credential=(\w+)/", head_of(request)[1]["authorization"])[1] for request in requests)
    assert (first != second) is renewed


# --- answers ----------------------------------------------------------------------------------------------------


def frame(payload, **headers):
    """One message of an event stream (wire.md §6d)."""
    written = b"".join(
        struct.pack("!B", len(name) + 1) + b":" + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in ((name.replace("_", "-"), value) for name, value in headers.items())
    )
    prelude = struct.pack("!II", 16 + len(written) + len(payload), len(written))
    message = prelude + struct.pack("!I", binascii.crc32(prelude)) + written + payload
    return message + struct.pack("!I", binascii.crc32(message))


def event_frame(event_type, payload):
    return frame(
        json.dumps(payload).encode(), message_type="event", event_type=event_type, content_type="application/json"
    )


BEGINNING = event_frame("messageStart", {"role": "assistant"}) + event_frame(
    "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "hi"}}
)
END = (
    event_frame("contentBlockStop", {"contentBlockIndex": 0})
    + event_frame("messageStop", {"stopReason": "end_turn"})
    + event_frame("metadata", {"usage": USAGE, "metrics": {"latencyMs": 4}})
)


async def streamed(http, body):
    """The chunks that a stream of this body is made into."""
    async with canned(body=body, headers={"content-type": "application/vnd.amazon.eventstream"}) as (url, _):
        stream = await account(http, url, **KEYS).stream_chat(chat_request(stream=True))
        async with aclosing(stream):
            sent = b"".join([chunk async for chunk in stream])
    *events, done, rest = sent.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(one.removeprefix("data: ")) for one in events]


async def test_an_answer_is_openais(http):
    async with canned(body=json.dumps(ANSWER).encode()) as (url, _):
        first, second = [json.loads(await chatting(account(http, url, **KEYS))) for _ in range(2)]
    assert first["choices"][0]["message"] == {"role": "assistant", "content": "hi", "refusal": None}
    assert first["model"] == NOVA
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{24}", first["id"])
    assert first["id"] != second["id"]


async def test_a_stream_is_taken_out_of_its_frames(http):
    chunks = await streamed(http, BEGINNING + END)
    assert [choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]] == ["", "hi", None]
    assert len({chunk["id"] for chunk in chunks}) == 1


@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_frames_may_come_in_any_pieces(size):
    kinds = [kind async for event in frame_events(chunks_of(BEGINNING + END, size)) for kind in event]
    assert kinds == ["messageStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"]


BROKEN = bytearray(BEGINNING)
BROKEN[-10] ^= 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        BEGINNING,
        BEGINNING + END[:20],
        bytes(BROKEN) + END,
        b"data: {}\n\ndata: [DONE]\n\n",
        frame(b"no json", message_type="event", event_type="messageStart"),
        frame(b"{}"),
        frame(b"[]", message_type="exception", exception_type="validationException"),
        event_frame("contentBlockStart", {"start": {"toolUse": {}}}),
    ],
)
async def test_a_stream_that_is_broken_or_has_no_end_is_unavailable(http, body):
    with pytest.raises(Unavailable):
        await streamed(http, body)


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"message_type": "exception", "exception_type": "throttlingException"}, RateLimited),
        ({"message_type": "exception", "exception_type": "validationException"}, Rejected),
        ({"message_type": "exception", "exception_type": "modelStreamErrorException"}, Unavailable),
        ({"message_type": "error", "error_code": "InternalError", "error_message": "oh"}, Unavailable),
    ],
)
async def test_an_exception_in_a_stream_is_raised(http, headers, error):
    with pytest.raises(error):
        await streamed(http, BEGINNING + frame(b'{"message": "oh"}', **headers))


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "error", "our_code"),
    [
        (400, "ValidationException", Rejected, None),
        (400, "ServiceQuotaExceededException", QuotaExceeded, "insufficient_quota"),
        (400, "IncompleteSignatureException", Unauthorized, "provider_credentials_refused"),
        (403, "AccessDeniedException", Unauthorized, "provider_credentials_refused"),
        (403, "UnrecognizedClientException", Unauthorized, "provider_credentials_refused"),
        (403, "ExpiredTokenException", Unauthorized, "provider_credentials_refused"),
        (403, "InvalidSignatureException", Unauthorized, "provider_credentials_refused"),
        (404, "ResourceNotFoundException", Rejected, "model_not_found"),
        (408, "ModelTimeoutException", Unavailable, "provider_unavailable"),
        (424, "ModelErrorException", Unavailable, "provider_unavailable"),
        (424, "ModelStreamErrorException", Unavailable, "provider_unavailable"),
        (429, "ThrottlingException", RateLimited, "provider_rate_limited"),
        (429, "ModelNotReadyException", RateLimited, "provider_rate_limited"),
        (500, "InternalServerException", Unavailable, "provider_unavailable"),
        (503, "ServiceUnavailableException", Unavailable, "provider_unavailable"),
        # Without a code, as something between us and AWS may answer.
        (400, None, Rejected, None),
        (401, None, Unauthorized, "provider_credentials_refused"),
        (404, None, Missing, "provider_file_missing"),
        (405, None, Unsupported, "unsupported_by_provider"),
        (408, None, RateLimited, "provider_rate_limited"),
        (413, None, ProviderTooLarge, "file_too_large"),
        (302, None, Unavailable, "provider_unavailable"),
        (502, None, Unavailable, "provider_unavailable"),
    ],
)
async def test_errors_have_their_meaning_by_code_and_status(http, status, code, error, our_code):
    headers = {"retry-after": "7"} | ({"x-amzn-errortype": f"{code}:http://internal.amazon.com/doc/"} if code else {})
    async with canned(status, headers, b'{"message": "what AKIATEST did"}') as (url, _):
        with pytest.raises(error) as failed:
            await account(http, url, **KEYS).check()
    assert type(failed.value) is error
    assert failed.value.code == our_code
    assert failed.value.retry_after_seconds == (7 if error.retryable else None)
    assert ("AKIATEST" in failed.value.message) is (error not in (Unauthorized, Unavailable))


@pytest.mark.parametrize("code", [{}, {"x-amzn-errortype": "ResourceNotFoundException"}])
async def test_a_model_that_does_not_exist_is_a_rejection(http, code):
    async with canned(404, code) as (url, _):
        with pytest.raises(Rejected) as refused:
            await chatting(account(http, url, **KEYS))
    assert refused.value.code == "model_not_found"


# --- files ------------------------------------------------------------------------------------------------------


async def test_files_are_objects_of_the_bucket(http, aws):
    bucket = {"s3_bucket_name": "files", "s3_endpoint_url": aws, "s3_prefix": "/team a/"}
    bedrock = account(http, aws, **KEYS, **bucket)
    large = bytes(range(256)) * 24 * 1024
    small_file = await bedrock.upload_file(upload_of(b"small", replica_id="small", filename="ä b.txt"))
    assert small_file.id == bedrock.chosen_file_id("small") == "s3://files/team a/small"
    assert (small_file.filename, small_file.bytes) == ("ä b.txt", 5)
    large_file = await bedrock.upload_file(upload_of(large, replica_id="large"))
    async with bedrock.read_file(large_file.id) as content:
        assert b"".join([chunk async for chunk in content.chunks]) == large
    again = await bedrock.upload_file(upload_of(b"others", replica_id="small", filename="c"))
    assert again == small_file == await bedrock.retrieve_file(small_file.id)
    page = await bedrock.list_files(None, 1)
    assert [file.id for file in page.files] == [large_file.id]
    assert [file.id for file in (await bedrock.list_files(page.after, 10)).files] == [small_file.id]
    for file in (small_file, large_file):
        await bedrock.delete_file(file.id)
        with pytest.raises(Missing):
            await bedrock.retrieve_file(file.id)


async def test_files_are_reached_with_an_assumed_role(http, aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws)
    role = {"aws_role_name": "arn:aws:iam::123456789012:role/chat", "api_key": "which S3 does not take"}
    bedrock = account(http, aws, **KEYS, **role, s3_bucket_name="files", s3_endpoint_url=aws)
    file = await bedrock.upload_file(upload_of(b"small", replica_id="by-role"))
    await bedrock.delete_file(file.id)


async def test_the_check_needs_the_bucket_too(http, aws):
    async with canned(body=b'{"modelSummaries": []}') as (url, _):
        await account(http, url, **KEYS, s3_bucket_name="files", s3_endpoint_url=aws).check()
        with pytest.raises(Missing, match="there is no bucket nobodys"):
            await account(http, url, **KEYS, s3_bucket_name="nobodys", s3_endpoint_url=aws).check()
        with pytest.raises(Unauthorized):
            await account(http, url, api_key="key", s3_bucket_name="files", s3_endpoint_url=aws).check()


async def test_without_a_bucket_there_are_no_files(http):
    bedrock = account(http, "http://unused", **KEYS)
    assert not bedrock.capabilities.stores_files
    for call in (bedrock.upload_file(upload_of()), bedrock.retrieve_file("x"), bedrock.list_files(None, 1)):
        with pytest.raises(Unsupported):
            await call
    with pytest.raises(Unsupported):
        await bedrock.delete_file("x")
    with pytest.raises(Unsupported):
        await bedrock.read_file("x").__aenter__()
    with pytest.raises(Unsupported):
        bedrock.chosen_file_id("0" * 32)


@pytest.mark.parametrize(
    ("mime_type", "to_nova", "to_others"),
    [
        ("application/pdf", "reference", "inline"),
        ("text/markdown", "reference", "inline"),
        ("image/png", "reference", "inline"),
        ("video/mp4", "reference", "inline"),
        ("audio/mpeg", "reference", "inline"),
        ("text/x-python", "text", "text"),
        ("application/json", "text", "text"),
        ("application/zip", "unsupported", "unsupported"),
    ],
)
def test_how_files_travel(http, mime_type, to_nova, to_others):
    bucket = account(http, "http://unused", s3_bucket_name="files").capabilities
    bare = account(http, "http://unused").capabilities
    assert bucket.carriage(NOVA, mime_type) == bucket.carriage("amazon.nova-pro-v1:0", mime_type) == to_nova
    assert bucket.carriage("us.anthropic.claude-sonnet-5", mime_type) == bare.carriage(NOVA, mime_type) == to_others


@pytest.mark.parametrize(
    ("mime_type", "limit"),
    [("application/pdf", 4_500_000), ("image/png", 3_750_000), ("video/mp4", 18_750_000), ("text/csv", 4_500_000)],
)
def test_how_large_a_file_may_be_inside_a_request(mime_type, limit):
    assert REGISTRY["bedrock"].capabilities.max_inline_bytes(mime_type) == limit


# --- configuration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "runtime", "control"),
    [
        ({}, "https://bedrock-runtime.us-east-1.amazonaws.com", "https://bedrock.us-east-1.amazonaws.com"),
        (
            {"aws_region_name": "eu-west-3"},
            "https://bedrock-runtime.eu-west-3.amazonaws.com",
            "https://bedrock.eu-west-3.amazonaws.com",
        ),
        ({"api_base": "https://proxy/"}, "https://proxy", "https://proxy"),
        ({"aws_bedrock_runtime_endpoint": "https://proxy"}, "https://proxy", "https://proxy"),
        ({"api_base": "https://a", "aws_bedrock_control_endpoint": "https://b"}, "https://a", "https://b"),
        (
            {"aws_bedrock_control_endpoint": "https://b"},
            "https://bedrock-runtime.us-east-1.amazonaws.com",
            "https://b",
        ),
    ],
)
def test_both_planes_have_their_endpoints(params, runtime, control):
    made = BedrockParams.model_validate(params)
    assert (made.runtime_url, made.control_url) == (runtime, control)


@pytest.mark.parametrize(
    ("written", "prefix"), [("filemux/", "filemux/"), ("filemux", "filemux/"), ("/a/b", "a/b/"), ("", ""), ("/", "")]
)
def test_a_prefix_is_a_folder(written, prefix):
    assert BedrockParams(s3_prefix=written).s3_prefix == prefix


@pytest.mark.parametrize(
    "params",
    [
        {"aws_access_key_id": "key"},
        {"aws_secret_access_key": "secret"},
        {"aws_session_token": "token"},
        {**KEYS, "aws_profile_name": "work"},
        {"api_base": "https://a", "aws_bedrock_runtime_endpoint": "https://b"},
        {"api_base": "bedrock-runtime.us-east-1.amazonaws.com"},
        {"aws_region_name": "evil.example/"},
        {"aws_regoin_name": "us-east-1"},
    ],
)
def test_parameters_that_make_no_account_are_refused(params):
    with pytest.raises(ValidationError):
        BedrockParams.model_validate(params)


def test_what_the_environment_says_fills_what_the_file_leaves_out(monkeypatch):
    filling = REGISTRY["bedrock"].filling
    assert filling() == {}
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "key")
    expected = {"aws_region_name": "os.environ/AWS_DEFAULT_REGION", "api_key": "os.environ/AWS_BEARER_TOKEN_BEDROCK"}
    assert filling() == expected
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert filling() == expected | {"aws_region_name": "os.environ/AWS_REGION"}


async def test_an_objects_description_says_what_s3_counts(http):
    headers = {"last-modified": "Sat, 21 Nov 2026 08:00:00 GMT", "x-amz-checksum-sha256": "AAAA"}
    async with canned(headers=headers, body=b"") as (url, requests):
        bucket = {"s3_bucket_name": "files", "s3_endpoint_url": url, "s3_prefix": "a b"}
        file = await account(http, url, **KEYS, **bucket).retrieve_file("s3://files/a b/file")
    line, sent = head_of(requests[0])
    assert line == "HEAD /files/a%20b/file HTTP/1.1"
    assert sent["x-amz-checksum-mode"] == "ENABLED"
    # AWS refuses a header of its own that is not signed.
    assert "x-amz-checksum-mode" in re.search(r"SignedHeaders=(\S+),", sent["authorization"])[1]
    assert (file.filename, file.bytes, file.created_at) == ("file", 0, 1_795_248_000)


async def test_an_answer_that_describes_no_object_is_unavailable(http):
    async with canned(body=b"") as (url, _):
        bedrock = account(http, url, **KEYS, s3_bucket_name="files", s3_endpoint_url=url)
        with pytest.raises(Unavailable, match="does not describe an object"):
            await bedrock.retrieve_file("s3://files/filemux/a")


@pytest.mark.parametrize(
    ("code", "error"),
    [("BadDigest", Unavailable), ("XAmzContentSHA256Mismatch", Unavailable), ("EntityTooLarge", Rejected)],
)
async def test_bytes_that_s3_got_damaged_are_worth_another_try(http, code, error):
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    async with canned(400, body=body) as (url, _):
        bedrock = account(http, url, **KEYS, s3_bucket_name="files", s3_endpoint_url=url)
        with pytest.raises(error) as failed:
            await bedrock.upload_file(upload_of(b"small"))
    assert type(failed.value) is error


# --- batches ----------------------------------------------------------------------------------------------------

ROLE = "arn:aws:iam::123456789012:role/batches"
ARN = "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/abcdef123456"
BUCKET = {"s3_bucket_name": "files"}
BATCH = BatchSubmission("n1", NOVA, CHAT_ENDPOINT, input_file_id="s3://files/filemux/n1.jsonl")


def job(status="Completed", **fields):
    """A job as Bedrock describes it."""
    return {"jobArn": ARN, "jobName": "j", "clientRequestToken": "n1", "modelId": NOVA, "status": status, **fields}


async def submitted(http, batch, **params):
    """What is asked for a batch, and the batch."""
    async with canned(body=json.dumps(job("Submitted")).encode()) as (url, requests):
        made = await account(http, url, **KEYS, **BUCKET, **params).create_batch(batch)
    assert all(is_signed(request) for request in requests)
    assert [head_of(request)[0].partition(" ")[0] for request in requests] == ["POST", "GET"]
    return json.loads(requests[0].partition(b"\r\n\r\n")[2]), made


async def test_a_batch_is_a_job_of_converse(http):
    body, made = await submitted(http, BATCH, aws_batch_role_arn=ROLE)
    assert body == {
        "jobName": "n1",
        "clientRequestToken": "n1",
        "roleArn": ROLE,
        "modelId": NOVA,
        "modelInvocationType": "Converse",
        "inputDataConfig": {"s3InputDataConfig": {"s3Uri": BATCH.input_file_id, "s3InputFormat": "JSONL"}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://files/filemux/n1-output/"}},
        "timeoutDurationInHours": 24,
    }
    assert (made.id, made.name, made.status) == (ARN, "n1", "validating")


async def test_an_api_key_answers_for_batches_too(http):
    async with canned(body=json.dumps(job()).encode()) as (url, requests):
        bedrock = account(http, url, **BUCKET, api_key="a-key", aws_batch_role_arn=ROLE)
        await bedrock.create_batch(BATCH)
        await bedrock.cancel_batch(ARN)
    assert [head_of(request)[1]["authorization"] for request in requests] == ["Bearer a-key"] * 3
    assert head_of(requests[2])[0].endswith("/stop HTTP/1.1")


async def test_what_a_caller_may_say_about_a_job(http):
    options = BatchOptions("s3://files/team/out", "arn:aws:iam::210987654321:role/theirs", "monday")
    batch = dataclasses.replace(BATCH, provider_model=f"converse/{NOVA}", completion_window="48h", options=options)
    body, made = await submitted(http, batch, allowed_buckets=["files/team"], aws_batch_role_arn=ROLE)
    assert (body["jobName"], body["clientRequestToken"], made.name) == ("monday", "n1", "n1")
    assert (body["roleArn"], body["modelId"]) == ("arn:aws:iam::210987654321:role/theirs", NOVA)
    assert body["outputDataConfig"] == {"s3OutputDataConfig": {"s3Uri": "s3://files/team/out/"}}
    assert body["timeoutDurationInHours"] == 48


async def test_results_may_have_a_bucket_and_a_key_of_their_own(http):
    results = {"s3_output_bucket_name": "results", "s3_encryption_key_id": "alias/mine"}
    body, _ = await submitted(http, BATCH, **results, aws_batch_role_arn=ROLE)
    expected = {"s3Uri": "s3://results/filemux/n1-output/", "s3EncryptionKeyId": "alias/mine"}
    assert body["outputDataConfig"] == {"s3OutputDataConfig": expected}


async def test_a_batch_that_cannot_be_is_not_asked_for(http):
    bedrock = account(http, "http://unused", **KEYS, **BUCKET)
    with pytest.raises(Rejected, match="aws_batch_role_arn"):
        await bedrock.create_batch(BATCH)
    bedrock = account(http, "http://unused", **KEYS, **BUCKET, aws_batch_role_arn=ROLE)
    with pytest.raises(Missing):
        await bedrock.create_batch(dataclasses.replace(BATCH, input_file_id="s3://others/n1.jsonl"))
    with pytest.raises(Rejected):
        await bedrock.create_batch(dataclasses.replace(BATCH, options=BatchOptions(output_uri="s3://others/out")))
    with pytest.raises(Unsupported):
        await account(http, "http://unused", **KEYS, aws_batch_role_arn=ROLE).create_batch(BATCH)


def test_how_few_lines_are_too_few_is_the_accounts_quota(http):
    assert account(http, "http://unused", **KEYS, **BUCKET).capabilities.batch.min_lines == 100
    few = account(http, "http://unused", **KEYS, **BUCKET, batch_min_lines=5)
    assert few.capabilities.batch.min_lines == 5
    with pytest.raises(ValidationError):
        BedrockParams(batch_min_lines=0)


TOOL = {"type": "function", "function": {"name": "f"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
HISTORY = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "x"},
]


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({}, True),
        ({"metadata": {"toolConfig": "x"}}, True),
        ({"tools": [TOOL], "tool_choice": "none"}, True),
        ({"tools": [TOOL]}, False),
        ({"messages": HISTORY}, False),
        ({"messages": HISTORY, "tools": [TOOL], "tool_choice": "none"}, False),
    ],
)
def test_a_line_has_no_tools(http, fields, taken):
    bedrock = account(http, "http://unused", **KEYS, **BUCKET)
    body = {"model": NOVA, "messages": [{"role": "user", "content": "hello"}], **fields}
    request = ChatRequest(NOVA, json.dumps(body).encode())
    if not taken:
        with pytest.raises(Unsupported, match="no tools in a batch"):
            bedrock.batch_line("k", CHAT_ENDPOINT, request)
    else:
        line = json.loads(bedrock.batch_line("k", CHAT_ENDPOINT, request))
        assert line["recordId"] == "k" and "toolConfig" not in line["modelInput"]
    with pytest.raises(Unsupported):
        bedrock.batch_line("k", "/v1/embeddings", request)


async def test_a_page_of_jobs_is_asked_for_as_aws_signs_it(http):
    token = "a/b+c=="
    body = json.dumps({"invocationJobSummaries": [job()], "nextToken": token}).encode()
    async with canned(body=body) as (url, requests):
        page = await account(http, url, **KEYS, **BUCKET).list_batches(token, 5000)
    assert (page.batches[0].id, page.after) == (ARN, token)
    line, _ = head_of(requests[0])
    query = "maxResults=1000&sortBy=CreationTime&sortOrder=Descending&nextToken=a%2Fb%2Bc%3D%3D"
    assert line == f"GET /model-invocation-jobs?{query} HTTP/1.1"
    assert is_signed(requests[0])


async def described(http, body, batch_id=ARN):
    async with canned(body=json.dumps(body).encode()) as (url, requests):
        return await account(http, url, **KEYS, **BUCKET).retrieve_batch(batch_id), requests


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ("Submitted", "validating"),
        ("Scheduled", "in_progress"),
        ("Completed", "completed"),
        ("PartiallyCompleted", "expired"),
        ("Expired", "expired"),
        ("Stopping", "cancelling"),
        ("Stopped", "cancelled"),
    ],
)
async def test_the_statuses_of_a_job(http, told, status):
    found, requests = await described(http, job(told, message="about to end"))
    assert (found.status, found.errors) == (status, ())
    path = quote(ARN, safe="")
    assert head_of(requests[0])[0] == f"GET /model-invocation-job/{path} HTTP/1.1"
    assert is_signed(requests[0])


async def test_what_a_job_tells(http):
    counts = {"totalRecordCount": 9, "processedRecordCount": 5, "successRecordCount": 3, "errorRecordCount": 2}
    times = {"submitTime": "2026-11-21T08:00:00Z", "endTime": "2026-11-21T08:00:09.5Z"}
    found, _ = await described(http, job("Failed", message="no access", **counts, **times), "abcdef123456")
    assert (found.total, found.completed, found.failed) == (9, 3, 2)
    assert (found.created_at, found.ended_at, found.expires_at) == (1_795_248_000, 1_795_248_009, None)
    assert [one.message for one in found.errors] == ["no access"]
    another = {key: value for key, value in job().items() if key != "clientRequestToken"}
    assert (await described(http, another))[0].name == "j"


@pytest.mark.parametrize("body", [{}, job("Dreaming"), {"status": "Completed"}])
async def test_an_answer_that_is_no_job_is_unavailable(http, body):
    with pytest.raises(Unavailable):
        await described(http, body)


async def test_a_job_that_does_not_say_where_its_results_are_is_unavailable(http):
    async with canned(body=json.dumps(job()).encode()) as (url, _):
        bedrock = account(http, url, **KEYS, **BUCKET)
        with pytest.raises(Unavailable, match="where the results are"):
            await bedrock.forget_batch(await bedrock.retrieve_batch(ARN))


@pytest.mark.parametrize("batch_id", ["", "..", "../foundation-models", "ABCDEF123456", f"{ARN}/stop", f"{ARN}0"])
async def test_what_no_job_is_called_is_missing(http, batch_id):
    with pytest.raises(Missing):
        await described(http, job(), batch_id)


async def test_an_odd_result_fails_alone_or_is_left_out(http, aws):
    bedrock = account(http, aws, **KEYS, **BUCKET, s3_endpoint_url=aws)
    lines = [
        {"recordId": "1", "modelOutput": ANSWER},
        {"recordId": "2", "modelOutput": {}},
        {"recordId": "3", "error": {"errorCode": 424, "errorMessage": "no"}},
        {"recordId": "4", "error": {}},
        {"modelOutput": ANSWER},
        "text",
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    folder = "n1-output/abcdef123456"
    first, second, manifest = [
        await bedrock.upload_file(upload_of(data, replica_id=f"{folder}/{name}"))
        for name, data in (("a.jsonl.out", content), ("b.jsonl.out", content[:60]), ("manifest.json.out", b"{}"))
    ]
    output = {"s3OutputDataConfig": {"s3Uri": "s3://files/filemux/n1-output/"}}
    async with canned(body=json.dumps(job(outputDataConfig=output)).encode()) as (url, _):
        there = account(http, url, **KEYS, **BUCKET, s3_endpoint_url=aws)
        batch = await there.retrieve_batch(ARN)
        async with there.read_batch_output(batch) as results:
            found = {result.key: result async for several in results for result in several}
        await there.forget_batch(batch)
    assert {key: result.status for key, result in found.items()} == {"1": 200, "2": 503, "3": 424}
    for file in (first, second, manifest):
        with pytest.raises(Missing):
            await bedrock.retrieve_file(file.id)
