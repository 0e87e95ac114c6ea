"""What is Google's own in Cloud Storage's XML API, by hand; test_objects has what it shares with S3."""

import base64
import hashlib

import google_crc32c
import httpx
import pytest

from tests.sandbox.conftest import Switchboard
from tests.sandbox.s3_client import BUCKET, error_code

_OBJECT = f"/gcs/{BUCKET}/a"
_TOKEN = {"authorization": "Bearer tok"}


async def test_a_status_is_answered_in_the_shape_of_googles_xml(http: httpx.AsyncClient, switchboard: Switchboard):
    for status, code in (
        (429, "SlowDown"),
        (503, "ServiceUnavailable"),
        (500, "InternalError"),
        (401, "AuthenticationRequired"),
    ):
        await switchboard.fault(provider="vertex_ai", operation="read_file", status=status, retry_after_seconds=7)
        answer = await http.get(_OBJECT, headers=_TOKEN)
        assert (answer.status_code, error_code(answer), answer.headers["retry-after"]) == (status, code, "7")


async def test_googles_xml_tells_generation_and_digests(http: httpx.AsyncClient):
    hashes = {
        "crc32c": base64.b64encode(google_crc32c.value(b"hello").to_bytes(4, "big")).decode(),
        "md5": base64.b64encode(hashlib.md5(b"hello").digest()).decode(),
    }
    told = {"x-goog-hash": f"crc32c={hashes['crc32c']}", "content-md5": hashes["md5"]}
    put = await http.put(_OBJECT, content=b"hello", headers=_TOKEN | told)
    assert put.status_code == 200
    got = await http.get(_OBJECT, headers=_TOKEN)
    for answer in (put, got):
        assert answer.headers["x-goog-hash"] == f"crc32c={hashes['crc32c']},md5={hashes['md5']}"
    assert got.headers["x-goog-generation"] == put.headers["x-goog-generation"]
    same = {"x-goog-if-generation-match": put.headers["x-goog-generation"]}
    assert (await http.put(_OBJECT, content=b"other", headers=_TOKEN | same)).status_code == 200
    answer = await http.put(_OBJECT, content=b"third", headers=_TOKEN | same)
    assert (answer.status_code, error_code(answer)) == (412, "PreconditionFailed")


@pytest.mark.parametrize(
    ("headers", "code", "status"),
    [
        ({"x-goog-if-generation-match": "x"}, "InvalidArgument", 400),
        ({"x-goog-hash": "crc32c=AAAAAA=="}, "BadDigest", 400),
        ({"content-md5": "!"}, "InvalidDigest", 400),
        ({"x-goog-hash": "sha1=AAAA"}, "InvalidArgument", 400),
        ({"x-goog-copy-source": f"{BUCKET}/b"}, "NotImplemented", 501),
        ({"authorization": "Bearer bad"}, "AuthenticationRequired", 401),
        ({"authorization": "Basic dG9r"}, "AuthenticationRequired", 401),
    ],
)
async def test_a_put_that_is_wrong_stores_nothing(http, switchboard: Switchboard, headers, code, status):
    answer = await http.put(_OBJECT, content=b"hello", headers=_TOKEN | headers)
    assert (answer.status_code, error_code(answer)) == (status, code)
    assert await switchboard.files() == []


async def test_in_googles_xml_a_delete_tells_what_is_missing(http: httpx.AsyncClient):
    answer = await http.delete(_OBJECT, headers=_TOKEN)
    assert (answer.status_code, error_code(answer)) == (404, "NoSuchKey")
    answer = await http.get(f"/gcs/{BUCKET}", params={"list-type": 2, "delimiter": "/"}, headers=_TOKEN)
    assert (answer.status_code, error_code(answer)) == (501, "NotImplemented")
