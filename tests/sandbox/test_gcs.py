"""Cloud Storage's JSON API, through google-cloud-storage."""

import base64
import hashlib
import io
import random
from pathlib import Path

import google_crc32c
import pytest
from google.api_core import exceptions
from google.auth.exceptions import RefreshError
from google.cloud import storage
from google.cloud.storage import transfer_manager
from google.oauth2.credentials import Credentials

from tests.sandbox.conftest import Sandbox, Switchboard

BUCKET = "filemux-sandbox"
_CHUNK_BYTES = 256 * 1024
_KEYS = ["a/1", 'a/2 & "<é>" +%2F?#', "a/é", "a/日本", "b"]


def _client(sandbox: Sandbox, token: str = "tok") -> storage.Client:
    options = {"api_endpoint": f"{sandbox.base_url}/gcs"}
    return storage.Client(project="p", credentials=Credentials(token), client_options=options)


@pytest.fixture
def client(sandbox: Sandbox):
    client = _client(sandbox)
    yield client
    client.close()


@pytest.fixture
def bucket(client) -> storage.Bucket:
    return client.get_bucket(BUCKET)


def _upload(bucket, key: str = "a", data: bytes = b"hello", **options) -> storage.Blob:
    blob = bucket.blob(key)
    blob.upload_from_string(data, **{"retry": None, **options})
    return blob


def _resumable(bucket, data: bytes, key: str = "big", chunk_bytes: int = _CHUNK_BYTES, **options) -> storage.Blob:
    blob = bucket.blob(key, chunk_size=chunk_bytes)
    blob.upload_from_file(io.BytesIO(data), retry=None, **options)
    return blob


def _digests(data: bytes) -> tuple[str, str]:
    crc32c = google_crc32c.value(data).to_bytes(4, "big")
    return base64.b64encode(crc32c).decode(), base64.b64encode(hashlib.md5(data).digest()).decode()


def _reason(failed) -> tuple[int, str]:
    return failed.value.code, failed.value.errors[0]["reason"]


@pytest.mark.parametrize("data", [b"", b"hello", random.Random(1).randbytes(3_000_000)])
@pytest.mark.parametrize("checksum", [None, "md5", "crc32c"])
def test_an_object_comes_back_as_it_was_put(bucket, data, checksum):
    blob = bucket.blob("dir/é b.pdf")
    blob.metadata, blob.cache_control = {"owner": "me", "é": "ü"}, "no-store"
    blob.content_disposition = "attachment; filename*=UTF-8''%C3%A9.pdf"
    blob.upload_from_string(data, content_type="application/pdf", checksum=checksum)
    again = bucket.get_blob("dir/é b.pdf")
    for one in (blob, again):
        assert (one.size, one.content_type, one.metadata) == (len(data), "application/pdf", {"owner": "me", "é": "ü"})
        assert (one.crc32c, one.md5_hash) == _digests(data)
        assert (one.cache_control, one.content_disposition) == ("no-store", "attachment; filename*=UTF-8''%C3%A9.pdf")
    assert (again.generation, again.etag, again.time_created) == (blob.generation, blob.etag, blob.time_created)
    assert again.download_as_bytes(checksum=checksum or "auto") == data


@pytest.mark.parametrize(
    "size", [0, 1, _CHUNK_BYTES, _CHUNK_BYTES + 1, 3 * _CHUNK_BYTES, 5 * _CHUNK_BYTES - 1, 20_000_000]
)
@pytest.mark.parametrize("is_size_known", [True, False])
def test_a_resumable_upload(bucket, size, is_size_known):
    data = random.Random(size).randbytes(size)
    chunk_bytes = _CHUNK_BYTES if size < 5_000_000 else 8 * 1024**2
    blob = _resumable(bucket, data, size=size if is_size_known else None, chunk_bytes=chunk_bytes)
    assert (blob.size, (blob.crc32c, blob.md5_hash)) == (size, _digests(data))
    blob.chunk_size = None
    assert blob.download_as_bytes() == data


def test_a_large_download_comes_in_ranges(bucket):
    data = random.Random(2).randbytes(3 * _CHUNK_BYTES + 5)
    blob = _upload(bucket, data=data)
    blob.chunk_size = _CHUNK_BYTES
    assert blob.download_as_bytes() == data
    assert blob.download_as_bytes(start=3, end=5) == data[3:6]
    assert blob.download_as_bytes(start=len(data) - 4) == data[-4:]
    blob.chunk_size = None
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=len(data), retry=None)


def test_an_object_is_replaced_unless_it_is_only_to_be_created(bucket):
    first = _upload(bucket, data=b"one", if_generation_match=0)
    for create in (_upload, _resumable):
        with pytest.raises(exceptions.PreconditionFailed) as failed:
            create(bucket, key="a", data=b"two", if_generation_match=0)
        assert failed.value.response.json()["error"]["errors"][0]["reason"] == "conditionNotMet"
    assert first.download_as_bytes() == b"one"
    second = _upload(bucket, data=b"two", if_generation_match=first.generation)
    assert second.generation > first.generation
    assert bucket.blob("a").download_as_bytes() == b"two"
    with pytest.raises(exceptions.PreconditionFailed):
        _upload(bucket, data=b"three", if_generation_match=first.generation)
    # Of an object that was replaced, the old generation is gone.
    assert bucket.get_blob("a", generation=first.generation) is None
    with pytest.raises(exceptions.PreconditionFailed):
        second.delete(if_generation_match=first.generation)
    second.delete(if_generation_match=second.generation)
    assert bucket.get_blob("a") is None


