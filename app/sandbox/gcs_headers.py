"""The headers by which Cloud Storage describes an object, in the XML API and beside the bytes in the JSON API."""

import base64
from collections.abc import Mapping

from app.sandbox.objects import Content, ObjectError, StoredObject, encoded


def object_headers(stored: StoredObject) -> dict[str, str]:
    """Return generation, size and digests."""
    return {
        "x-goog-generation": str(stored.generation),
        "x-goog-metageneration": "1",
        "x-goog-stored-content-length": str(stored.size_bytes),
        "x-goog-stored-content-encoding": stored.headers.get("content-encoding", "identity"),
        "x-goog-storage-class": "STANDARD",
        "x-goog-hash": goog_hash(stored.crc32c, stored.md5),
    }


def goog_hash(crc32c: bytes, md5: bytes | None) -> str:
    """Return the value of x-goog-hash; what came in parts has no MD5."""
    return f"crc32c={encoded(crc32c)}" + (f",md5={encoded(md5)}" if md5 is not None else "")


def expected_digests(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what the headers of an upload say, by algorithm."""
    pairs = (pair.strip().partition("=") for pair in headers.get("x-goog-hash", "").split(",") if pair.strip())
    digests = {algorithm: value for algorithm, _, value in pairs}
    if "content-md5" in headers:
        digests["md5"] = headers["content-md5"]
    if digests.keys() - {"crc32c", "md5"}:
        raise ObjectError("InvalidArgument", f"Invalid x-goog-hash: {headers['x-goog-hash']}")
    return digests


def check_digests(content: Content, expected: Mapping[str, str]) -> None:
    """Refuse the content unless its digests are the expected ones."""
    if content.is_corrupt:
        return
    for algorithm, value in expected.items():
        calculated = content.digest(algorithm)
        try:
            is_same = base64.b64decode(value, validate=True) == calculated
        except ValueError as error:
            raise ObjectError("InvalidDigest") from error
        if not is_same:
            name = algorithm.upper()
            message = f'Provided {name} "{value}" doesn\'t match calculated {name} "{encoded(calculated)}".'
            raise ObjectError("BadDigest", message)
