"""S3 through boto3. What moto simulates too is asserted of both, so that the sandbox has a second opinion."""

import base64
import hashlib
import io
import random
import zlib

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from tests.sandbox.conftest import Sandbox, Switchboard
from tests.sandbox.s3_client import BUCKET, PART_BYTES, code_of, open_client

# What a URL, XML or a list in another order than that of its bytes would mangle.
_KEYS = ["a/1", 'a/2 & "<é>" +%2F', "a/é", "a/日本", "b"]


@pytest.fixture(scope="module")
def moto_url():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    open_client(url).create_bucket(Bucket=BUCKET)
    yield url
    server.stop()


@pytest.fixture(params=["sandbox", "moto"])
def s3(request: pytest.FixtureRequest, sandbox: Sandbox):
    """Each server in turn, empty."""
    url = request.getfixturevalue("moto_url") if request.param == "moto" else f"{sandbox.base_url}/s3"
    client = open_client(url)
    for stored in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=stored["Key"])
    yield client
    client.close()


def _read(client, key: str, **options) -> bytes:
    return client.get_object(Bucket=BUCKET, Key=key, **options)["Body"].read()


def _keys(client, **options) -> list[str]:
    return [stored["Key"] for stored in client.list_objects_v2(Bucket=BUCKET, **options).get("Contents", [])]


def _start(client, key: str, *sizes: int) -> dict:
    """An upload with parts of these sizes, as complete_multipart_upload wants it."""
    upload = {"Bucket": BUCKET, "Key": key}
    upload["UploadId"] = client.create_multipart_upload(**upload, ChecksumAlgorithm="CRC32")["UploadId"]
    parts = []
    for number, size in enumerate(sizes, 1):
        part = client.upload_part(**upload, PartNumber=number, Body=bytes(size))
        parts.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]})
    return upload | {"MultipartUpload": {"Parts": parts}}


def _address(upload: dict) -> dict:
    return {name: upload[name] for name in ("Bucket", "Key", "UploadId")}


def _uploads(client) -> list[str]:
    return [upload["Key"] for upload in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]


@pytest.mark.parametrize("data", [b"", b"hello", random.Random(1).randbytes(3_000_000)])
def test_an_object_comes_back_as_it_was_put(s3, data):
    described = {
        "ContentType": "application/pdf",
        "ContentDisposition": "attachment; filename*=UTF-8''%C3%A9.pdf",
        "CacheControl": "no-store",
        "Metadata": {"owner": "me"},
    }
    put = s3.put_object(Bucket=BUCKET, Key="a/b.pdf", Body=data, **described)
    got = s3.get_object(Bucket=BUCKET, Key="a/b.pdf")
    head = s3.head_object(Bucket=BUCKET, Key="a/b.pdf", ChecksumMode="ENABLED")
    assert got["Body"].read() == data
    for answer in (got, head):
        assert {name: answer[name] for name in described} == described
        assert (answer["ContentLength"], answer["ETag"]) == (len(data), put["ETag"])
    assert head["ChecksumCRC32"] == put["ChecksumCRC32"]


@pytest.mark.parametrize("wanted", ["0-0", "1-2", "2-", "-3", "0-99", "-99"])
def test_a_range_is_read(s3, wanted):
    data = b"hello"
    s3.put_object(Bucket=BUCKET, Key="a", Body=data)
    first, last = wanted.split("-")
    start = int(first) if first else max(len(data) - int(last), 0)
    stop = min(int(last) + 1, len(data)) if first and last else len(data)
    got = s3.get_object(Bucket=BUCKET, Key="a", Range=f"bytes={wanted}")
    assert got["Body"].read() == data[start:stop]
    assert got["ContentRange"] == f"bytes {start}-{stop - 1}/5"
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206


def test_a_range_beyond_the_end_is_refused(s3):
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"hello")
    with pytest.raises(ClientError) as failed:
        s3.get_object(Bucket=BUCKET, Key="a", Range="bytes=5-")
    assert code_of(failed) == ("InvalidRange", 416)


def test_an_object_is_replaced_unless_it_is_only_to_be_created(s3):
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"one", IfNoneMatch="*")
    with pytest.raises(ClientError) as failed:
        s3.put_object(Bucket=BUCKET, Key="a", Body=b"two", IfNoneMatch="*")
    assert code_of(failed) == ("PreconditionFailed", 412)
    assert _read(s3, "a") == b"one"
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"two")
    assert _read(s3, "a") == b"two"


