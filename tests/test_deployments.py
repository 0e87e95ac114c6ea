"""Account identity: an account outlives the rotation of its secret, and different accounts are never taken for one."""

import random

import pytest
import yaml

from app import deployments
from app.settings import Environment, load
from app.yaml_file import SettingsError

OPENAI = {"api_base": "https://a/v1", "api_key": "sk-1"}
AZURE = {"model": "azure/gpt-4o", "api_base": "https://r.openai.azure.com", "api_key": "az"}


@pytest.fixture
def settings(tmp_path):
    """Settings whose model list is the given parameters; the model name is m0, m1, … unless named."""

    def made(*entries, **sections):
        models = [
            {"model_name": params.pop("model_name", f"m{index}"), "params": {"model": "gpt-4o", **params}}
            for index, params in enumerate(dict(entry) for entry in entries)
        ]
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({"model_list": models, **sections}))
        return load(path, Environment.model_construct(), tmp_path)

    return made


@pytest.fixture
def accounts(settings):
    """The number of different accounts among entries."""
    return lambda *entries: len(deployments.account_names(settings(*entries)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {}),
        ({"model": "gpt-4o"}, {"model": "openai/gpt-4o-mini"}),
        ({"timeout": 5}, {}),
        ({"api_base": "https://a/v1"}, {"api_base": "https://a/v1/"}),
        ({**AZURE, "api_version": "2024-10-21"}, {**AZURE, "api_version": "v1"}),
        ({**AZURE}, {**AZURE, "api_base": "https://r.openai.azure.com/openai/v1/"}),
    ],
)
def test_the_same_endpoint_and_credential_are_one_account(accounts, one, other):
    assert accounts(OPENAI | one, OPENAI | other) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"api_key": "sk-2"},
        {"api_base": "https://b/v1"},
        {"organization": "org-1"},
        {"project": "proj-1"},
        {"model": "hosted_vllm/gpt-4o"},
    ],
)
def test_another_credential_endpoint_or_provider_is_another_account(accounts, other):
    assert accounts(OPENAI, OPENAI | other) == 2


def test_an_account_outlives_the_rotation_of_its_secret(settings, monkeypatch):
    found = settings(OPENAI | {"api_key": "os.environ/SOME_KEY"}, OPENAI | {"api_key": "os.environ/OTHER_KEY"})
    for name in ("SOME_KEY", "OTHER_KEY"):
        monkeypatch.setenv(name, "sk-old")
    before = deployments.account_names(found)
    monkeypatch.setenv("SOME_KEY", "sk-new")
    assert deployments.account_names(found) == before
    assert len(before) == 2, "two variables may hold the same secret today and not tomorrow"


def test_a_name_does_not_hold_the_secret(settings):
    (name,) = deployments.account_names(settings({"api_key": "sk-very-secret"}))
    assert name.startswith("openai-")
    assert "secret" not in name


def test_the_given_name_wins_for_every_entry_of_the_account(settings):
    found = settings(OPENAI | {"account": "ours"}, OPENAI, OPENAI | {"account": "ours"})
    assert deployments.account_names(found) == {"ours": "openai"}


def test_files_settings_share_the_accounts_of_the_models(settings):
    found = settings(OPENAI, files_settings=[{"custom_llm_provider": "openai", **OPENAI}])
    assert len(deployments.account_names(found)) == 1


def test_a_model_without_a_prefix_is_openais(settings):
    (entry,) = settings({"model": "gpt-4o", "api_key": "sk-1"}).models
    assert (entry.provider, entry.provider_model) == ("openai", "gpt-4o")


def test_a_provider_model_may_hold_slashes(settings):
    (entry,) = settings({"model": "hosted_vllm/meta/llama-3", "api_base": "http://v/v1"}).models
    assert (entry.provider, entry.provider_model) == ("hosted_vllm", "meta/llama-3")


def test_several_entries_may_share_a_model_name(settings):
    built = deployments.build(
        settings(
            OPENAI | {"model_name": "pair", "account": "one"},
            OPENAI | {"model_name": "pair", "account": "two", "api_key": "sk-2"},
            OPENAI | {"model_name": "mini"},
        ),
        None,
    )
    assert built.names() == ["pair", "mini"]
    assert built.names({"mini"}) == ["mini"]
    assert built.accounts_of(["pair", "mini"]) == {"one": ("pair", "mini"), "two": ("pair",)}
    random.seed(7)
    assert {built.shuffled("pair")[0].account.name for _ in range(50)} == {"one", "two"}
    assert built.of("none") == ()


def test_parameters_of_the_deployment_are_none_of_the_account(settings):
    built = deployments.build(settings(OPENAI, OPENAI | {"drop_params": True, "timeout": 5}), None)
    plain, dropping = (built.of(name)[0] for name in ("m0", "m1"))
    assert plain.account is dropping.account
    assert (plain.drop_params, dropping.drop_params, dropping.timeout_seconds) == (False, True, 5)


def test_drop_params_is_a_choice(settings):
    with pytest.raises(SettingsError, match="drop_params must be true or false"):
        deployments.build(settings(OPENAI | {"drop_params": "maybe"}), None)


@pytest.mark.parametrize("name", ["max_parallel_requests", "allowed_fails"])
@pytest.mark.parametrize("limit", [0, -1, 2.5, True, "many"])
def test_a_limit_is_a_whole_number(settings, name, limit):
    with pytest.raises(SettingsError, match=f"{name} must be a whole number above 0"):
        deployments.check(settings(OPENAI | {name: limit}))


@pytest.mark.parametrize(("name", "line"), [("max_parallel_requests", 12), ("allowed_fails", 10)])
def test_the_entries_of_an_account_agree_on_its_limits(settings, name, line):
    deployments.check(settings(OPENAI | {name: 5}, OPENAI, OPENAI | {name: "5"}))
    with pytest.raises(SettingsError, match=f"{name} is 5 in another entry of this account") as failure:
        deployments.check(settings(OPENAI | {name: 5}, OPENAI | {name: 6}))
    assert f"config.yaml, line {line}: " in str(failure.value)


# --- GET /models ------------------------------------------------------------------------------------------------


def test_models_are_those_that_the_key_may_use(clients):
    everything = [model.id for model in clients.admin.models.list()]
    assert everything == ["mini", "four", "other", "azure", "azure-v1", "pair", "vllm"]
    narrow = clients.member(models=["mini", "pair"])
    assert [model.id for model in narrow.models.list()] == ["mini", "pair"]
    assert narrow.models.retrieve("mini").id == "mini"


@pytest.mark.parametrize("name", ["azure", "no-such", "no/such"])
def test_a_model_name_that_the_key_may_not_use_does_not_exist(clients, name):
    key = clients.new_key(models=["mini"])["key"]
    answer = clients.http.get(f"/v1/models/{name}", headers={"authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
