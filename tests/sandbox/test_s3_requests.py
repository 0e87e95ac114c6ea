"""What S3 checks in a request: signature, payload, checksums, framing. By hand, for boto3 would not send most of it."""

import asyncio
import base64
import hashlib
import random
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import google_crc32c
import httpx
import pytest
from botocore.exceptions import ClientError

from tests.sandbox.conftest import Sandbox, Switchboard
from tests.sandbox.s3_client import BUCKET, code_of, error_code, open_client, put, signed
from tests.sandbox.tls_front import tls_front

_CHUNKED = {
    "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "content-encoding": "aws-chunked",
    "x-amz-trailer": "x-amz-checksum-crc32",
    "x-amz-decoded-content-length": "5",
}


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


_CRC32 = _base64(zlib.crc32(b"hello").to_bytes(4, "big"))
_CRC32C = _base64(google_crc32c.value(b"hello").to_bytes(4, "big"))
_SHA256 = _base64(hashlib.sha256(b"hello").digest())
_MD5 = _base64(hashlib.md5(b"hello").digest())


def _at(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y%m%dT%H%M%SZ")


@pytest.fixture
def client(sandbox: Sandbox):
    client = open_client(f"{sandbox.base_url}/s3")
    yield client
    client.close()


@pytest.mark.parametrize(
    ("old", "new", "code", "status"),
    [
        ("AWS4-HMAC-SHA256 Credential", "AWS4-HMAC-SHA1 Credential", "AccessDenied", 403),
        ("AKIAONE", "badone", "InvalidAccessKeyId", 403),
        ("/s3/", "/bedrock/", "AuthorizationHeaderMalformed", 400),
        ("/aws4_request", "", "AuthorizationHeaderMalformed", 400),
        (", Signature=", ", Signature=x", "AuthorizationHeaderMalformed", 400),
        ("x-amz-date", "date", "AccessDenied", 403),
        ("host;", "", "AccessDenied", 403),
    ],
)
async def test_the_signature_is_in_order(http: httpx.AsyncClient, old, new, code, status):
    path = f"/s3/{BUCKET}/a"
    headers = signed("GET", str(http.base_url.join(path)))
    headers["authorization"] = headers["authorization"].replace(old, new)
    answer = await http.get(path, headers=headers)
    assert (answer.status_code, error_code(answer)) == (status, code)
    assert answer.headers["x-amz-request-id"] in answer.text


@pytest.mark.parametrize(
    ("headers", "code", "status"),
    [
        ({"x-amz-date": -0.3}, "RequestTimeTooSkewed", 403),
        ({"x-amz-date": 0.3}, "RequestTimeTooSkewed", 403),
        ({"x-amz-date": "yesterday"}, "AccessDenied", 403),
        ({"x-amz-date": "20200101T000000Z"}, "AuthorizationHeaderMalformed", 400),
        ({"x-amz-content-sha256": "nonsense"}, "InvalidArgument", 400),
        ({"x-amz-content-sha256": hashlib.sha256(b"other").hexdigest()}, "XAmzContentSHA256Mismatch", 400),
        ({"content-md5": "nonsense!"}, "InvalidDigest", 400),
        ({"content-md5": _base64(bytes(16))}, "BadDigest", 400),
        ({"x-amz-checksum-crc32": _base64(bytes(4))}, "BadDigest", 400),
        ({"x-amz-checksum-crc32c": _CRC32}, "BadDigest", 400),
        ({"x-amz-checksum-sha256": _base64(bytes(32))}, "BadDigest", 400),
        ({"x-amz-checksum-crc32": _CRC32, "x-amz-checksum-sha256": _SHA256}, "InvalidRequest", 400),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, "InvalidRequest", 400),
        ({"x-amz-sdk-checksum-algorithm": "SHA1"}, "NotImplemented", 501),
        ({"x-amz-copy-source": f"/{BUCKET}/b"}, "NotImplemented", 501),
        ({"x-amz-acl": "private"}, "NotImplemented", 501),
        ({"if-match": "x"}, "NotImplemented", 501),
        ({"if-none-match": '"etag"'}, "NotImplemented", 501),
    ],
)
async def test_a_put_that_is_wrong_stores_nothing(http, sandbox, switchboard: Switchboard, headers, code, status):
    # A number is a time so many hours from now, when the test runs.
    headers = {name: value if isinstance(value, str) else _at(value) for name, value in headers.items()}
    answer = await put(http, "a", b"hello", headers)
    assert (answer.status_code, error_code(answer)) == (status, code), answer.text
    assert await switchboard.files() == [] and sandbox.blobs() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("crc32", _CRC32), ("crc32c", _CRC32C), ("sha256", _SHA256)],
)
async def test_a_checksum_is_given_back(http: httpx.AsyncClient, name, value):
    checksum = {f"x-amz-checksum-{name}": value}
    answer = await put(http, "a", b"hello", checksum | {"content-md5": _MD5})
    assert answer.status_code == 200 and answer.headers.items() >= checksum.items()
    url = str(http.base_url.join(f"/s3/{BUCKET}/a"))
    asked = await http.get(url, headers=signed("GET", url, headers={"x-amz-checksum-mode": "ENABLED"}))
    assert asked.headers.items() >= checksum.items() and asked.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert f"x-amz-checksum-{name}" not in (await http.get(url, headers=signed("GET", url))).headers


