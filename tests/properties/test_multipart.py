"""Multipart: how a body is cut into chunks changes nothing, and a form that ends early is never a form."""

import asyncio
import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import BadRequest
from app.files.multipart import Field, FileEnd, FileStart, form_events
from tests.support.providers import chunks_of

BOUNDARY = "bound"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
DELIMITER = f"\r\n--{BOUNDARY}".encode()
# What a parser could take for the end of a part, of its headers, or of the form.
TRICKS = [b"\r\n\r\n", b"\r\n", b"\r", b"\n", b"--bound", b"\r\n--boun", b"\r\n--", b"bound--\r\n", b"--", b"x"]

tricky = st.lists(st.sampled_from(TRICKS) | st.binary(max_size=8), max_size=8).map(b"".join)
contents = tricky.filter(lambda content: DELIMITER not in b"\r\n" + content)
values = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["\r\n\r\n", "--bound", "\r\n--boun"]
)
names = st.sampled_from(["purpose", "target_model_names[]", "expires_after[seconds]", "model"])
preambles = st.sampled_from([b"", b"\r\n", b"a preamble\r\n", b"two\r\n\r\nparagraphs\r\n"])
epilogues = st.sampled_from([b"\r\n", b"", b"\r\nan epilogue", b"\r\n\r\n--bound\r\n"])


@dataclass(frozen=True)
class Form:
    """A form and its bytes."""

    parts: list[tuple[str, str] | bytes]
    preamble: bytes
    epilogue: bytes

    def __bytes__(self):
        return self.preamble + b"".join(map(_part, self.parts)) + b"--bound--" + self.epilogue

    @property
    def complete_bytes(self):
        """How much of it a reader needs in order to know that it is whole."""
        return len(bytes(self)) - len(self.epilogue)

    @property
    def size_is_known(self):
        """Whether the file is last and the form closed as all clients close it."""
        return isinstance(self.parts[-1], bytes) and self.epilogue == b"\r\n"


def _part(part):
    if isinstance(part, bytes):
        head = b'name="file"; filename="a.bin"\r\nContent-Type: text/x-tricky'
        return b"--bound\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + part + b"\r\n"
    name, value = part
    return f'--bound\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


@st.composite
def forms(draw):
    fields = draw(st.lists(st.tuples(names, values), max_size=3))
    parts = draw(st.permutations([*fields, draw(contents)]))
    return Form(parts, draw(preambles), draw(epilogues))


async def _events(chunks, content_length):
    """The events of a body, the file's chunks joined."""
    events = []
    async for event in form_events(chunks, CONTENT_TYPE, content_length):
        if isinstance(event, bytes) and events and isinstance(events[-1], bytes):
            events[-1] += event
        else:
            events.append(event)
    return events


def _read(body, cuts=(), content_length=None):
    async def chunks():
        places = [0, *sorted(cuts), len(body)]
        for start, end in itertools.pairwise(places):
            yield body[start:end]

    return asyncio.run(_events(chunks(), content_length))


def _expected(form, size_bytes):
    for part in form.parts:
        if isinstance(part, bytes):
            yield FileStart("a.bin", "text/x-tricky", size_bytes)
            if part:
                yield part
            yield FileEnd()
        else:
            yield Field(*part)


@settings(max_examples=300)
@given(forms(), st.data())
def test_every_chunking_gives_the_same_events(form, data):
    body = bytes(form)
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=12))
    assert _read(body, cuts) == list(_expected(form, None))


@settings(max_examples=50)
@given(forms())
def test_one_byte_at_a_time_gives_the_same_events(form):
    body = bytes(form)
    assert _read(body, range(len(body))) == list(_expected(form, None))


@settings(max_examples=100)
@given(forms().filter(lambda form: form.size_is_known), st.data())
def test_the_size_of_a_last_file_is_known_when_it_begins(form, data):
    body = bytes(form)
    file = form.parts[-1]
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=6))
    assert _read(body, cuts, len(body)) == list(_expected(form, len(file)))


@settings(max_examples=15)
@given(forms(), st.integers(1, 40))
def test_a_body_cut_off_anywhere_is_refused(form, chunk_bytes):
    body = bytes(form)

    async def refused_at_every_byte():
        for end in range(form.complete_bytes):
            with pytest.raises(BadRequest, match="not a complete multipart form") as refusal:
                await _events(chunks_of(body[:end], chunk_bytes), len(body))
            assert refusal.value.code == "malformed_multipart"

    asyncio.run(refused_at_every_byte())
