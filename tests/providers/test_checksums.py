"""Checksums as the stores count them, and what becomes of a file that has another one."""

import base64
import hashlib

import pytest

from app.errors import Unavailable
from app.providers.checksums import Crc32c, PartsSha256, counted, verified
from tests.support.providers import MemoryProvider, chunks_of, upload_of

CONTENT = bytes(range(256)) * 40
PART_BYTES = 4096


async def count(checksum, content, chunk_bytes):
    assert b"".join([chunk async for chunk in counted(chunks_of(content, chunk_bytes), checksum)]) == content
    return checksum.value()


def sha256(*pieces):
    return hashlib.sha256(b"".join(pieces)).digest()


@pytest.mark.parametrize("chunk_bytes", [1, 4, 9])
async def test_crc32c_has_the_value_that_its_standard_gives(chunk_bytes):
    # RFC 3720, appendix B.4, and the check value of every catalogue of CRCs.
    expected = {bytes(32): 0x8A9136AA, b"123456789": 0xE3069283, b"": 0}
    for content, value in expected.items():
        assert base64.b64decode(await count(Crc32c(), content, chunk_bytes)) == value.to_bytes(4, "big")


@pytest.mark.parametrize("chunk_bytes", [1000, PART_BYTES, 3 * PART_BYTES - 1, len(CONTENT)])
@pytest.mark.parametrize("size_bytes", [0, 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, len(CONTENT)])
async def test_parts_have_the_digest_of_their_digests(size_bytes, chunk_bytes):
    content = CONTENT[:size_bytes]
    parts = [sha256(content[at : at + PART_BYTES]) for at in range(0, size_bytes, PART_BYTES)]
    expected = sha256(content) if size_bytes <= PART_BYTES else sha256(*parts)
    assert base64.b64decode(await count(PartsSha256(PART_BYTES), content, chunk_bytes)) == expected


@pytest.mark.parametrize(
    ("reported", "headers", "expected"),
    [
        (Crc32c.reported, {"x-goog-hash": "crc32c=4waSgw==,md5=JfnnlDI7RTiF9RgfGNM="}, "4waSgw=="),
        (Crc32c.reported, {"x-goog-hash": "md5=JfnnlDI7RTiF9RgfGNM=, crc32c=4waSgw=="}, "4waSgw=="),
        (Crc32c.reported, {"x-goog-hash": "md5=JfnnlDI7RTiF9RgfGNM="}, None),
        (Crc32c.reported, {}, None),
        (PartsSha256.reported, {"x-amz-checksum-sha256": "LwrX="}, "LwrX="),
        (PartsSha256.reported, {"x-amz-checksum-sha256": "LwrX=-4"}, "LwrX="),
        (PartsSha256.reported, {"x-amz-checksum-crc32": "LwrX="}, None),
    ],
)
def test_the_checksum_is_read_from_the_headers_of_an_object(reported, headers, expected):
    assert reported(headers) == expected


async def stored(provider):
    """A file, as a provider that reports another checksum for it would be asked to prove it."""
    file = await provider.upload_file(upload_of())
    return verified(file, intact=False, delete_file=provider.delete_file)


async def test_what_is_intact_is_kept():
    provider = MemoryProvider()
    file = await provider.upload_file(upload_of())
    assert await verified(file, intact=True, delete_file=provider.delete_file) is file
    assert file.id in provider.files


@pytest.mark.parametrize("is_gone", [False, True])
async def test_what_is_damaged_is_deleted_and_can_be_sent_again(is_gone):
    provider = MemoryProvider()
    verifying = await stored(provider)
    if is_gone:
        provider.files.clear()
    with pytest.raises(Unavailable, match="checksum") as failed:
        await verifying
    assert provider.files == {} and not failed.value.outcome_unknown


async def test_what_is_damaged_and_cannot_be_deleted_may_exist():
    provider = MemoryProvider()
    provider.fail("delete_file", Unavailable("down"))
    with pytest.raises(Unavailable, match="checksum") as failed:
        await (await stored(provider))
    assert failed.value.outcome_unknown