async def test_an_unsigned_payload(http: httpx.AsyncClient):
    assert (await put(http, "a", b"hello", {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})).status_code == 200


async def test_a_request_without_signature_payload_digest_or_length(http: httpx.AsyncClient):
    path = f"/s3/{BUCKET}/a"
    answer = await http.get(path)
    assert (answer.status_code, error_code(answer)) == (403, "AccessDenied")
    headers = signed("PUT", str(http.base_url.join(path)), b"hello")
    without = {name: value for name, value in headers.items() if name != "x-amz-content-sha256"}
    assert error_code(await http.put(path, content=b"hello", headers=without)) == "InvalidRequest"

    async def chunks():
        yield b"hello"

    answer = await http.put(path, content=chunks(), headers=headers)
    assert (answer.status_code, error_code(answer)) == (411, "MissingContentLength")


@pytest.mark.parametrize("data", [b"", b"hello", random.Random(3).randbytes(2_500_000)])
async def test_over_https_boto_sends_chunks_and_a_trailer(sandbox: Sandbox, tmp_path: Path, data):
    async with tls_front(sandbox.base_url, tmp_path) as (url, certificate):
        client = open_client(f"{url}/s3", verify=str(certificate))
        sent = {}
        client.meta.events.register("before-send.s3", lambda request, **_: sent.update(request.headers))
        put = await asyncio.to_thread(client.put_object, Bucket=BUCKET, Key="a", Body=data)
        assert sent["X-Amz-Content-SHA256"] == b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        got = await asyncio.to_thread(client.get_object, Bucket=BUCKET, Key="a", ChecksumMode="ENABLED")
        assert await asyncio.to_thread(got["Body"].read) == data
        assert got["ChecksumCRC32"] == put["ChecksumCRC32"]
        assert "ContentEncoding" not in got
        client.close()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (f"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:{_CRC32}\r\n\r\n", None),
        (f"2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Amz-Checksum-Crc32: {_CRC32}\r\n\r\n", None),
        ("5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", "BadDigest"),
        ("5\r\nhello\r\n0\r\n\r\n", "MalformedTrailerError"),
        (f"4\r\nhell\r\n0\r\nx-amz-checksum-crc32:{_CRC32}\r\n\r\n", "IncompleteBody"),
        (f"5\r\nhello!\r\n0\r\nx-amz-checksum-crc32:{_CRC32}\r\n\r\n", "IncompleteBody"),
        (f"five\r\nhello\r\n0\r\nx-amz-checksum-crc32:{_CRC32}\r\n\r\n", "IncompleteBody"),
        ("5\r\nhello\r\n", "IncompleteBody"),
        ("hello", "IncompleteBody"),
        ("h" * 3000, "IncompleteBody"),
    ],
)
async def test_chunks_and_a_trailer(http: httpx.AsyncClient, switchboard: Switchboard, body, code):
    answer = await put(http, "a", body.encode(), _CHUNKED)
    if code is None:
        assert answer.status_code == 200
        assert [file["sha256"] for file in await switchboard.files()] == [hashlib.sha256(b"hello").hexdigest()]
    else:
        assert (answer.status_code, error_code(answer)) == (400, code)
        assert await switchboard.files() == []


