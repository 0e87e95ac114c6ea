"""Tool call ids: what they carry comes back whole, and whatever a client makes of them, nothing breaks."""

import base64
import re
import tracemalloc
import zlib

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.formats.tool_calls import MARK, MAX_EXTRA_BYTES, extra_of, vendor_id, with_extra, without_extra

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
extras = st.recursive(
    texts | numbers | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
BOMB_BYTES = 300_000_000
own_ids = texts.filter(lambda text: MARK not in text)
providers = st.sampled_from(["anthropic", "gemini", "vertex_ai", "bedrock"])


def bomb(content):
    """An id that unpacks to this content."""
    return f"call{MARK}{base64.urlsafe_b64encode(zlib.compress(content, 9)).decode().rstrip('=')}"


@given(own_ids, providers, extras)
def test_what_an_id_carries_comes_back_to_its_provider_only(own_id, provider, extra):
    call_id = with_extra(own_id, provider, extra)
    assert without_extra(call_id) == own_id
    assert extra_of(call_id, provider) == (extra or None)
    assert extra_of(call_id, "another") is None
    assert (call_id == own_id) == (not extra)


@given(own_ids, st.text())
@example("call", "\u00fc")
@example("call", "=" * 5)
@example("call", base64.urlsafe_b64encode(zlib.compress(b"[" * 100_000)).decode())
@example("call", base64.urlsafe_b64encode(zlib.compress(b'{"anthropic": NaN}')).decode())
def test_a_forged_id_carries_nothing(own_id, forged):
    call_id = f"{own_id}{MARK}{forged}"
    assert without_extra(call_id) == own_id
    assert extra_of(call_id, "anthropic") is None


@settings(max_examples=300)
@given(extras.filter(bool), st.data())
def test_a_damaged_id_carries_what_it_did_or_nothing(extra, data):
    call_id = with_extra("call", "gemini", extra)
    at = data.draw(st.integers(len("call" + MARK), len(call_id) - 1))
    length = data.draw(st.integers(0, 5))
    damaged = call_id[:at] + data.draw(st.text(max_size=5)) + call_id[at + length :]
    assert without_extra(damaged) == "call"
    assert extra_of(damaged, "gemini") in (extra, None)


@pytest.mark.parametrize(
    "call_id",
    [
        bomb(b" " * BOMB_BYTES),
        bomb(b'{"anthropic": "' + b"x" * BOMB_BYTES + b'"}'),
        bomb(b"[" * BOMB_BYTES),
        # One such id does no harm, a thousand in a request do.
        bomb(b'{"anthropic": "' + b"x" * 100_000 + b'"}'),
    ],
    ids=["spaces", "a long text", "deep", "small"],
)
def test_a_bomb_is_not_unpacked(call_id):
    tracemalloc.start()
    try:
        assert extra_of(call_id, "anthropic") is None
        # An error of the JSON parser costs several times what it parsed.
        assert tracemalloc.get_traced_memory()[1] < 16 * MAX_EXTRA_BYTES < BOMB_BYTES
    finally:
        tracemalloc.stop()


def test_as_much_as_a_vendor_thinks_is_carried():
    thinking = {"thinking": "thoughts " * 200_000, "signature": base64.b64encode(bytes(range(256)) * 400).decode()}
    assert extra_of(with_extra("call", "anthropic", thinking), "anthropic") == thinking


@pytest.mark.parametrize("times", [1, 10, 100, 1_000, 10_000, 100_000])
def test_a_vendor_may_repeat_itself(times):
    thinking = {"thinking": "Wait. " * times, "signature": "c2ln"}
    assert extra_of(with_extra("call", "anthropic", thinking), "anthropic") == thinking


@given(own_ids, extras, st.sampled_from([r"[a-zA-Z0-9_-]{1,64}", r"[a-zA-Z0-9]{1,40}", r"call_[0-9a-f]{32}"]))
def test_an_id_fits_the_vendor_and_a_call_and_its_result_stay_together(own_id, extra, pattern):
    allowed = re.compile(pattern)
    fitting = vendor_id(with_extra(own_id, "gemini", extra), allowed)
    assert fitting == own_id if allowed.fullmatch(own_id) else re.fullmatch(r"call_[0-9a-f]{32}", fitting)
    assert vendor_id(own_id, allowed) == fitting


def test_no_two_ids_become_the_same():
    allowed = re.compile(r"[a-z]+")
    assert len({vendor_id(f"call {number}", allowed) for number in range(1000)}) == 1000


def test_an_id_is_what_every_client_keeps():
    """Nothing in it that JSON, a URL or a header would have to escape."""
    assert re.fullmatch(r"call_1~mux\.[A-Za-z0-9_-]+", with_extra("call_1", "anthropic", {"thinking": "größer"}))
    assert orjson.dumps(with_extra("call_1", "anthropic", ["x"])).startswith(b'"call_1~mux.')