def test_lists_are_in_the_order_of_the_keys_and_in_pages(s3):
    for key in reversed(_KEYS):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    assert _keys(s3) == _KEYS
    assert _keys(s3, Prefix="a/") == _KEYS[:-1]
    assert _keys(s3, StartAfter=_KEYS[1]) == _KEYS[2:]
    assert _keys(s3, MaxKeys=2) == _KEYS[:2]
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="a/", PaginationConfig={"PageSize": 3})
    assert [[stored["Key"] for stored in page["Contents"]] for page in pages] == [_KEYS[:3], _KEYS[3:4]]
    (stored,) = s3.list_objects_v2(Bucket=BUCKET, Prefix="b")["Contents"]
    assert (stored["Size"], stored["ETag"]) == (1, s3.head_object(Bucket=BUCKET, Key="b")["ETag"])
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix="c")


def test_deletes(s3):
    for key in _KEYS:
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    for _ in range(2):  # the second one deletes nothing, and does not tell
        s3.delete_object(Bucket=BUCKET, Key=_KEYS[1])
    many = {"Objects": [{"Key": key} for key in _KEYS[2:]]}
    assert [one["Key"] for one in s3.delete_objects(Bucket=BUCKET, Delete=many)["Deleted"]] == _KEYS[2:]
    assert _keys(s3) == _KEYS[:1]


def test_what_is_missing(s3):
    s3.head_bucket(Bucket=BUCKET)
    for call, expected in (
        (lambda: s3.get_object(Bucket=BUCKET, Key="missing"), ("NoSuchKey", 404)),
        (lambda: s3.head_object(Bucket=BUCKET, Key="missing"), ("404", 404)),
        (lambda: s3.get_object(Bucket="another-bucket", Key="a"), ("NoSuchBucket", 404)),
        (lambda: s3.list_objects_v2(Bucket="another-bucket"), ("NoSuchBucket", 404)),
    ):
        with pytest.raises(ClientError) as failed:
            call()
        assert code_of(failed) == expected


def test_a_large_file_is_uploaded_in_parts(s3):
    data = random.Random(2).randbytes(2 * PART_BYTES + 100)
    config = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)
    s3.upload_fileobj(io.BytesIO(data), BUCKET, "big", Config=config)
    downloaded = io.BytesIO()
    s3.download_fileobj(BUCKET, "big", downloaded, Config=config)
    assert downloaded.getvalue() == data
    digests = b"".join(hashlib.md5(data[at : at + PART_BYTES]).digest() for at in range(0, len(data), PART_BYTES))
    assert s3.head_object(Bucket=BUCKET, Key="big")["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-3"'
    assert _uploads(s3) == []


def test_parts_come_in_any_order_and_may_be_replaced(s3):
    upload = {"Bucket": BUCKET, "Key": "a"}
    upload["UploadId"] = s3.create_multipart_upload(**upload, ContentType="text/plain")["UploadId"]
    put = {
        number: s3.upload_part(**upload, PartNumber=number, Body=body)
        for number, body in ((9, b"end"), (2, b"draft"), (2, b"x" * PART_BYTES), (5, b"left out"))
    }
    parts = [{"PartNumber": n, "ETag": put[n]["ETag"], "ChecksumCRC32": put[n]["ChecksumCRC32"]} for n in (2, 9)]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    got = s3.get_object(Bucket=BUCKET, Key="a")
    assert (got["Body"].read(), got["ContentType"]) == (b"x" * PART_BYTES + b"end", "text/plain")


def test_an_upload_in_parts_that_is_wrong_goes_on(s3):
    upload = _start(s3, "a", PART_BYTES, PART_BYTES, 3, 3)
    parts = upload["MultipartUpload"]["Parts"]
    for chosen, code in (
        (parts, "EntityTooSmall"),
        ([{**parts[0], "ETag": parts[2]["ETag"]}], "InvalidPart"),
        ([parts[0], {**parts[1], "PartNumber": 7}], "InvalidPart"),
    ):
        with pytest.raises(ClientError) as failed:
            s3.complete_multipart_upload(**upload | {"MultipartUpload": {"Parts": chosen}})
        assert code_of(failed) == (code, 400)
    assert _uploads(s3) == ["a"] and _keys(s3) == []
    s3.complete_multipart_upload(**upload | {"MultipartUpload": {"Parts": parts[:3]}})
    assert s3.head_object(Bucket=BUCKET, Key="a")["ContentLength"] == 2 * PART_BYTES + 3


def test_an_aborted_upload_is_no_more(s3):
    upload = _start(s3, "a", 3)
    assert _uploads(s3) == ["a"]
    s3.abort_multipart_upload(**_address(upload))
    assert _uploads(s3) == [] and _keys(s3) == []


def test_an_upload_in_parts_that_is_only_to_create(s3):
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"one")
    upload = _start(s3, "a", 3)
    with pytest.raises(ClientError) as failed:
        s3.complete_multipart_upload(**upload, IfNoneMatch="*")
    assert code_of(failed) == ("PreconditionFailed", 412)
    assert _read(s3, "a") == b"one"
    s3.delete_object(Bucket=BUCKET, Key="a")
    s3.complete_multipart_upload(**_start(s3, "a", 3), IfNoneMatch="*")
    assert _read(s3, "a") == bytes(3)


