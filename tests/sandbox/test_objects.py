"""Both buckets through obstore, which speaks to Cloud Storage by its XML API; and what goes wrong with them."""

import hashlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

import httpx
import obstore
import pytest
from botocore.exceptions import ClientError
from google.api_core import exceptions
from google.cloud import storage
from google.oauth2.credentials import Credentials
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import GCSStore, S3Store

from tests.sandbox.conftest import Sandbox, Switchboard
from tests.sandbox.s3_client import BUCKET, code_of, open_client
from tests.support.sandbox import eventually

_PART_BYTES = 5 * 1024**2
_BIG = random.Random(4).randbytes(2 * _PART_BYTES + 1000)
_OPTIONS = {"retry_config": {"max_retries": 0}, "client_options": {"allow_http": True}}


@dataclass(frozen=True)
class Objects:
    """A bucket, as the gateway uses it."""

    provider: str
    scheme: str
    store: GCSStore | S3Store

    async def put(self, key: str, data: bytes = b"hello", **options) -> None:
        await obstore.put_async(self.store, key, data, **{"use_multipart": False, **options})

    async def put_parts(self, key: str, data: bytes = _BIG) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 300_000):
                yield data[start : start + 300_000]

        await obstore.put_async(
            self.store, key, chunks(), use_multipart=True, chunk_size=_PART_BYTES, max_concurrency=2
        )

    async def get(self, key: str) -> bytes:
        return bytes(await (await obstore.get_async(self.store, key)).bytes_async())

    async def keys(self, prefix: str | None = None, **options) -> list[str]:
        return [meta["path"] for meta in await obstore.list(self.store, prefix, **options).collect_async()]


def _gcs(sandbox: Sandbox, token: str = "tok", bucket: str = BUCKET) -> Objects:
    def credentials():
        return {"token": token, "expires_at": datetime.now(UTC) + timedelta(hours=1)}

    config = {"base_url": f"{sandbox.base_url}/gcs"}
    return Objects("vertex_ai", "gs", GCSStore(bucket, credential_provider=credentials, config=config, **_OPTIONS))


def _s3(sandbox: Sandbox, key: str = "AKIAONE", bucket: str = BUCKET) -> Objects:
    store = S3Store(
        bucket,
        endpoint=f"{sandbox.base_url}/s3",
        access_key_id=key,
        secret_access_key="secret",
        region="us-east-1",
        config={"disable_bulk_delete": True},
        **_OPTIONS,
    )
    return Objects("bedrock", "s3", store)


@pytest.fixture(params=[_gcs, _s3], ids=["gcs", "s3"])
def objects(request: pytest.FixtureRequest, sandbox: Sandbox) -> Objects:
    return request.param(sandbox)


async def test_an_object_comes_back_as_it_was_put(objects: Objects, switchboard: Switchboard):
    attributes = {
        "Content-Type": "application/pdf",
        "Content-Disposition": "attachment; filename*=UTF-8''%C3%A9.pdf",
        "owner": "me",
    }
    await objects.put("dir/é b+%.pdf", attributes=attributes, mode="create")
    found = await obstore.get_async(objects.store, "dir/é b+%.pdf")
    assert bytes(await found.bytes_async()) == b"hello"
    assert dict(found.attributes.items()) == attributes
    assert found.meta["size"] == 5
    head = await obstore.head_async(objects.store, "dir/é b+%.pdf")
    assert (head["size"], head["e_tag"]) == (5, found.meta["e_tag"])
    assert abs(datetime.now(UTC) - head["last_modified"]) < timedelta(minutes=1)
    assert bytes(await obstore.get_range_async(objects.store, "dir/é b+%.pdf", start=1, end=3)) == b"el"
    (file,) = await switchboard.files()
    assert file["id"] == f"{objects.scheme}://{BUCKET}/dir/é b+%.pdf"
    assert (file["provider"], file["filename"]) == (objects.provider, "é.pdf")
    await obstore.delete_async(objects.store, "dir/é b+%.pdf")
    with pytest.raises(FileNotFoundError):
        await obstore.head_async(objects.store, "dir/é b+%.pdf")


async def test_an_object_is_created_once(objects: Objects):
    await objects.put("a", mode="create")
    with pytest.raises(AlreadyExistsError):
        await objects.put("a", b"other", mode="create")
    assert await objects.get("a") == b"hello"
    await objects.put("a", b"other")
    assert await objects.get("a") == b"other"


async def test_a_large_object_comes_in_parts(objects: Objects, switchboard: Switchboard, sandbox: Sandbox):
    await objects.put_parts("big")
    assert await objects.get("big") == _BIG
    (file,) = await switchboard.files()
    assert file["sha256"] == hashlib.sha256(_BIG).hexdigest()
    assert len(sandbox.blobs()) == 1
    head = await obstore.head_async(objects.store, "big")
    assert head["e_tag"].endswith('-3"')
    assert (
        bytes(await obstore.get_range_async(objects.store, "big", start=_PART_BYTES - 1, length=3))
        == (_BIG[_PART_BYTES - 1 : _PART_BYTES + 2])
    )
    requests = await switchboard.requests()
    assert requests[f"{objects.provider}.upload_file"] == 3
    assert (requests[f"{objects.provider}.start_upload"], requests[f"{objects.provider}.finish_upload"]) == (1, 1)


async def test_lists(objects: Objects):
    for key in ("b", "a/é", "a/2 &", "a/1"):
        await objects.put(key)
    assert await objects.keys() == ["a/1", "a/2 &", "a/é", "b"]
    assert await objects.keys("a/", chunk_size=2) == ["a/1", "a/2 &", "a/é"]
    assert await objects.keys("a/", offset="a/1") == ["a/2 &", "a/é"]
    assert await objects.keys("c/") == []


