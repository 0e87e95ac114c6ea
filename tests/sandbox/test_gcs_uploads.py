"""Uploads by Cloud Storage's JSON API, by hand: sessions, offsets, and what is wrong with a request."""

import hashlib
import io
import json

import httpx
import pytest
from google.cloud import storage
from google.oauth2.credentials import Credentials

from tests.sandbox.conftest import Sandbox, Switchboard

BUCKET = "filemux-sandbox"
_OBJECTS = f"/gcs/storage/v1/b/{BUCKET}/o"
_UPLOADS = f"/gcs/upload/storage/v1/b/{BUCKET}/o"
_TOKEN = {"authorization": "Bearer tok"}
_GRANULE = 256 * 1024


async def _start(http: httpx.AsyncClient, headers: dict[str, str] | None = None, **resource: object) -> str:
    """The address of a new session."""
    answer = await http.post(
        _UPLOADS, params={"uploadType": "resumable"}, json={"name": "a", **resource}, headers=_TOKEN | (headers or {})
    )
    assert answer.status_code == 200, answer.text
    return answer.headers["location"]


async def _send(http: httpx.AsyncClient, url: str, content_range: str, data: bytes = b"", **headers: str):
    return await http.put(url, content=data, headers={"content-range": f"bytes {content_range}", **headers})


def _assert_received(answer: httpx.Response, size: int) -> None:
    assert answer.status_code == 308, answer.text
    assert answer.headers.get("range") == (f"bytes=0-{size - 1}" if size else None)


def _assert_refused(answer: httpx.Response, status: int, reason: str) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["errors"][0]["reason"]) == (status, reason)
    assert error["message"] == error["errors"][0]["message"]
    return error["message"]


async def _read(http: httpx.AsyncClient) -> bytes:
    answer = await http.get(f"{_OBJECTS}/a", params={"alt": "media"}, headers=_TOKEN)
    assert answer.status_code == 200
    return answer.content


async def test_an_upload_in_pieces(http: httpx.AsyncClient, switchboard: Switchboard):
    data = bytes(range(256)) * 2049
    declared = {"x-upload-content-length": str(len(data)), "x-upload-content-type": "application/pdf"}
    url = await _start(http, declared)
    _assert_received(await _send(http, url, "*/*"), 0)
    _assert_received(await _send(http, url, f"0-{_GRANULE - 1}/{len(data)}", data[:_GRANULE]), _GRANULE)
    _assert_received(await _send(http, url, f"*/{len(data)}"), _GRANULE)
    # What comes twice is left out; what is beyond the last whole granule has to come again.
    _assert_received(await _send(http, url, f"0-{2 * _GRANULE + 9}/*", data[: 2 * _GRANULE + 10]), 2 * _GRANULE)
    last = await _send(http, url, f"{2 * _GRANULE}-{len(data) - 1}/{len(data)}", data[2 * _GRANULE :])
    assert last.status_code == 200
    assert (last.json()["size"], last.json()["contentType"]) == (str(len(data)), "application/pdf")
    assert await _read(http) == data
    assert await switchboard.uploads() == 0
    # An answer that was lost is given again.
    for again in (await _send(http, url, "*/*"), await http.put(url, content=b"anything")):
        assert (again.status_code, again.json()) == (200, last.json())
    assert await switchboard.requests() == {
        "vertex_ai.start_upload": 1,
        "vertex_ai.query_upload": 3,
        "vertex_ai.upload_file": 4,
        "vertex_ai.read_file": 1,
    }


async def test_the_size_may_be_told_last(http: httpx.AsyncClient):
    url = await _start(http)
    _assert_received(await _send(http, url, f"0-{_GRANULE - 1}/*", bytes(_GRANULE)), _GRANULE)
    assert (await _send(http, url, f"*/{_GRANULE}")).json()["size"] == str(_GRANULE)
    assert await _read(http) == bytes(_GRANULE)


