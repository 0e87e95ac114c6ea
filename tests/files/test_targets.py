"""Targets: every way of naming them, every mistake with its own error, and when a file expires."""

from dataclasses import replace

import pytest

from app.access.authenticate import Caller
from app.deployments import Account, Deployment, Deployments
from app.errors import BadRequest, Forbidden, ProviderTooLarge
from app.files.targets import HalfExpiry, Wanted, check_size, target_accounts, wanted_from
from app.providers.openai import Compatible
from tests.support.providers import MemoryProvider

NOTHING = Wanted(purpose=None, target_names=(), model=None, provider=None, expires_after_seconds=None)
CALLER = Caller("key", "team", "a team", "member", None, frozenset(), ())


def deployments():
    """mini and four on one account, pair on that one and another, vllm without files."""
    first, second, plain = MemoryProvider(), MemoryProvider(), MemoryProvider()
    second.capabilities = replace(second.capabilities, purposes=frozenset({"batch"}), max_file_bytes=10)
    plain.capabilities = Compatible.capabilities
    accounts = {
        name: Account(name, f"the {name} provider", provider)
        for name, provider in (("first", first), ("second", second), ("plain", plain))
    }
    table = [("mini", "first"), ("four", "first"), ("pair", "first"), ("pair", "second"), ("vllm", "plain")]
    entries = [Deployment(name, "gpt", accounts[account], accounts[account].provider) for name, account in table]
    return Deployments(entries, accounts)


def accounts_of(given, caller=CALLER, defaults=(), *, keeps_sources=True):
    return target_accounts(given, caller, deployments(), defaults, keeps_sources=keeps_sources)


def wanted(*fields, query=(), headers=None):
    return wanted_from(fields, query, headers or {})


NAMES = "target_model_names"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (wanted((NAMES, "mini")), ("mini",)),
        (wanted((NAMES, " mini , four,,mini ")), ("mini", "four")),
        (wanted((NAMES, "mini"), (NAMES, "four")), ("mini", "four")),
        (wanted((f"{NAMES}[]", "mini"), (f"{NAMES}[]", "four")), ("mini", "four")),
        (wanted((f"{NAMES}[0]", "mini"), (f"{NAMES}[1]", "four")), ("mini", "four")),
        (wanted(query=[(NAMES, "mini,four")]), ("mini", "four")),
        (wanted(headers={"x-filemux-target-model-names": "mini, four"}), ("mini", "four")),
        (wanted((NAMES, " *,* ")), ("*",)),
        (wanted((NAMES, "mini"), query=[(NAMES, "four")]), ("mini",)),
        (wanted(query=[(NAMES, "four")], headers={"x-filemux-target-model-names": "mini"}), ("four",)),
        (wanted((f"{NAMES}[x]", "mini")), ()),
        (wanted((NAMES, " , ")), ()),
    ],
)
def test_ways_of_naming_targets(given, names):
    assert given == replace(NOTHING, target_names=names)


@pytest.mark.parametrize(
    "given",
    [
        wanted(("model", " mini ")),
        wanted(query=[("model", "mini")]),
        *(wanted(headers={f"x-{product}-model": "mini"}) for product in ("filemux", "litellm", "dheera_ai")),
    ],
)
def test_ways_of_naming_one_model(given):
    assert given == replace(NOTHING, model="mini")


@pytest.mark.parametrize(
    "given",
    [
        wanted(("provider", "openai")),
        wanted(("custom_llm_provider", "openai")),
        wanted(query=[("provider", "openai")]),
        wanted(query=[("custom_llm_provider", "openai")]),
        wanted(headers={"custom-llm-provider": "openai"}),
    ],
)
def test_ways_of_naming_a_provider(given):
    assert given == replace(NOTHING, provider="openai")


