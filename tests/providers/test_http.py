"""http.py: multipart bodies are the SDK's, waits are read in every form, failures have one shape."""

import io
import time
from email.utils import formatdate

import openai
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multipart import MultipartParser, parse_options_header
from yarl import URL

from app.errors import Unavailable
from app.providers.http import multipart_frame, retry_after_seconds
from tests.support.providers import canned

FIELDS = {"purpose": "user_data", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
FILE_OBJECT = b"""{"id": "file-1", "object": "file", "bytes": 5, "created_at": 0, "filename": "a.txt",
    "purpose": "user_data", "status": "processed"}"""


def parts(body, boundary):
    """Name, filename, type and content of each part, in order."""
    return [
        (part.name, part.filename, part.headerlist[1:] and part.content_type, part.raw)
        for part in MultipartParser(io.BytesIO(body), boundary)
    ]


@pytest.mark.parametrize(
    "filename", ["a.txt", "Bericht März 🎉.txt", 'the "best".txt', "a; b=c.txt", "two\r\nlines.txt"]
)
async def test_a_form_is_what_the_official_sdk_sends(filename):
    async with (
        canned(body=FILE_OBJECT) as (url, requests),
        openai.AsyncOpenAI(base_url=url, api_key="sk", max_retries=0) as client,
    ):
        expiry = {"anchor": "created_at", "seconds": 3600}
        file = (filename, b"bytes", "text/plain")
        await client.files.create(file=file, purpose="user_data", expires_after=expiry)
    head, _, body = requests[0].partition(b"\r\n\r\n")
    content_type = next(line for line in head.decode().split("\r\n") if line.lower().startswith("content-type:"))
    boundary = parse_options_header(content_type)[1]["boundary"]
    before, after = multipart_frame("ours", FIELDS, filename, "text/plain")
    assert parts(before + b"bytes" + after, "ours") == parts(body, boundary)


@settings(max_examples=100)
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]).filter(lambda c: c not in '%"\\'), min_size=1, max_size=30)
)
def test_every_filename_survives_the_frame(filename):
    before, after = multipart_frame("b", FIELDS, filename, "text/plain")
    *fields, file = parts(before + b"\r\n--\r\n\r\n" + after, "b")
    assert {name: content.decode() for name, _, _, content in fields} == FIELDS
    assert file == ("file", filename, "text/plain", b"\r\n--\r\n\r\n")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "0"}, 0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "-1"}, 0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "-7"}, None),
        ({"retry-after-ms": "soon"}, None),
    ],
)
def test_what_a_provider_asks_for(headers, seconds):
    assert retry_after_seconds(headers) == seconds


def test_a_date_is_read_as_the_time_until_then():
    date = formatdate(time.time() + 90, usegmt=True)
    assert 30 < retry_after_seconds({"retry-after": date}) <= 90


@settings(max_examples=100)
@given(st.sampled_from(["retry-after", "retry-after-ms"]), st.text() | st.from_regex(r"[A-Za-z0-9,:+\- ]{0,40}"))
@example("retry-after", "Mon, 01 Jan 2024 00:00:00 +99999999999999999999999")
@example("retry-after", "²")
@example("retry-after", "9" * 400)
@example("retry-after-ms", "nan")
def test_junk_is_no_wait_and_no_failure(name, text):
    seconds = retry_after_seconds({name: text})
    assert seconds is None or seconds >= 0


async def test_an_ordinary_call_without_an_answer_is_unavailable(http):
    async with canned(status=200) as (url, _):
        pass
    with pytest.raises(Unavailable):
        await http.call("GET", URL(url), headers={})


async def test_redirects_are_not_followed(http):
    async with canned(status=307, headers={"location": "http://127.0.0.1:1/"}) as (url, requests):
        async with http.open("POST", URL(url), headers={}, body=b"secret") as answer:
            assert answer.status == 307
        assert (await http.call("GET", URL(url), headers={})).status_code == 307
        assert len(requests) == 2