@pytest.mark.parametrize("data", [b"", b"hello"])
async def test_a_session_takes_all_at_once(http: httpx.AsyncClient, data):
    digest = {"x-goog-hash": "crc32c=AAAAAA==" if not data else "crc32c=mnG7TA==,md5=XUFAKrxLKna5cZ2REBfFkg=="}
    assert (await http.put(await _start(http), content=data, headers=digest)).status_code == 200
    assert await _read(http) == data


@pytest.mark.parametrize(
    ("content_range", "size", "words"),
    [
        ("262144-262148/262149", 5, "exceeds already uploaded size of 0 byte"),
        ("0-4/*", 5, "required to be equal or greater than 262144"),
        ("0-4/6", 5, "required to be equal or greater than 262144"),
        ("0-4/5", 4, "does not match"),
        ("0-3/4", 5, "does not match"),
        ("0-4/7", 5, "X-Upload-Content-Length 9"),
        ("4-0/5", 5, ""),
        ("x", 5, "Failed to parse"),
        ("0-4", 5, "Failed to parse"),
    ],
)
async def test_a_range_that_is_wrong_changes_nothing(http: httpx.AsyncClient, content_range, size, words):
    is_declared = "Length 9" in words
    url = await _start(http, {"x-upload-content-length": "9"} if is_declared else None)
    message = _assert_refused(await _send(http, url, content_range, bytes(size)), 400, "invalid")
    assert words in message
    _assert_received(await _send(http, url, "*/*"), 0)


async def test_digests_are_compared(http: httpx.AsyncClient, sandbox: Sandbox):
    for told, header in (({}, {"x-goog-hash": "crc32c=AAAAAA=="}), ({"md5Hash": "XUFAKrxLKna5cZ2REBfFkw=="}, {})):
        url = await _start(http, None, **told)
        message = _assert_refused(await http.put(url, content=b"hello", headers=header), 400, "invalid")
        assert "doesn't match calculated" in message
        _assert_refused(await _send(http, url, "*/*"), 404, "notFound")
    for header in ("crc32c=!", "sha256=AAAA"):
        answer = await http.put(await _start(http), content=b"hello", headers={"x-goog-hash": header})
        _assert_refused(answer, 400, "invalid")
    assert sandbox.blobs() == []


async def test_a_cancelled_session_is_no_more(http: httpx.AsyncClient, sandbox: Sandbox, switchboard: Switchboard):
    url = await _start(http)
    await _send(http, url, f"0-{_GRANULE - 1}/*", bytes(_GRANULE))
    assert (await http.delete(url)).status_code == 499
    for answer in (await http.delete(url), await _send(http, url, "*/*")):
        _assert_refused(answer, 404, "notFound")
    assert await switchboard.files() == [] and sandbox.blobs() == []


async def test_a_cut_upload_goes_on_where_it_was_cut(http: httpx.AsyncClient, switchboard: Switchboard):
    data = bytes(range(256)) * 16 * 1024
    url = await _start(http)
    await switchboard.fault(operation="upload_file", reset_after_bytes=3_000_000)
    with pytest.raises(httpx.TransportError):
        await http.put(url, content=data)
    answer = await _send(http, url, "*/*")
    received = int(answer.headers["range"].removeprefix("bytes=0-")) + 1
    assert 0 < received <= 3_000_000
    rest = await _send(http, url, f"{received}-{len(data) - 1}/{len(data)}", data[received:])
    assert rest.json()["size"] == str(len(data))
    assert await _read(http) == data


async def test_the_sdk_goes_on_after_a_failure(sandbox: Sandbox, switchboard: Switchboard):
    options = {"api_endpoint": f"{sandbox.base_url}/gcs"}
    client = storage.Client(project="p", credentials=Credentials("tok"), client_options=options)
    blob = client.bucket(BUCKET).blob("a", chunk_size=_GRANULE)
    data = bytes(range(256)) * 4 * 1024
    for fault in ({"status": 503}, {"reset_after_bytes": 1000}, {"lose_answer": True}):
        await switchboard.fault(operation="upload_file", **fault)
        blob.upload_from_file(io.BytesIO(data), size=len(data))
        assert blob.download_as_bytes() == data
    client.close()