def test_an_upload_with_checksums_has_one_for_each_part(client):
    at = {"Bucket": BUCKET, "Key": "a"}
    at["UploadId"] = client.create_multipart_upload(**at, ChecksumAlgorithm="SHA256")["UploadId"]
    with pytest.raises(ClientError, match="Checksum Type mismatch") as failed:
        client.upload_part(**at, PartNumber=1, Body=b"x")  # with a CRC32
    assert code_of(failed) == ("InvalidRequest", 400)
    part = client.upload_part(**at, PartNumber=1, Body=b"x", ChecksumAlgorithm="SHA256")
    named = {"PartNumber": 1, "ETag": part["ETag"]}
    with pytest.raises(ClientError, match="missing for part 1"):
        client.complete_multipart_upload(**at, MultipartUpload={"Parts": [named]})
    with pytest.raises(ClientError, match="InvalidPart"):
        client.complete_multipart_upload(**at, MultipartUpload={"Parts": [named | {"ChecksumSHA256": _SHA256}]})
    parts = [named | {"ChecksumSHA256": part["ChecksumSHA256"]}]
    done = client.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})
    digest = hashlib.sha256(hashlib.sha256(b"x").digest()).digest()
    assert (done["ChecksumSHA256"], done["ChecksumType"]) == (f"{_base64(digest)}-1", "COMPOSITE")


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x", ""])
async def test_the_number_of_a_part(http: httpx.AsyncClient, client, number):
    upload_id = client.create_multipart_upload(Bucket=BUCKET, Key="a")["UploadId"]
    answer = await put(http, f"a?partNumber={number}&uploadId={upload_id}", b"x")
    assert (answer.status_code, error_code(answer)) == (400, "InvalidArgument")


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("a?uploadId={}", ""),
        ("a?uploadId={}", "<CompleteMultipartUpload></CompleteMultipartUpload>"),
        ("a?uploadId={}", "<CompleteMultipartUpload><Part><ETag>x</ETag></Part></CompleteMultipartUpload>"),
        ("a?uploadId={}", "<CompleteMultipartUpload><Part>1</Part></CompleteMultipartUpload>"),
        ("a?uploadId={}", "<Delete><Object><Key>a</Key></Object></Delete>"),
        ("?delete", "<Delete></Delete>"),
        ("?delete", "<Delete><Object><Name>a</Name></Object></Delete>"),
        ("?delete", "<Delete>"),
    ],
)
async def test_xml_that_is_wrong(http: httpx.AsyncClient, client, query, body):
    upload_id = client.create_multipart_upload(Bucket=BUCKET, Key="a")["UploadId"]
    url = str(http.base_url.join(f"/s3/{BUCKET}/{query.format(upload_id)}")).replace("/?", "?")
    headers = {"content-md5": _base64(hashlib.md5(body.encode()).digest())}
    answer = await http.post(url, content=body, headers=signed("POST", url, body.encode(), headers))
    assert (answer.status_code, error_code(answer)) == (400, "MalformedXML")


async def test_a_delete_of_many_has_a_digest(http: httpx.AsyncClient):
    url = str(http.base_url.join(f"/s3/{BUCKET}?delete"))
    body = b"<Delete><Object><Key>a</Key></Object></Delete>"
    assert error_code(await http.post(url, content=body, headers=signed("POST", url, body))) == "InvalidRequest"


@pytest.mark.parametrize("path", [f"{BUCKET}/a?acl", f"{BUCKET}?location", BUCKET, "", f"{BUCKET}/"])
async def test_what_is_not_simulated_says_so(http: httpx.AsyncClient, path):
    url = str(http.base_url.join(f"/s3/{path}"))
    answer = await http.get(url, headers=signed("GET", url))
    assert (answer.status_code, error_code(answer)) == (501, "NotImplemented")


@pytest.mark.parametrize("query", ["list-type=1", "list-type=2&max-keys=x", "list-type=2&continuation-token=x"])
async def test_a_list_that_is_wrong(http: httpx.AsyncClient, query):
    url = str(http.base_url.join(f"/s3/{BUCKET}?{query}"))
    answer = await http.get(url, headers=signed("GET", url))
    assert (answer.status_code, error_code(answer)) == (400, "InvalidArgument")


def test_a_key_is_not_too_long(client):
    client.put_object(Bucket=BUCKET, Key="é" * 512, Body=b"x")
    with pytest.raises(ClientError) as failed:
        client.put_object(Bucket=BUCKET, Key="é" * 512 + "x", Body=b"x")
    assert code_of(failed) == ("KeyTooLongError", 400)


def test_a_wrong_key(sandbox: Sandbox):
    client = open_client(f"{sandbox.base_url}/s3", "bad-key")
    for call in (client.put_object, client.get_object):
        with pytest.raises(ClientError) as failed:
            call(Bucket=BUCKET, Key="a")
        assert code_of(failed) == ("InvalidAccessKeyId", 403)
    with pytest.raises(ClientError) as failed:
        client.head_object(Bucket=BUCKET, Key="a")
    assert code_of(failed) == ("403", 403)
