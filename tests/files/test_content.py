"""GET /files/{id}/content of kept bytes: whole, by range, and only if changed (RFC 9110 §13, §14)."""

import os
import random
import socket
from pathlib import Path

import pytest

from tests.support.sandbox import eventually
from tests.support.uploads import raw_client, refusal, sha256, upload

SIZE = 1000
CONTENT = random.Random(1).randbytes(SIZE)
ETAG = f'"{sha256(CONTENT)}"'
DATE = "Sat, 21 Nov 2026 00:00:00 GMT"


@pytest.fixture
def path(member):
    """Where the content of a file of SIZE bytes is."""
    return f"/files/{upload(member, 'mini', CONTENT).id}/content"


def assert_whole(answer):
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-length"] == str(SIZE)
    assert "content-range" not in answer.headers


def test_the_whole_says_what_it_is(http, path):
    answer = http.get(path)
    assert_whole(answer)
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a.pdf"
    assert (answer.headers["etag"], answer.headers["accept-ranges"]) == (ETAG, "bytes")


@pytest.mark.parametrize("purpose", ["user_data", "assistants", "vision", "fine-tune"])
def test_every_purpose_is_given_back_and_no_provider_is_asked(member, sandbox, purpose):
    file = upload(member, content=CONTENT, purpose=purpose, filename="a.jsonl")
    assert member.files.content(file.id).content == CONTENT
    assert sandbox.calls("openai.read_file") == sandbox.calls("azure.read_file") == 0


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-499", 0, 499),
        ("bytes=500-998", 500, 998),
        ("bytes=0-999", 0, 999),
        ("bytes=999-5000", 999, 999),
        ("bytes=0-" + "9" * 18, 0, 999),
        ("bytes=0-", 0, 999),
        ("bytes=700-", 700, 999),
        ("bytes=-1", 999, 999),
        ("bytes=-300", 700, 999),
        ("bytes=-1000", 0, 999),
        ("bytes=-5000", 0, 999),
        ("bytes= 1-2", 1, 2),
    ],
)
def test_a_range(http, path, asked, first, last):
    answer = http.get(path, headers={"range": asked})
    assert (answer.status_code, answer.content) == (206, CONTENT[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
    assert answer.headers["content-length"] == str(last + 1 - first)
    assert (answer.headers["etag"], answer.headers["content-type"]) == (ETAG, "application/pdf")


@pytest.mark.parametrize("first", [0, 256 * 1024 - 1, 256 * 1024, 1_000_000])
def test_a_range_that_is_read_in_several_pieces(member, first):
    content = os.urandom(2_000_000)
    file = upload(member, "mini", content)
    with raw_client(member) as http:
        answer = http.get(f"/files/{file.id}/content", headers={"range": f"bytes={first}-1999998"})
    assert (answer.status_code, answer.content) == (206, content[first:-1])


@pytest.mark.parametrize("asked", ["bytes=1000-", "bytes=1000-1001", "bytes=5000-6000", "bytes=-0"])
def test_a_range_without_a_byte_is_refused_with_the_size(http, path, asked):
    answer = http.get(path, headers={"range": asked})
    refusal(answer, 416, "range_not_satisfiable", "range")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "asked",
    ["bytes=0-1,3-4", "bytes=0-1, -1", "bytes=5-2", "bytes=", "bytes=-", "bytes=a-b", "bytes=0--1", "0-1", "x=0-1"],
)
def test_several_ranges_and_what_is_no_range_get_the_whole(http, path, asked):
    """Nobody has to serve several (§14.2), and whatever is no range is to be ignored."""
    assert_whole(http.get(path, headers={"range": asked}))


@pytest.mark.parametrize(
    ("condition", "status"), [(ETAG, 206), (f"W/{ETAG}", 200), ('"another"', 200), (DATE, 200), ("*", 200)]
)
def test_a_range_of_this_version_only(http, path, condition, status):
    answer = http.get(path, headers={"range": "bytes=1-2", "if-range": condition})
    assert (answer.status_code, answer.content) == (status, CONTENT[1:3] if status == 206 else CONTENT)


@pytest.mark.parametrize("condition", [ETAG, f"W/{ETAG}", f'"another", {ETAG}', f'W/"another",{ETAG},"third"', "*"])
@pytest.mark.parametrize(
    "headers", [{}, {"range": "bytes=1-2"}, {"range": "bytes=5000-"}], ids=["", "range", "no range"]
)
def test_nothing_is_sent_that_the_client_has(http, path, condition, headers):
    answer = http.get(path, headers={"if-none-match": condition, **headers})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", ETAG)


@pytest.mark.parametrize("condition", ['"another"', sha256(CONTENT), f'"{sha256(CONTENT)[:10]}"', ""])
def test_another_version_is_sent(http, path, condition):
    assert_whole(http.get(path, headers={"if-none-match": condition}))


def test_the_sdk_reads_it_whole_and_in_pieces(member):
    content = os.urandom(3_000_000)
    file = upload(member, content=content, filename="photo.bin")
    assert member.files.content(file.id).read() == content
    with member.files.with_streaming_response.content(file.id) as answer:
        assert b"".join(answer.iter_bytes(100_000)) == content


def test_a_type_that_says_its_character_set_keeps_it_and_no_other_gets_one(member):
    for mime_type in ("text/csv", "text/plain; charset=iso-8859-1"):
        made = member.files.create(
            file=("a.csv", b"a,b", mime_type), purpose="user_data", extra_body={"target_model_names": "mini"}
        )
        assert member.files.content(made.id).response.headers["content-type"] == mime_type


def test_another_teams_content_is_one_that_never_existed(clients, path):
    with raw_client(clients.member()) as http:
        for headers in ({}, {"range": "bytes=0-1"}, {"range": "bytes=5000-"}, {"if-none-match": ETAG}):
            answer = http.get(path, headers=headers)
            refusal(answer, 404, "not_found", "id")
            assert "etag" not in answer.headers and "content-range" not in answer.headers


def test_a_reader_that_leaves_is_read_for_no_longer(gateway, member):
    """Its file is closed."""
    file = upload(member, "mini", os.urandom(60_000_000))

    def opened():
        links = []
        for descriptor in Path(f"/proc/{gateway.process.pid}/fd").iterdir():
            try:
                links.append(descriptor.readlink().name)
            except FileNotFoundError:
                continue
        return file.id in links

    url = member.base_url
    # A small window: the kernel would otherwise take the whole file in, and nothing would be left to be read.
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        reader.connect((url.host, url.port))
        head = f"GET {url.path}files/{file.id}/content HTTP/1.1\r\nHost: {url.host}\r\n"
        reader.sendall(f"{head}Authorization: Bearer {member.api_key}\r\n\r\n".encode())
        assert b" 200 " in reader.recv(1000)
        assert eventually(opened)
    assert eventually(lambda: not opened())


# --- where the gateway keeps nothing ----------------------------------------------------------------------------


def test_a_replica_is_given_back_whole_whatever_the_range(keepless):
    file = upload(keepless, "mini", CONTENT, purpose="fine-tune")
    with raw_client(keepless) as http:
        for asked in ("bytes=0-1", "bytes=5000-"):
            answer = http.get(f"/files/{file.id}/content", headers={"range": asked})
            assert_whole(answer)
            assert answer.headers["etag"] == ETAG and "accept-ranges" not in answer.headers
        assert http.get(f"/files/{file.id}/content", headers={"if-none-match": ETAG}).status_code == 304