def _related(resource: bytes = b'{"name":"a"}', data: bytes = b"hello", end: bytes = b"\r\n--B--\r\n") -> bytes:
    head = b"--B\r\ncontent-type: application/json\r\n\r\n" + resource
    return head + b"\r\n--B\r\ncontent-type: text/plain\r\n\r\n" + data + end


async def _post(http: httpx.AsyncClient, body, content_type: str = 'multipart/related; boundary="B"', **params):
    query = {"uploadType": "multipart", **params}
    return await http.post(_UPLOADS, params=query, content=body, headers=_TOKEN | {"content-type": content_type})


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize("end", [b"\r\n--B--\r\n", b"\r\n--B--"])
@pytest.mark.parametrize("data", [b"", b"\r\n--B", b"\r\n", b"--B--\r\n"])
async def test_a_whole_upload_however_it_is_cut(http: httpx.AsyncClient, step, end, data):
    async def pieces():
        body = _related(data=data, end=end)
        for start in range(0, len(body), step):
            yield body[start : start + step]

    answer = await _post(http, pieces())
    assert (answer.status_code, answer.json()["contentType"]) == (200, "text/plain")
    assert await _read(http) == data


@pytest.mark.parametrize(
    "body",
    [b"", b"hello", _related(end=b""), _related(end=b"\r\n--B"), _related() + b"more", _related().replace(b"B", b"C")],
)
async def test_a_whole_upload_that_is_malformed(http: httpx.AsyncClient, sandbox: Sandbox, body):
    _assert_refused(await _post(http, body), 400, "invalid")
    assert sandbox.blobs() == []


@pytest.mark.parametrize(
    "resource",
    [
        {},
        {"name": 1},
        {"name": "a", "owner": "me"},
        {"name": "a", "metadata": {"a": 1}},
        {"name": "a", "crc32c": "nonsense!"},
        {"name": "a" * 1025},
        [],
    ],
)
async def test_an_object_that_cannot_be(http: httpx.AsyncClient, resource):
    _assert_refused(await _post(http, _related(json.dumps(resource).encode())), 400, "invalid")


async def test_what_is_wrong_with_a_request(http: httpx.AsyncClient):
    wrong = [
        await _post(http, _related(), "multipart/related"),
        await _post(http, _related(), "application/json"),
        await _post(http, _related(b"{")),
        await _post(http, _related(), ifGenerationMatch="x"),
        await _post(http, _related(), predefinedAcl="publicRead"),
        await _post(http, _related(), uploadType="unknown"),
        await http.get(_OBJECTS, params={"delimiter": "/"}, headers=_TOKEN),
        await http.get(_OBJECTS, params={"maxResults": "-1"}, headers=_TOKEN),
        await http.get(_OBJECTS, params={"pageToken": "x"}, headers=_TOKEN),
    ]
    for answer in wrong:
        _assert_refused(answer, 400, "invalid")
    _assert_refused(await http.put(_UPLOADS, headers=_TOKEN), 404, "notFound")
    _assert_refused(await http.patch(f"{_OBJECTS}/a", headers=_TOKEN), 405, "badRequest")
    _assert_refused(await http.get("/gcs/storage/v1/unknown", headers=_TOKEN), 404, "notFound")


async def test_the_name_may_stand_in_the_query(http: httpx.AsyncClient):
    assert (await _post(http, _related(b"{}"), name="a")).json()["name"] == "a"


async def test_a_token_is_needed(http: httpx.AsyncClient):
    for headers, reason in (({}, "required"), ({"authorization": "Bearer bad"}, "authError")):
        _assert_refused(await http.get(f"{_OBJECTS}/a", headers=headers), 401, reason)
        _assert_refused(await http.post(_UPLOADS, headers=headers), 401, reason)


async def test_a_session_belongs_to_who_started_it(http: httpx.AsyncClient, switchboard: Switchboard):
    await http.put(await _start(http), content=b"hello", headers={"authorization": "Bearer another"})
    (file,) = await switchboard.files()
    assert file["account"] == hashlib.sha256(b"tok").hexdigest()[:8]
