"""Media: a file that travels inside a request is read there as what it was; whatever a caller writes breaks nothing."""

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import Rejected
from app.formats.media import decoded_text, inline_part, media_of, plain_type, text_file, text_part
from app.formats.openai import AudioPart, FileFacts, FilePart, ImagePart
from app.sandbox.model import Attachment

KINDS = {"image_url": ImagePart, "input_audio": AudioPart, "file": FilePart}
IMAGES = ["image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"]
OTHERS = [
    "application/pdf",
    "text/csv",
    "application/json",
    "video/mp4",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
filenames = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
odd_types = st.sampled_from(
    [*IMAGES, *OTHERS, "audio/wav", "audio/mp3", "IMAGE/JPG", " Text/Plain ; charset=x", "", "nonsense"]
)


def outcome_of(call):
    """What a call returns, and what it refuses; one of them is None."""
    try:
        return call(), None
    except Rejected as refused:
        return None, refused


def part_of(content):
    """A part as the formats read it."""
    return KINDS[content["type"]].model_validate(content)


@given(st.binary(max_size=200), filenames, st.sampled_from([*IMAGES, *OTHERS, "audio/wav", "audio/mpeg"]))
def test_what_travels_inside_is_what_it_was(content, filename, mime_type):
    """Its type, its bytes and, where OpenAI's part has a place for it, its name."""
    part = inline_part(f"{mime_type.upper()}; charset=utf-8", filename, content)
    media = media_of(part_of(part), {}, "messages[0].content[0]")
    assert (media.mime_type, media.decoded(), media.url, media.file_id) == (mime_type, content, None, None)
    assert media.filename == (filename if mime_type in OTHERS else None)
    assert media.where.startswith("messages[0].content[0].")


@given(texts, filenames)
def test_what_travels_as_text_is_what_it_was(text, filename):
    """The simulated model, which shares no code with this, finds name and bytes again."""
    part = text_part(filename, text.encode(), "here")
    found = Attachment.in_text(part["text"])
    assert found == Attachment.of(text.encode(), filename.replace('"', "%22"))
    assert part == {"type": "text", "text": text_file(filename, text)}


@given(texts)
def test_text_is_decoded_by_its_byte_order_mark_else_as_utf_8(text):
    assert decoded_text(text.encode("utf-16"), "here") == text
    assert decoded_text(b"\xfe\xff" + text.encode("utf-16-be"), "here") == text
    assert decoded_text(text.encode(), "here") == text


@given(st.binary(max_size=100))
@example(b"\xff\xfe\x00")
@example(b"\xff\xfe\x00\xd8")
@example(b"\xef\xbb\xbf")
def test_what_is_no_text_is_refused_where_it_stands(content):
    _, refused = outcome_of(lambda: decoded_text(content, "messages[0]"))
    if refused is None:
        return
    assert (refused.param, refused.code) == ("messages[0]", "file_not_text")
    assert refused.message.startswith("messages[0]: ")
    with pytest.raises(UnicodeDecodeError):
        content.decode("utf-8")


@given(odd_types | texts)
def test_a_plain_type_is_bare_and_stays_so(mime_type):
    plain = plain_type(mime_type)
    assert plain_type(plain) == plain == plain.strip().lower()
    assert ";" not in plain
    assert plain_type(f"{mime_type}; charset=utf-8") == plain
    assert not mime_type.isascii() or plain_type(mime_type.upper()) == plain


urls = (
    texts
    | st.builds("data:{};base64,{}".format, odd_types | texts, st.sampled_from(["", "aGk=", "a", "%%%"]) | texts)
    | st.builds("{}://host/{}".format, st.sampled_from(["https", "http", "gs", "s3", "file", "ftp"]), texts)
)
optional = st.none() | odd_types | texts
sources = (
    st.builds(lambda value: {"file_data": value}, urls)
    | st.builds(lambda value: {"file_url": value}, urls)
    | st.builds(lambda value: {"file_id": value}, st.just("known") | texts)
)
parts = (
    st.builds(lambda url, form: {"type": "image_url", "image_url": {"url": url, "format": form}}, urls, optional)
    | st.builds(
        lambda data, form: {"type": "input_audio", "input_audio": {"data": data, "format": form}},
        texts,
        st.sampled_from(["wav", "mp3"]),
    )
    | st.builds(
        lambda source, name, form: {"type": "file", "file": {**source, "filename": name, "format": form}},
        sources,
        st.none() | filenames,
        optional,
    )
)


@given(parts)
@example({"type": "file", "file": {"file_url": "gs://bucket/secret.pdf"}})
@example({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}})
@example({"type": "image_url", "image_url": {"url": "HTTPS://host/a.png"}})
def test_whatever_a_part_says_is_media_or_refused_where_it_stands(part):
    facts = {"known": FileFacts("application/pdf", "a.pdf")}
    media, refused = outcome_of(lambda: media_of(part_of(part), facts, "messages[0].content[0]"))
    if media and media.data is not None:
        content, refused = outcome_of(media.decoded)
        assert refused or base64.b64encode(content).decode() == media.data
    if refused:
        assert refused.param.startswith("messages[0].content[0].")
        assert refused.message.startswith(refused.param.removesuffix(".format"))
        return
    assert sum(one is not None for one in (media.file_id, media.data, media.url)) == 1
    assert media.url is None or media.url.startswith(("https://", "http://"))
    assert media.mime_type == plain_type(media.mime_type)


def test_the_facts_of_a_known_file_say_more_than_the_part():
    part = part_of({"type": "file", "file": {"file_id": "known", "filename": "b.txt", "format": "text/plain"}})
    media = media_of(part, {"known": FileFacts("Application/PDF; version=1.7", "a.pdf")}, "here")
    assert (media.mime_type, media.filename, media.file_id) == ("application/pdf", "a.pdf", "known")