def test_an_upload_that_was_created_meanwhile_fails_at_its_end(bucket):
    blob = bucket.blob("a", chunk_size=_CHUNK_BYTES)
    url = blob.create_resumable_upload_session(if_generation_match=0)
    _upload(bucket, data=b"one")
    answer = bucket.client._http.put(url, data=b"two")
    assert answer.status_code == 412
    assert bucket.blob("a").download_as_bytes() == b"one"
    assert bucket.client._http.put(url, data=b"two").status_code == 404


def test_lists_are_in_the_order_of_the_keys_and_in_pages(client, bucket):
    for key in reversed(_KEYS):
        _upload(bucket, key)
    assert [blob.name for blob in client.list_blobs(BUCKET)] == _KEYS
    assert [blob.name for blob in client.list_blobs(BUCKET, prefix="a/", max_results=2)] == _KEYS[:2]
    pages = client.list_blobs(BUCKET, prefix="a/", page_size=3).pages
    assert [[blob.name for blob in page] for page in pages] == [_KEYS[:3], _KEYS[3:4]]
    assert [*client.list_blobs(BUCKET, prefix="c")] == []
    for key in _KEYS:
        assert bucket.blob(key).download_as_bytes() == b"hello"
        bucket.blob(key).delete()
    assert [*client.list_blobs(BUCKET)] == []


def test_what_is_missing(client, bucket):
    blob = bucket.blob("missing")
    for call in (blob.reload, blob.delete, blob.download_as_bytes):
        with pytest.raises(exceptions.NotFound, match="No such object: filemux-sandbox/missing"):
            call()
    assert not blob.exists()
    with pytest.raises(exceptions.NotFound) as failed:
        client.get_bucket("another-bucket")
    assert _reason(failed) == (404, "notFound")
    with pytest.raises(exceptions.NotFound):
        _upload(client.bucket("another-bucket"))


@pytest.mark.parametrize("token", ["bad-token", "bad"])
def test_a_wrong_token(sandbox: Sandbox, token):
    client = _client(sandbox, token)
    # google-auth takes a 401 for an expired token, and has nothing to refresh this one with.
    with pytest.raises(RefreshError):
        client.get_bucket(BUCKET)
    client.close()


def test_an_upload_with_wrong_digests_stores_nothing(client, bucket):
    for wrong in ({"crc32c": _digests(b"other")[0]}, {"md5Hash": _digests(b"other")[1]}):
        blob = bucket.blob("a")
        blob._properties.update(wrong)
        blob._changes.update(wrong)
        with pytest.raises(exceptions.BadRequest, match="doesn't match calculated"):
            blob.upload_from_string(b"hello", checksum=None, retry=None)
    assert [*client.list_blobs(BUCKET)] == []


def test_the_xml_api_takes_parts_side_by_side(bucket, tmp_path: Path):
    data = random.Random(3).randbytes(11_000_000)
    (tmp_path / "big").write_bytes(data)
    blob = bucket.blob("dir/big é", chunk_size=None)
    transfer_manager.upload_chunks_concurrently(
        tmp_path / "big", blob, chunk_size=5 * 1024**2, max_workers=2, worker_type=transfer_manager.THREAD
    )
    blob.reload()
    # What came in parts has no MD5.
    assert (blob.crc32c, blob.md5_hash) == (_digests(data)[0], None)
    assert blob.download_as_bytes() == data


async def test_what_the_switchboard_shows(sandbox: Sandbox, switchboard: Switchboard):
    one, two = _client(sandbox, "one"), _client(sandbox, "two")
    blob = one.bucket(BUCKET).blob("dir/a.pdf")
    blob.content_disposition = "attachment; filename*=UTF-8''%C3%A9%20b.pdf"
    blob.upload_from_string(b"hello")
    _resumable(two.bucket(BUCKET), b"hi", "dir/b.txt")
    files = await switchboard.files()
    assert [(file["provider"], file["id"], file["filename"], file["sha256"]) for file in files] == [
        ("vertex_ai", f"gs://{BUCKET}/dir/a.pdf", "é b.pdf", hashlib.sha256(b"hello").hexdigest()),
        ("vertex_ai", f"gs://{BUCKET}/dir/b.txt", "b.txt", hashlib.sha256(b"hi").hexdigest()),
    ]
    assert len({file["account"] for file in files}) == 2
    assert one.bucket(BUCKET).blob("dir/b.txt").download_as_bytes() == b"hi"
    counted = {"vertex_ai.upload_file": 2, "vertex_ai.start_upload": 1, "vertex_ai.read_file": 1}
    # The SDK looks at a bucket when it first uses it, for its traces.
    assert (await switchboard.requests()).items() - counted.items() <= {("vertex_ai.retrieve_bucket", 2)}
    one.bucket(BUCKET).blob("dir/b.txt").delete()
    blob.delete()
    assert sandbox.blobs() == []
