"""Multipart, one mistake or habit of a client each."""

import pytest

from app.errors import BadRequest
from app.files.multipart import MAX_FIELD_BYTES, MAX_FIELDS, Field, FileEnd, FileStart, form_events
from tests.support.providers import chunks_of

PURPOSE = b'Content-Disposition: form-data; name="purpose"\r\n\r\nuser_data'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nbytes'
FORM = "multipart/form-data; boundary=b"


def form(*parts):
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def file_part(disposition, content_type=None):
    lines = [f"Content-Disposition: form-data; {disposition}"]
    lines += [f"Content-Type: {content_type}"] if content_type else []
    return "\r\n".join([*lines, "", "x"]).encode()


async def events(body, content_type=FORM):
    return [event async for event in form_events(chunks_of(body), content_type, len(body))]


async def refusal(body, content_type=FORM):
    with pytest.raises(BadRequest) as refused:
        await events(body, content_type)
    return refused.value


async def test_fields_before_the_file_and_after_it():
    assert await events(form(PURPOSE, FILE)) == [
        Field("purpose", "user_data"),
        FileStart("a.txt", "text/plain", 5),
        b"bytes",
        FileEnd(),
    ]
    started, *rest = await events(form(FILE, PURPOSE))
    # The size is what it must be if nothing follows; here something does.
    assert started.size_bytes > 5
    assert rest == [b"bytes", FileEnd(), Field("purpose", "user_data")]


async def test_an_empty_file_has_no_bytes():
    assert await events(form(FILE.removesuffix(b"bytes"))) == [FileStart("a.txt", "text/plain", 0), FileEnd()]


@pytest.mark.parametrize(
    ("content_type", "code"),
    [
        ("", "not_multipart"),
        ("application/json", "not_multipart"),
        ("multipart/mixed; boundary=b", "not_multipart"),
        ("multipart/form-data", "missing_boundary"),
        ('multipart/form-data; boundary=""', "missing_boundary"),
        ('multipart/form-data; boundary="not the body\'s"', "malformed_multipart"),
    ],
)
async def test_the_content_type_must_be_the_bodys(content_type, code):
    assert (await refusal(form(FILE), content_type)).code == code


@pytest.mark.parametrize("content_type", ['multipart/form-data; boundary="b"', "Multipart/Form-Data; Boundary=b"])
async def test_the_content_type_may_be_written_in_every_valid_way(content_type):
    assert len(await events(form(FILE), content_type)) == 3


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        (file_part('name="upload"; filename="a"'), "upload", "unexpected_file"),
        (file_part('name="file"'), "file", "not_a_file"),
        (b'Content-Disposition: form-data; name="purpose"\r\n\r\n\xff', "purpose", "field_not_utf8"),
        (file_part('name="purpose"').replace(b"x", b"x" * (MAX_FIELD_BYTES + 1)), "purpose", "field_too_long"),
        (b'Content-Disposition: attachment; name="file"\r\n\r\nx', None, "malformed_multipart"),
        (b"Content-Type: text/plain\r\n\r\nx", None, "malformed_multipart"),
        (b"\xff: x\r\n\r\nx", None, "malformed_multipart"),
        (b"no header\r\n\r\nx", None, "malformed_multipart"),
        (b"X: " + b"x" * 8192 + b"\r\n\r\nx", None, "malformed_multipart"),
        (file_part('name="purpose"\r\nContent-Length: 7'), None, "malformed_multipart"),
    ],
    ids=lambda value: value[:60] if isinstance(value, bytes) else value,
)
async def test_a_wrong_part_is_refused(part, param, code):
    refused = await refusal(form(part))
    assert (refused.param, refused.code) == (param, code)


async def test_a_flood_of_fields_is_refused():
    assert len(await events(form(*[PURPOSE] * MAX_FIELDS))) == MAX_FIELDS
    assert "limit" in (await refusal(form(*[PURPOSE] * (MAX_FIELDS + 1)))).message


@pytest.mark.parametrize("body", [b"", b"x", b"--b", b"--b\r\n", b"no boundary at all" * 10, b"--b--x"[:4]])
async def test_what_is_no_form_is_refused(body):
    assert (await refusal(body)).code == "malformed_multipart"


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        ('filename="a.pdf"', "a.pdf"),
        ("filename=a.pdf", "a.pdf"),
        ('filename="Bericht März 🎉.pdf"', "Bericht März 🎉.pdf"),
        ('filename="a %22quoted%22.pdf"', 'a "quoted".pdf'),
        ('filename="../../etc/passwd"', "passwd"),
        ('filename="C:\\\\docs\\\\a.pdf"', "a.pdf"),
        ('filename="a%0D%0Ab\x07.pdf"', "ab.pdf"),
        ('filename=""', "upload"),
        ('filename="folder/"', "upload"),
        (f'filename="{"x" * 300}"', "x" * 255),
    ],
)
async def test_a_filename_is_kept_without_folders_and_control_characters(disposition, filename):
    started, *_ = await events(form(file_part(f'name="file"; {disposition}')))
    assert started.filename == filename


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, "application/octet-stream"),
        ("application/pdf", "application/pdf"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
    ],
)
async def test_the_type_is_the_parts_own(given, kept):
    started, *_ = await events(form(file_part('name="file"; filename="a"', given)))
    assert started.mime_type == kept