async def test_a_list_has_more_than_a_page(objects: Objects, switchboard: Switchboard):
    for number in range(1005):
        await objects.put(f"{number:04}", b"x")
    assert await objects.keys() == [f"{number:04}" for number in range(1005)]
    assert (await switchboard.requests())[f"{objects.provider}.list_files"] == 2


async def test_a_put_that_fails_midway_leaves_nothing(objects: Objects, sandbox: Sandbox, switchboard: Switchboard):
    async def chunks() -> AsyncIterator[bytes]:
        yield _BIG[: _PART_BYTES + 5]
        raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        await obstore.put_async(objects.store, "a", chunks(), use_multipart=True, chunk_size=_PART_BYTES)
    assert eventually(lambda: not sandbox.blobs())
    assert await switchboard.files() == []
    assert (await switchboard.requests())[f"{objects.provider}.cancel_upload"] == 1


@pytest.mark.parametrize("operation", ["start_upload", "upload_file", "finish_upload"])
async def test_a_failure_anywhere_leaves_no_object(objects: Objects, switchboard: Switchboard, operation):
    await switchboard.fault(provider=objects.provider, operation=operation, status=503)
    with pytest.raises(BaseError):
        await objects.put_parts("a")
    assert await switchboard.files() == []


@pytest.mark.parametrize("operation", ["upload_file", "finish_upload"])
async def test_a_lost_answer_leaves_the_object(objects: Objects, switchboard: Switchboard, operation):
    await switchboard.fault(provider=objects.provider, operation=operation, lose_answer=True)
    # In parts, obstore tells of its own clean-up, which finds no upload any more.
    with pytest.raises(FileNotFoundError if operation == "finish_upload" else BaseError):
        await (objects.put_parts("a") if operation == "finish_upload" else objects.put("a"))
    (file,) = await switchboard.files()
    assert file["bytes"] == (len(_BIG) if operation == "finish_upload" else 5)


async def test_an_upload_is_cut(objects: Objects, sandbox: Sandbox, switchboard: Switchboard):
    for after_bytes in (0, 1000, 2_000_000):
        await switchboard.fault(operation="upload_file", reset_after_bytes=after_bytes)
        with pytest.raises(BaseError):
            await objects.put("a", _BIG)
        assert eventually(lambda: not sandbox.blobs())
    assert await switchboard.files() == []


async def test_a_download_is_cut(objects: Objects, switchboard: Switchboard):
    await objects.put("a", _BIG)
    await switchboard.fault(operation="read_file", reset_after_bytes=1_000_000)
    with pytest.raises(BaseError):
        await objects.get("a")
    assert await objects.get("a") == _BIG


async def test_parts_are_no_faster_than_the_line(objects: Objects, switchboard: Switchboard):
    await switchboard.fault(operation="upload_file", bytes_per_second=50_000_000, times=-1)
    began = monotonic()
    await objects.put_parts("a")
    assert monotonic() - began >= 0.1  # two parts side by side


@pytest.mark.parametrize(("open_objects", "error"), [(_gcs, UnauthenticatedError), (_s3, PermissionDeniedError)])
async def test_a_wrong_credential(sandbox: Sandbox, open_objects, error):
    objects = open_objects(sandbox, "bad")
    for call in (objects.put("a"), objects.get("a"), objects.put_parts("a")):
        with pytest.raises(error):
            await call


async def test_another_bucket(sandbox: Sandbox):
    for objects in (_gcs(sandbox, bucket="another"), _s3(sandbox, bucket="another")):
        with pytest.raises((FileNotFoundError, BaseError)) as failed:
            await objects.put("a")
        assert "NoSuchBucket" in str(failed.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 501, 503, 504])
async def test_a_status_is_answered_in_the_vendors_shape(sandbox: Sandbox, switchboard: Switchboard, status):
    client = open_client(f"{sandbox.base_url}/s3")
    for operation in ("upload_file", "read_file"):
        await switchboard.fault(provider="bedrock", operation=operation, status=status, retry_after_seconds=7)
        with pytest.raises(ClientError) as failed:
            client.put_object(Bucket=BUCKET, Key="a", Body=b"x") if operation == "upload_file" else (
                client.get_object(Bucket=BUCKET, Key="a")
            )
        code, answered = code_of(failed)
        assert answered == status and code.isalpha()
        assert failed.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"
    client.put_object(Bucket=BUCKET, Key="a", Body=b"x")


@pytest.mark.parametrize("status", [400, 403, 404, 408, 409, 413, 422, 429, 500, 501, 503, 504, 529])
async def test_a_status_is_answered_in_googles_shape(sandbox: Sandbox, switchboard: Switchboard, status):
    options = {"api_endpoint": f"{sandbox.base_url}/gcs"}
    client = storage.Client(project="p", credentials=Credentials("tok"), client_options=options)
    await switchboard.fault(provider="vertex_ai", operation="retrieve_file", status=status, retry_after_seconds=7)
    with pytest.raises(exceptions.GoogleAPICallError) as failed:
        client.bucket(BUCKET).blob("a").reload(retry=None)
    assert (failed.value.code, failed.value.response.headers["retry-after"]) == (status, "7")
    assert failed.value.errors[0]["reason"]
    client.close()


async def test_a_fault_may_name_either_half_of_a_provider(http: httpx.AsyncClient):
    fault = {"provider": "unknown", "operation": "upload_file", "status": 500}
    message = (await http.post("/_sandbox/faults", json=fault)).json()["error"]["message"]
    assert message.count("vertex_ai") == message.count("bedrock") == 1