def test_what_moto_does_not_simulate(sandbox: Sandbox):
    client = open_client(f"{sandbox.base_url}/s3")
    aborted = _start(client, "a", 3)
    client.abort_multipart_upload(**_address(aborted))
    upload = _start(client, "a", PART_BYTES, PART_BYTES)
    parts = upload["MultipartUpload"]["Parts"]
    with pytest.raises(ClientError) as failed:
        client.complete_multipart_upload(**upload | {"MultipartUpload": {"Parts": parts[::-1]}})
    assert code_of(failed) == ("InvalidPartOrder", 400)
    client.complete_multipart_upload(**upload)
    # crc32 of the parts' crc32s.
    digests = b"".join(base64.b64decode(part["ChecksumCRC32"]) for part in parts)
    checksum = base64.b64encode(zlib.crc32(digests).to_bytes(4, "big")).decode()
    assert client.head_object(Bucket=BUCKET, Key="a", ChecksumMode="ENABLED")["ChecksumCRC32"] == f"{checksum}-2"
    for ended in (upload, aborted):
        for call in (
            lambda ended=ended: client.upload_part(**_address(ended), PartNumber=3, Body=b"x"),
            lambda ended=ended: client.abort_multipart_upload(**_address(ended)),
            lambda ended=ended: client.complete_multipart_upload(**ended),
        ):
            with pytest.raises(ClientError) as failed:
                call()
            assert code_of(failed) == ("NoSuchUpload", 404)
    quiet = {"Objects": [{"Key": "a"}, {"Key": "never was"}], "Quiet": True}
    assert "Deleted" not in client.delete_objects(Bucket=BUCKET, Delete=quiet)
    assert _keys(client) == []


async def test_what_the_switchboard_shows(sandbox: Sandbox, switchboard: Switchboard):
    one, two = open_client(f"{sandbox.base_url}/s3"), open_client(f"{sandbox.base_url}/s3", "AKIATWO")
    disposition = "attachment; filename*=UTF-8''%C3%A9%20b.pdf"
    one.put_object(Bucket=BUCKET, Key="dir/a.pdf", Body=b"hello", ContentDisposition=disposition)
    two.put_object(Bucket=BUCKET, Key="dir/b.txt", Body=b"hi", ContentDisposition='inline; filename="c d.txt"')
    two.put_object(Bucket=BUCKET, Key="dir/e.txt", Body=b"hi")
    files = {file["id"]: file for file in await switchboard.files()}
    assert [(file["provider"], file["filename"], file["bytes"]) for file in files.values()] == [
        ("bedrock", "é b.pdf", 5),
        ("bedrock", "c d.txt", 2),
        ("bedrock", "e.txt", 2),
    ]
    assert list(files) == [f"s3://{BUCKET}/dir/{name}" for name in ("a.pdf", "b.txt", "e.txt")]
    assert len({file["account"] for file in files.values()}) == 2
    # A bucket is a global name: whoever has a key may use it.
    assert _read(one, "dir/b.txt") == b"hi"
    one.put_object(Bucket=BUCKET, Key="dir/b.txt", Body=b"mine")
    assert [file["bytes"] for file in await switchboard.files()] == [5, 4, 2]
    assert len(sandbox.blobs()) == 3
    upload = _start(one, "unfinished", 10)
    assert len(sandbox.blobs()) == 4
    await switchboard.forget()
    assert sandbox.blobs() == [] and _uploads(one) == []
    with pytest.raises(ClientError, match="NoSuchUpload"):
        one.complete_multipart_upload(**upload)


async def test_an_upload_in_parts_is_several_operations(sandbox: Sandbox, switchboard: Switchboard):
    client = open_client(f"{sandbox.base_url}/s3")
    upload = _start(client, "a", PART_BYTES, 3)
    client.complete_multipart_upload(**upload)
    client.abort_multipart_upload(**_address(_start(client, "b", 3)))
    client.head_object(Bucket=BUCKET, Key="a")
    _read(client, "a")
    client.delete_object(Bucket=BUCKET, Key="a")
    assert await switchboard.requests() == {
        "bedrock.start_upload": 2,
        "bedrock.upload_file": 3,
        "bedrock.finish_upload": 1,
        "bedrock.cancel_upload": 1,
        "bedrock.retrieve_file": 1,
        "bedrock.read_file": 1,
        "bedrock.delete_file": 1,
    }
    assert await switchboard.files() == [] and sandbox.blobs() == []
