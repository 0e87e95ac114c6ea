"""Sealed ids: what was sealed is what is opened, and nothing else is."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.seals import FILE, Sealed, Seals, looks_sealed

SECRETS = ("the first of the secrets", "the second of the secrets")
TEAM = "team-1"
SEALS = Seals(SECRETS[:1])

# What the separators are made of comes often.
texts = st.lists(
    st.sampled_from([";", ",", "%", "%3B", ";model,", ";account,", ";team,", ";sig,", "a"]) | st.text()
).map("".join)
names = texts.filter(bool)
sealed_things = st.builds(Sealed, names, names, st.just(TEAM), st.none() | names)
kinds = st.sampled_from(["file-", "batch_"])


def content_of(text):
    encoded = text.removeprefix(FILE)
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()


def id_of(content):
    return FILE + base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


@given(sealed_things, kinds)
def test_whatever_is_sealed_is_opened_by_its_team_alone(sealed, kind):
    text = SEALS.seal(kind, sealed)
    assert looks_sealed(kind, text)
    assert SEALS.open(kind, text, TEAM) == SEALS.open(kind, text, None) == sealed
    assert SEALS.open(kind, text, "team-2") is None
    assert all(
        SEALS.open(other, other + text.removeprefix(kind), None) is None for other in {"file-", "batch_"} - {kind}
    )


def test_the_id_is_as_documented():
    content = content_of(SEALS.seal(FILE, Sealed("file-abc", "gpt-4o", TEAM)))
    said, _, signature = content.rpartition(";sig,")
    assert said == "filemux:file-abc;model,gpt-4o;team,team-1"
    assert len(bytes.fromhex(signature)) >= 16
    several = content_of(SEALS.seal(FILE, Sealed("s3://b/k;a,b", "nova", TEAM, "east")))
    assert several.startswith("filemux:s3://b/k;a,b;model,nova;account,east;team,team-1;sig,")


@given(sealed_things, st.data())
def test_one_other_character_and_it_is_none(sealed, data):
    text = SEALS.seal(FILE, sealed)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda one: one != text[place]))
    assert SEALS.open(FILE, text[:place] + other + text[place + 1 :], None) is None
    assert SEALS.open(FILE, text[:place], None) is None


@given(sealed_things, st.sampled_from(["=", "==", "\n", " ", "A"]))
def test_there_is_one_spelling(sealed, more):
    assert SEALS.open(FILE, SEALS.seal(FILE, sealed) + more, None) is None


@given(sealed_things, sealed_things)
def test_no_part_of_one_is_good_for_another(one, other):
    signature = content_of(SEALS.seal(FILE, other)).rpartition(";sig,")[2]
    said = content_of(SEALS.seal(FILE, one)).rpartition(";sig,")[0]
    mixed = SEALS.open(FILE, id_of(f"{said};sig,{signature}"), None)
    assert mixed == (one if one == other else None)


@pytest.mark.parametrize("signature", ["", "0" * 32, "0", "é"])
def test_a_signature_that_is_none(signature):
    assert SEALS.open(FILE, id_of(f"filemux:a;model,b;team,{TEAM};sig,{signature}"), TEAM) is None


@given(sealed_things)
def test_secrets_are_changed_one_by_one(sealed):
    old, both, new = Seals(SECRETS[:1]), Seals(SECRETS[::-1]), Seals(SECRETS[1:])
    before, after = old.seal(FILE, sealed), both.seal(FILE, sealed)
    assert both.open(FILE, before, TEAM) == both.open(FILE, after, TEAM) == new.open(FILE, after, TEAM) == sealed
    assert new.open(FILE, before, TEAM) is old.open(FILE, after, TEAM) is None


def test_litellms_ids_are_opened_only_when_that_is_wanted():
    # As its own documentation shows one (litellm_proxy's files, docstring of encode_file_id_with_model).
    text = "file-bGl0ZWxsbTpmaWxlLWFiYzEyMzttb2RlbCxncHQtNG8taWZvb2Q"
    assert SEALS.open(FILE, text, TEAM) is None
    accepting = Seals(SECRETS, accept_litellm_ids=True)
    assert accepting.open(FILE, text, TEAM) == Sealed("file-abc123", "gpt-4o-ifood", None)


@given(st.text())
def test_whatever_else_it_is_it_is_none(text):
    assert SEALS.open(FILE, text, None) is SEALS.open(FILE, FILE + text, None) is None
