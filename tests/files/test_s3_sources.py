"""Kept bytes in a bucket. moto's server is the store that is well; the sandbox's S3 is the one that fails."""

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from moto.server import ThreadedMotoServer
from sqlalchemy import text

from tests.sandbox.s3_client import BUCKET, open_client
from tests.support.kept import FORM_TYPE, MIB, Place, cut_off, lease_ends
from tests.support.sandbox import eventually
from tests.support.uploads import (
    BATCH_LINE,
    PURPOSE,
    TARGETS,
    file_part,
    part,
    post_form,
    raw_client,
    refusal,
    sha256,
    upload,
)
from tests.support.wire import Line

KMS_KEY = "arn:aws:kms:us-east-1:123456789012:key/of-the-tests"
FOREVER = -1
# moto is one for all tests of a process, so this one has a bucket of its own.
KEPT = "kept-files"


class Bucket:
    """A bucket as its owner sees it."""

    def __init__(self, url, name=BUCKET):
        self.url, self.name = url, name
        self.s3 = open_client(url)

    @property
    def keys(self):
        return [stored["Key"] for stored in self.s3.list_objects_v2(Bucket=self.name).get("Contents", [])]

    @property
    def uploads(self):
        """Uploads in parts that have not ended."""
        return self.s3.list_multipart_uploads(Bucket=self.name).get("Uploads", [])

    def read(self, key):
        return self.s3.get_object(Bucket=self.name, Key=key)["Body"].read()

    def put(self, key, content):
        self.s3.put_object(Bucket=self.name, Key=key, Body=content)

    def head(self, key):
        return self.s3.head_object(Bucket=self.name, Key=key)

    def is_empty(self):
        return not self.keys and not self.uploads

    def clear(self):
        for key in self.keys:
            self.s3.delete_object(Bucket=self.name, Key=key)


@pytest.fixture(scope="module")
def moto():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    bucket = Bucket("http://{}:{}".format(*server.get_host_and_port()), KEPT)
    bucket.s3.create_bucket(Bucket=KEPT)
    yield bucket
    bucket.s3.close()
    server.stop()


@pytest.fixture
def bucket(moto):
    """The bucket that is well, empty."""
    moto.clear()
    return moto


@pytest.fixture(scope="module")
def keeping_gateway(gateway_at, moto, tmp_path_factory):
    """It has no keys in its configuration: botocore finds some in the environment."""
    options = {"bucket": KEPT, "region": "us-east-1", "prefix": "kept/here", "endpoint_url": moto.url}
    encryption = {"server_side_encryption": "aws:kms", "kms_key_id": KMS_KEY}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIAONE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        with gateway_at(tmp_path_factory.mktemp("s3"), "s3", **options, **encryption) as running:
            yield running


@pytest.fixture
def member(keeping_gateway, clients_of):
    return clients_of(keeping_gateway).member()