@pytest.mark.parametrize(
    ("given", "complete"),
    [
        (wanted(), False),
        (wanted(("purpose", "batch")), False),
        (wanted((NAMES, "mini")), False),
        (wanted(("purpose", "batch"), (NAMES, "mini")), True),
    ],
)
def test_the_upload_may_begin_once_purpose_and_targets_are_known(given, complete):
    assert given.complete is complete


def expiry(**parts):
    return [(f"expires_after[{name}]", value) for name, value in parts.items()]


@pytest.mark.parametrize("seconds", [3600, 86_400, 2_592_000])
def test_an_expiry_within_bounds(seconds):
    assert wanted(*expiry(anchor="created_at", seconds=f" {seconds} ")).expires_after_seconds == seconds
    dotted = wanted(("expires_after.anchor", "created_at"), ("expires_after.seconds", str(seconds)))
    assert dotted.expires_after_seconds == seconds


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        *(
            (expiry(anchor="created_at", seconds=seconds), "expires_after[seconds]")
            for seconds in (
                "3599",
                "2592001",
                "-3600",
                "3600.0",
                "",
                "1e4",
                "٣٦٠٠",
                "9" * 5000,
                "000000003600" + "9" * 20,
            )
        ),
        (expiry(anchor="created_at"), "expires_after[seconds]"),
        (expiry(seconds="3600"), "expires_after[anchor]"),
        (expiry(anchor="last_active_at", seconds="3600"), "expires_after[anchor]"),
        (expiry(anchor="created_at", seconds="3600", days="1"), "expires_after"),
        ([("expires_after", "3600")], "expires_after"),
    ],
)
def test_an_expiry_out_of_bounds_or_malformed_is_refused(fields, param):
    with pytest.raises(BadRequest) as refused:
        wanted(*fields)
    assert (refused.value.param, refused.value.code) == (param, "invalid_expires_after")


@pytest.mark.parametrize("half", [expiry(anchor="created_at"), expiry(seconds="3600")])
def test_an_expiry_may_still_be_completed_by_a_later_field(half):
    with pytest.raises(HalfExpiry):
        wanted(*half)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ([("purpose", "fun")], "purpose", "invalid_purpose"),
        ([("purpose", "batch"), ("purpose", "batch")], "purpose", "repeated_field"),
        ([("model", "mini"), ("model", "mini")], "model", "repeated_field"),
        ([(NAMES, "mini"), ("model", "mini")], "model", "contradicting_targets"),
    ],
)
def test_wishes_that_contradict_or_do_not_exist_are_refused(fields, param, code):
    with pytest.raises(BadRequest) as refused:
        wanted(*fields)
    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.parametrize(
    ("names", "accounts"),
    [
        (("mini",), {"first": ("mini",)}),
        (("mini", "four"), {"first": ("mini", "four")}),
        (("pair",), {"first": ("pair",), "second": ("pair",)}),
        (("mini", "pair"), {"first": ("mini", "pair"), "second": ("pair",)}),
    ],
)
def test_targets_become_accounts_each_once(names, accounts):
    assert accounts_of(replace(NOTHING, target_names=names)) == accounts


@pytest.mark.parametrize(
    ("caller", "accounts"),
    [
        (CALLER, {"first": ("mini",)}),
        (replace(CALLER, default_targets=("four",)), {"first": ("four",)}),
        (replace(CALLER, default_targets=("four", "mini"), models=frozenset({"mini"})), {"first": ("mini",)}),
        (replace(CALLER, default_targets=("gone", "mini")), {"first": ("mini",)}),
    ],
)
def test_defaults_are_the_teams_or_the_configurations(caller, accounts):
    assert accounts_of(NOTHING, caller, ("mini",)) == accounts


