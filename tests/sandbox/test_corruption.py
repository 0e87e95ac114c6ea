"""A fault has every provider store another byte than it was sent, whichever way it came, and report what it stores."""

import base64
import hashlib
import io

import httpx
import openai
import pytest
from anthropic import Anthropic
from boto3.s3.transfer import TransferConfig
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.oauth2.credentials import Credentials

from tests.sandbox.conftest import Sandbox, Switchboard
from tests.sandbox.gemini_client import KEY, upload
from tests.sandbox.gemini_client import open_client as open_gemini
from tests.sandbox.s3_client import BUCKET, PART_BYTES
from tests.sandbox.s3_client import open_client as open_s3

_SENT = bytes(range(256)) * 32 * 1024


async def _stored_sha256(switchboard: Switchboard) -> str:
    """What the one file's bytes add up to, which is not what was sent."""
    (file,) = await switchboard.files()
    assert file["bytes"] == len(_SENT)
    assert file["sha256"] != hashlib.sha256(_SENT).hexdigest()
    return file["sha256"]


def _assert_one_bit_differs(stored: bytes) -> None:
    assert len(stored) == len(_SENT)
    assert (int.from_bytes(stored) ^ int.from_bytes(_SENT)).bit_count() == 1


async def test_a_form(client: openai.AsyncOpenAI, switchboard: Switchboard):
    await switchboard.fault(operation="upload_file", corrupt=True)
    created = await client.files.create(file=("a.jsonl", _SENT), purpose="batch")
    stored = (await client.files.content(created.id)).read()
    _assert_one_bit_differs(stored)
    assert await _stored_sha256(switchboard) == hashlib.sha256(stored).hexdigest()
    # Only that one.
    sound = await client.files.create(file=("a.jsonl", _SENT), purpose="batch")
    assert (await client.files.content(sound.id)).read() == _SENT


async def test_anthropics_form(sandbox: Sandbox, switchboard: Switchboard):
    await switchboard.fault(operation="upload_file", corrupt=True)
    with Anthropic(base_url=f"{sandbox.base_url}/anthropic", api_key="one", max_retries=0) as client:
        client.files.upload(file=("a.pdf", _SENT, "application/pdf"))
    await _stored_sha256(switchboard)


async def test_gemini(sandbox: Sandbox, switchboard: Switchboard):
    await switchboard.fault(operation="upload_file", corrupt=True)
    with open_gemini(sandbox.base_url) as client:
        file = upload(client, _SENT)
    assert base64.b64decode(file.sha256_hash).decode() == await _stored_sha256(switchboard)


async def test_a_session_of_gemini_that_is_corrupt_from_its_first_request_on(
    http: httpx.AsyncClient, switchboard: Switchboard
):
    start = {"x-goog-upload-protocol": "resumable", "x-goog-upload-command": "start"}
    session = (await http.post("/gemini/upload/v1/files", headers=KEY | start)).headers["x-goog-upload-url"]
    await switchboard.fault(operation="upload_file", corrupt=True)
    for command, offset in (("upload", 0), ("upload, finalize", 1000)):
        headers = {"x-goog-upload-command": command, "x-goog-upload-offset": str(offset)}
        piece = _SENT[:1000] if command == "upload" else _SENT[1000:]
        answer = await http.post(session, headers=headers, content=piece)
    told = base64.b64decode(answer.json()["file"]["sha256Hash"]).decode()
    assert told == await _stored_sha256(switchboard)


@pytest.mark.parametrize("chunk_bytes", [None, 1024**2])
async def test_cloud_storage(sandbox: Sandbox, switchboard: Switchboard, chunk_bytes):
    client = storage.Client("p", Credentials("tok"), client_options={"api_endpoint": f"{sandbox.base_url}/gcs"})
    blob = client.bucket(BUCKET).blob("a", chunk_size=chunk_bytes)
    await switchboard.fault(operation="upload_file", corrupt=True)
    blob.upload_from_file(io.BytesIO(_SENT), checksum=None)
    stored = blob.download_as_bytes()  # which compares it with what is reported
    _assert_one_bit_differs(stored)
    assert await _stored_sha256(switchboard) == hashlib.sha256(stored).hexdigest()
    client.close()


async def test_googles_own_client_notices(sandbox: Sandbox, switchboard: Switchboard):
    client = storage.Client("p", Credentials("tok"), client_options={"api_endpoint": f"{sandbox.base_url}/gcs"})
    await switchboard.fault(operation="upload_file", corrupt=True)
    with pytest.raises(DataCorruption):
        client.bucket(BUCKET).blob("a", chunk_size=1024**2).upload_from_file(io.BytesIO(_SENT), checksum="crc32c")
    client.close()
    assert await switchboard.files() == []


@pytest.mark.parametrize("part_bytes", [len(_SENT) + 1, PART_BYTES])
async def test_s3(sandbox: Sandbox, switchboard: Switchboard, part_bytes):
    s3 = open_s3(f"{sandbox.base_url}/s3")
    config = TransferConfig(multipart_threshold=part_bytes, multipart_chunksize=part_bytes)
    await switchboard.fault(operation="upload_file", corrupt=True)
    s3.upload_fileobj(io.BytesIO(_SENT), BUCKET, "a", ExtraArgs={"ChecksumAlgorithm": "SHA256"}, Config=config)
    stored = s3.get_object(Bucket=BUCKET, Key="a")["Body"].read()
    _assert_one_bit_differs(stored)
    told = s3.head_object(Bucket=BUCKET, Key="a", ChecksumMode="ENABLED")["ChecksumSHA256"]
    s3.close()
    assert await _stored_sha256(switchboard) == hashlib.sha256(stored).hexdigest()
    parts = [hashlib.sha256(stored[at : at + part_bytes]).digest() for at in range(0, len(stored), part_bytes)]
    digest, ending = (parts[0], "") if len(parts) == 1 else (hashlib.sha256(b"".join(parts)).digest(), f"-{len(parts)}")
    assert told == base64.b64encode(digest).decode() + ending