@pytest.fixture(scope="module")
def faulty_options(sandbox_process):
    """The options of a store that can be made to fail."""
    keys = {"access_key_id": "AKIAONE", "secret_access_key": "os.environ/SECRET_OF_THE_STORE"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_OF_THE_STORE", "secret")
        yield {"bucket": BUCKET, "endpoint_url": f"{sandbox_process.url}/s3/", **keys}


@pytest.fixture(scope="module")
def faulty_gateway(gateway_at, faulty_options, tmp_path_factory):
    with gateway_at(tmp_path_factory.mktemp("faulty"), "s3", **faulty_options) as running:
        yield running


@pytest.fixture
def unlucky(faulty_gateway, clients_of):
    """The SDK at the gateway whose store can be made to fail."""
    return clients_of(faulty_gateway).member()


# --- kept, read, removed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "parts"), [(1, 0), (5 * MIB, 0), (5 * MIB + 1, 2), (20 * MIB, 4)])
def test_the_bytes_are_kept_as_they_came_encrypted_and_in_parts(member, bucket, size, parts):
    content = os.urandom(size)
    file = upload(member, content=content)
    key = f"kept/here/{file.id}"
    assert bucket.keys == [key]
    assert sha256(bucket.read(key)) == sha256(content)
    head = bucket.head(key)
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", KMS_KEY)
    assert head["ETag"].endswith(f'-{parts}"') if parts else "-" not in head["ETag"]
    assert bucket.uploads == []
    assert sha256(member.files.content(file.id).content) == sha256(content)


def test_a_range(member, bucket):
    content = os.urandom(6_000_000)
    file = upload(member, content=content)
    with raw_client(member) as http:
        for first, last in ((0, 0), (5_999_999, 5_999_999), (1_000_000, 5_900_000)):
            answer = http.get(f"/files/{file.id}/content", headers={"range": f"bytes={first}-{last}"})
            assert (answer.status_code, answer.content) == (206, content[first : last + 1])
            assert answer.headers["content-range"] == f"bytes {first}-{last}/6000000"


async def test_the_row_says_where_and_a_delete_removes_them(member, bucket, rows, database, filename):
    file = upload(member, filename=filename)
    assert await source_of(database, file.id) == f"s3:{bucket.url}/{KEPT}/kept/here/"
    member.files.delete(file.id)
    assert bucket.is_empty()
    assert await rows.forgotten(filename, seconds=0)


async def source_of(database, file_id):
    async with database.read() as reader:
        return (await reader.first(text("SELECT source FROM files WHERE id = :id"), {"id": file_id}))["source"]


async def test_what_is_gone_already_does_not_hold_up_a_delete(member, bucket, rows, filename):
    file = upload(member, filename=filename)
    bucket.clear()
    member.files.delete(file.id)
    assert await rows.forgotten(filename, seconds=0)


# --- uploads that come to nothing -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 6 * MIB])
async def test_a_failed_upload_keeps_nothing(member, sandbox, bucket, rows, filename, size):
    sandbox.fault("azure", "upload_file", status=400, delay_seconds=600)
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(upload, member, content=b"x" * size, filename=filename)
        assert eventually(lambda: bucket.keys)
        sandbox.release("azure.upload_file")
        assert isinstance(failing.exception(), openai.BadRequestError)
    assert await rows.forgotten(filename)
    assert bucket.is_empty()


async def test_a_client_that_leaves_in_the_middle_leaves_no_part(keeping_gateway, member, bucket, rows, filename):
    with Line(keeping_gateway.url) as line:
        line.send_head("POST", "/v1/files", member.api_key, content_type=FORM_TYPE, content_length=90_000_000)
        line.send(PURPOSE + TARGETS + file_part(b"x" * 12_000_000, filename))
        # The first parts are on their way while the file still comes.
        assert eventually(lambda: bucket.uploads)
    assert await rows.forgotten(filename)
    assert bucket.is_empty()


def test_fields_that_follow_the_file_leave_no_second_object(member, bucket):
    with raw_client(member) as http:
        answer = post_form(
            http,
            PURPOSE,
            TARGETS,
            file_part(b"x" * 6 * MIB),
            part("expires_after[anchor]", "created_at"),
            part("expires_after[seconds]", "3600"),
        )
    assert answer.status_code == 200, answer.text
    assert eventually(lambda: bucket.keys == [f"kept/here/{answer.json()['id']}"])
    assert bucket.uploads == []


@pytest.mark.parametrize("size", [100, 6 * MIB])
async def test_a_store_that_is_down_fails_the_upload_and_leaves_nothing(unlucky, sandbox, rows, filename, size):
    for operation in ("upload_file", "start_upload"):
        sandbox.fault("bedrock", operation, status=503, times=FOREVER)
    with pytest.raises(openai.InternalServerError) as failed:
        upload(unlucky, content=b"x" * size, filename=filename)
    assert (failed.value.status_code, failed.value.code) == (503, "unavailable")
    assert "filemux.sources" in failed.value.message
    assert await rows.forgotten(filename)
    assert sandbox.files == []


def test_a_store_that_asks_for_patience_is_asked_again(unlucky, sandbox):
    sandbox.fault("bedrock", "upload_file", status=503, times=2)
    file = upload(unlucky, content=b"patience")
    assert unlucky.files.content(file.id).content == b"patience"


async def test_an_object_that_cannot_be_removed_is_tried_again(unlucky, sandbox, rows, filename):
    file = upload(unlucky, filename=filename)
    # The request's own attempts, and some of the worker's.
    sandbox.fault("bedrock", "delete_file", status=500, times=8)
    unlucky.files.delete(file.id)
    assert await rows.forgotten(filename)
    assert sandbox.files == []


async def test_a_killed_gateways_object_is_removed_once_its_lease_has_passed(
    gateway_at, faulty_options, tmp_path, sandbox, database, rows, filename
):
    store = Bucket(faulty_options["endpoint_url"])
    sandbox.fault("azure", "upload_file", delay_seconds=60)
    with gateway_at(tmp_path, "s3", **faulty_options) as victim, ThreadPoolExecutor(1) as pool:
        uploading = pool.submit(cut_off, victim.url, filename, b"x" * 6 * MIB)
        assert eventually(lambda: store.keys and "openai" in [one["provider"] for one in sandbox.files])
        victim.stop(signal.SIGKILL)
        uploading.result()
    sandbox.heal()
    assert len(store.keys) == 1
    with gateway_at(tmp_path, "s3", **faulty_options):
        while not await rows.forgotten(filename, seconds=0.5):
            await lease_ends(database, filename)
    assert store.is_empty()
    assert [one for one in sandbox.files if one["filename"] == filename] == []


# --- not the file any more --------------------------------------------------------------------------------------


def failures(gateway, reason):
    """How often a kept file could not be read for this reason."""
    metrics = httpx.get(f"{gateway.url}/metrics", timeout=60).text
    found = re.search(rf'^filemux_source_failures_total{{reason="{reason}"}} (\S+)$', metrics, re.MULTILINE)
    return float(found[1]) if found else 0


@pytest.mark.parametrize("damage", [b"y" * len(BATCH_LINE), BATCH_LINE[:-1], BATCH_LINE * 2], ids=["", "short", "long"])
def test_a_damaged_object_is_not_trusted(keeping_gateway, member, bucket, damage):
    before = failures(keeping_gateway, "damaged")
    lines = upload(member, content=BATCH_LINE, purpose="batch", filename="lines.jsonl")
    mute = upload(member, content=BATCH_LINE)
    for key in bucket.keys:
        bucket.put(key, damage)
    assert member.files.content(lines.id).content == BATCH_LINE
    with pytest.raises(openai.BadRequestError) as refused:
        member.files.content(mute.id)
    assert refused.value.code == "content_not_available"
    assert failures(keeping_gateway, "damaged") == before + 2


def test_a_large_damaged_object_is_never_given_out_whole(member, bucket):
    file = upload(member, content=b"x" * 3 * MIB)
    (key,) = bucket.keys
    bucket.put(key, b"x" * (3 * MIB - 1) + b"y")
    with raw_client(member) as http, pytest.raises(httpx.RemoteProtocolError):
        http.get(f"/files/{file.id}/content")


def test_a_range_of_what_has_another_size_gets_the_whole_of_a_replica(member, bucket):
    file = upload(member, content=BATCH_LINE, purpose="batch", filename="lines.jsonl")
    (key,) = bucket.keys
    bucket.put(key, BATCH_LINE[:-1])
    with raw_client(member) as http:
        answer = http.get(f"/files/{file.id}/content", headers={"range": "bytes=0-1"})
    assert (answer.status_code, answer.content) == (200, BATCH_LINE)
    assert "content-range" not in answer.headers


def test_a_store_that_is_down_is_read_around_where_a_provider_can(unlucky, sandbox):
    lines = upload(unlucky, content=BATCH_LINE, purpose="batch", filename="lines.jsonl")
    mute = upload(unlucky)
    sandbox.fault("bedrock", "read_file", status=500, times=FOREVER)
    assert unlucky.files.content(lines.id).content == BATCH_LINE
    with raw_client(unlucky) as http:
        refusal(http.get(f"/files/{mute.id}/content"), 503, "unavailable")


# --- another configuration --------------------------------------------------------------------------------------


async def test_what_was_kept_on_disk_is_still_read_and_removed(
    gateway_at, faulty_options, tmp_path, clients_of, rows, filename
):
    place, store = Place(tmp_path), Bucket(faulty_options["endpoint_url"])
    with gateway_at(tmp_path) as gateway:
        clients = clients_of(gateway)
        key = clients.new_key()["key"]
        kept = upload(clients.client(key), content=b"on disk", filename=filename)
    with gateway_at(tmp_path, "s3", **faulty_options) as gateway:
        client = clients_of(gateway).client(key)
        new = upload(client, content=b"in a bucket")
        assert (list(place.kept), store.keys) == ([kept.id], [f"filemux-sources/{new.id}"])
        assert client.files.content(kept.id).content == b"on disk"
        assert client.files.content(new.id).content == b"in a bucket"
        client.files.delete(kept.id)
        assert await rows.forgotten(filename, seconds=0)
    assert place.is_empty()