@pytest.mark.parametrize(
    ("given", "error", "param", "code"),
    [
        (NOTHING, BadRequest, NAMES, "no_targets"),
        (replace(NOTHING, target_names=("gone",)), BadRequest, NAMES, "unknown_model_name"),
        (replace(NOTHING, target_names=("four",)), Forbidden, NAMES, "model_name_not_allowed"),
        (replace(NOTHING, target_names=("pair",), purpose="vision"), BadRequest, "purpose", "purpose_not_supported"),
    ],
)
def test_targets_that_cannot_be_are_refused_and_say_what_could(given, error, param, code):
    caller = replace(CALLER, models=frozenset({"mini", "pair", "vllm"}))
    with pytest.raises(error) as refused:
        accounts_of(given, caller)
    assert (refused.value.param, refused.value.code) == (param, code)
    if param == NAMES:
        assert refused.value.message.endswith("mini, pair, vllm")


@pytest.mark.parametrize(
    ("names", "purpose", "keeps_sources", "possible"),
    [
        (("vllm",), "user_data", True, True),
        (("vllm", "mini"), "user_data", True, True),
        (("vllm",), "user_data", False, False),
        (("vllm", "mini"), "user_data", False, False),
        # OpenAI gives files of this purpose back, so that they can travel from there.
        (("vllm", "mini"), "batch", False, True),
        (("vllm",), "batch", False, False),
    ],
)
def test_a_target_without_files_needs_a_place_that_gives_the_bytes_back(names, purpose, keeps_sources, possible):
    given = replace(NOTHING, target_names=names, purpose=purpose)
    if possible:
        assert accounts_of(given, keeps_sources=keeps_sources)["plain"] == ("vllm",)
        return
    with pytest.raises(BadRequest, match=r"filemux\.sources") as refused:
        accounts_of(given, keeps_sources=keeps_sources)
    assert (refused.value.param, refused.value.code) == (NAMES, "target_without_files")


ALL = replace(NOTHING, target_names=("*",))


@pytest.mark.parametrize(
    ("purpose", "keeps_sources", "models", "names"),
    [
        ("batch", True, None, {"mini", "four", "pair", "vllm"}),
        ("batch", True, {"mini", "pair"}, {"mini", "pair"}),
        # The second of pair's accounts takes only batches.
        ("user_data", True, None, {"mini", "four", "vllm"}),
        # OpenAI gives this one back, so that it can travel from there.
        ("batch", False, None, {"mini", "four", "pair", "vllm"}),
        ("user_data", False, None, {"mini", "four"}),
    ],
)
def test_all_model_names_are_those_that_take_the_file(purpose, keeps_sources, models, names):
    caller = replace(CALLER, models=models and frozenset(models))
    found = accounts_of(replace(ALL, purpose=purpose), caller, keeps_sources=keeps_sources)
    assert {name for served in found.values() for name in served} == names


@pytest.mark.parametrize(
    ("caller", "defaults"), [(CALLER, ("*",)), (replace(CALLER, default_targets=("*",)), ("mini",))]
)
def test_the_defaults_may_be_all_model_names(caller, defaults):
    given = replace(NOTHING, purpose="user_data")
    assert accounts_of(given, caller, defaults) == {"first": ("mini", "four"), "plain": ("vllm",)}


@pytest.mark.parametrize(
    ("given", "models", "code"),
    [
        (replace(ALL, purpose="user_data"), {"pair"}, "purpose_not_supported"),
        (replace(ALL, purpose="user_data"), {"vllm"}, "target_without_files"),
        (ALL, set(), "no_targets"),
        (replace(ALL, target_names=("*", "mini")), {"mini"}, "contradicting_targets"),
    ],
)
def test_all_model_names_may_be_none_and_stand_alone(given, models, code):
    with pytest.raises(BadRequest) as refused:
        accounts_of(given, replace(CALLER, models=frozenset(models)), keeps_sources=False)
    assert refused.value.code == code


def test_the_smallest_limit_of_the_targets_holds():
    accounts = {"first": ("mini",), "second": ("pair",)}
    check_size(10, accounts, deployments())
    with pytest.raises(ProviderTooLarge, match="the second provider, behind 'pair', takes files up to 10 bytes"):
        check_size(11, accounts, deployments())
