"""Every wrong setting is told with file, line and reason; other gateways' files work unchanged."""

import errno
import textwrap

import pytest
import yaml
from pydantic import SecretStr

from app import deployments, serve
from app.db.session import normalised
from app.settings import Environment, kept_secret, load
from app.yaml_file import SettingsError
from tests.support.processes import run_cli

ENTRY = """
model_list:
  - model_name: mini
    litellm_params:
      model: openai/gpt-4o-mini
      api_key: sk-1
"""
# What is wrong: the file, the line that is named, and words of the reason.
WRONG = {
    "unset variable": (ENTRY.replace("sk-1", "os.environ/NO_SUCH"), 6, "api_key: the environment variable NO_SUCH"),
    "unset variable in a section": ("general_settings:\n  master_key: os.environ/NO_SUCH", 2, "NO_SUCH is not set"),
    "unset variable in ours": ("filemux:\n  upload_policy: os.environ/NO_SUCH", 2, "NO_SUCH is not set"),
    "unknown provider": (ENTRY.replace("openai/", "opnai/"), 5, "'opnai' does not exist; there are openai, azure"),
    "unknown key of ours": ("filemux:\n  upload_polcy: any", 2, "filemux.upload_polcy: this key does not exist"),
    "unknown key below ours": (
        "filemux:\n  sources:\n    shop: disk",
        3,
        "filemux.sources.shop: this key does not exist",
    ),
    "unknown parameter": (ENTRY.replace("litellm_", "") + "      api_kee: x", 7, "openai has no parameter 'api_kee'"),
    "wrong choice": ("filemux:\n  upload_policy: most", 2, "filemux.upload_policy: Input should be 'all' or 'any'"),
    "s3 without a bucket": ("filemux:\n  sources: {store: s3}", 2, "store: s3 needs a bucket"),
    "options of s3 for another store": (
        "filemux:\n  sources:\n    prefix: p\n    bucket: b",
        2,
        "filemux.sources: Value error, bucket, prefix: only with store: s3, not with store: disk",
    ),
    "wrong endpoint of a store": (
        "filemux:\n  sources:\n    store: s3\n    bucket: b\n    endpoint_url: minio:9000",
        5,
        "filemux.sources.endpoint_url: String should match",
    ),
    "half of a store's keys": (
        "filemux:\n  sources: {store: s3, bucket: b, access_key_id: AKIA}",
        2,
        "access_key_id and secret_access_key belong together",
    ),
    "wrong encryption": (
        "filemux:\n  sources:\n    store: s3\n    bucket: b\n    server_side_encryption: rot13",
        5,
        "filemux.sources.server_side_encryption: Input should be 'AES256' or 'aws:kms'",
    ),
    "key without its encryption": (
        "filemux:\n  sources: {store: s3, bucket: b, kms_key_id: k, server_side_encryption: AES256}",
        2,
        "kms_key_id needs server_side_encryption: aws:kms",
    ),
    "unset variable of a store": (
        "filemux:\n  sources:\n    store: s3\n    bucket: os.environ/NO_SUCH",
        4,
        "NO_SUCH is not set",
    ),
    "wrong number": (
        "filemux:\n  max_file_bytes: plenty",
        2,
        "max_file_bytes: Input should be a valid integer",
    ),
    "number too small": ("filemux:\n  max_file_bytes: 0", 2, "greater than or equal to 1"),
    "wrong list": ("filemux:\n  default_target_model_names: mini", 2, "default_target_model_names"),
    "unknown default target": (ENTRY + "filemux:\n  default_target_model_names: [mono]", 8, "no model_name 'mono'"),
    "all default targets and one": (
        ENTRY + 'filemux:\n  default_target_model_names: [mini, "*"]',
        8,
        "* stands for all model names; write it alone",
    ),
    "wrong section": ("filemux: [a]", 1, "filemux must be a mapping"),
    "wrong model list": ("model_list: {a: b}", 1, "model_list must be a list"),
    "wrong entry": ("model_list:\n  - mini", 2, "model_list[0] must be a mapping"),
    "wrong parameters": ("model_list:\n- model_name: a\n  params: b", 3, "model_list[0].params must be a mapping"),
    "wrong secret": ("general_settings:\n  master_key: 17", 2, "general_settings.master_key must be a string"),
    "wrong timeout": (ENTRY + "      timeout: soon", 7, "timeout must be a number of seconds above 0"),
    "wrong account": (ENTRY + "      account: [a]", 7, "account must be a name"),
    "wrong URL": (ENTRY + "      api_base: elsewhere", 7, "api_base"),
    "wrong version": (ENTRY.replace("openai/", "azure/") + "      api_base: http://a\n      api_version: new", 8, "v1"),
    "no model name": ("model_list:\n  - params: {model: a}", 2, "model_list[0] needs a model_name"),
    "comma in a name": ("model_list:\n- model_name: a,b\n  params: {model: a}", 2, "may not contain commas"),
    "no model": (
        "model_list:\n- model_name: a\n  params: {api_key: b}",
        3,
        "needs a model, such as openai/gpt",
    ),
    "no parameters": (
        "model_list:\n- model_name: a",
        2,
        "exactly one of params, litellm_params, dheera_ai_params",
    ),
    "parameters twice": (ENTRY + "    params: {model: a}", 3, "exactly one of params"),
    "key twice": (ENTRY + "      api_key: sk-2", 7, "model_list[0].litellm_params.api_key is given twice"),
    "section twice": ("filemux: {}\ngeneral_settings: {}\nfilemux: {}", 3, "filemux is given twice"),
    "no provider for files": ("files_settings:\n  - api_key: a", 2, "files_settings[0] needs a custom_llm_provider"),
    "bad YAML": ("filemux:\n  sources: [disk", 2, "not valid YAML"),
    "odd indentation": ("filemux:\n  upload_policy: all\n   max_file_bytes: 1", 3, "not valid YAML"),
    "unhashable key": ("{[a]: b}", 1, "not valid YAML: found unhashable key"),
    "control character": ("filemux: \x01", 1, "not valid YAML"),
    "not a mapping": ("- a\n- b", 1, "must be a mapping"),
    "one name for two accounts": (
        """
model_list:
  - {model_name: a, params: {model: a, api_key: sk-1, account: ours}}
  - {model_name: b, params: {model: b, api_key: sk-2, account: ours}}
""",
        4,
        "two different endpoints or credentials are both named 'ours'",
    ),
    "two names for one account": (
        """
model_list:
  - {model_name: a, params: {model: a, api_key: sk-1, account: ours}}
  - {model_name: b, params: {model: b, api_key: sk-1, account: theirs}}
""",
        4,
        "already named 'ours' by another entry",
    ),
}
EVERYTHING = """
model_list:
  - model_name: mini
    SPELLING:
      model: openai/gpt-4o-mini
      api_key: os.environ/SOME_OPENAI_KEY
      timeout: 12.5
      account: ours
    model_info: {mode: chat}
files_settings:
  - {custom_llm_provider: azure, api_base: "https://r.openai.azure.com", api_key: az, api_version: "2024-10-21"}
general_settings: {master_key: sk-master, database_url: "postgresql://host/db"}
filemux:
  sources:
    store: s3
    bucket: b
    region: r
    prefix: /p
    endpoint_url: http://minio:9000/
    access_key_id: k
    secret_access_key: os.environ/SOME_SECRET
    server_side_encryption: aws:kms
    kms_key_id: arn
  upload_policy: any
  max_file_bytes: 1048576
  default_target_model_names: [mini]
"""


@pytest.fixture
def read(tmp_path):
    """Settings of a text, checked as `serve` checks them before it serves."""

    def reader(text, **environment):
        path = tmp_path / "config.yaml"
        path.write_text(textwrap.dedent(text))
        found = load(path, Environment.model_construct(**environment), tmp_path / "data")
        deployments.check(found)
        return found

    return reader


@pytest.mark.parametrize(("text", "line", "reason"), WRONG.values(), ids=WRONG)
def test_a_wrong_setting_is_told_with_file_line_and_reason(read, tmp_path, text, line, reason):
    with pytest.raises(SettingsError) as told:
        read(text)
    where = f"{tmp_path / 'config.yaml'}" + (f", line {line}: " if line else ": ")
    assert str(told.value).startswith(where)
    assert reason in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("secret", ["sk-very-secret"])
def test_a_reason_never_shows_a_secret(read, secret):
    for text in (
        f"general_settings:\n  master_key: [{secret}]",
        ENTRY.replace("sk-1", f"[{secret}]"),
        f"filemux: {{sources: {{store: s3, bucket: b, secret_access_key: {secret}}}}}",
        f"filemux: {{sources: {{store: s3, bucket: b, secret_access_key: [{secret}]}}}}",
    ):
        with pytest.raises(SettingsError) as told:
            read(text)
        assert secret not in str(told.value)


@pytest.mark.parametrize("spelling", ["params", "litellm_params", "dheera_ai_params"])
def test_every_setting_is_read_in_all_spellings(read, monkeypatch, spelling):
    monkeypatch.setenv("SOME_OPENAI_KEY", "sk-1")
    monkeypatch.setenv("SOME_SECRET", "s3cret")
    found = read(EVERYTHING.replace("SPELLING", spelling))
    assert [(one.model_name, one.provider, one.provider_model) for one in found.models] == [
        ("mini", "openai", "gpt-4o-mini")
    ]
    assert [one.provider for one in found.file_accounts] == ["azure"]
    assert (found.database_url, found.master_key.get_secret_value()) == ("postgresql://host/db", "sk-master")
    assert (found.options.upload_policy, found.options.max_file_bytes) == ("any", 1048576)
    sources = found.options.sources
    assert (sources.store, sources.bucket, sources.prefix) == ("s3", "b", "p/")
    assert (sources.endpoint_url, sources.secret_access_key.get_secret_value()) == ("http://minio:9000", "s3cret")
    assert found.options.default_target_model_names == ("mini",)
    assert found.ignored == ()


def test_all_model_names_may_be_the_default_targets(read):
    assert read('filemux: {default_target_model_names: ["*"]}').options.default_target_model_names == ("*",)


def test_nothing_needs_to_be_configured(read):
    found = read("")
    assert (found.models, found.database_url, found.master_key) == ((), None, None)
    assert (found.options.upload_policy, found.options.sources.store) == ("all", "disk")
    assert found.options.max_file_bytes == 512 * 1024 * 1024


def test_the_environment_wins_over_the_file(read):
    found = read("general_settings: {database_url: 'postgresql://file/db'}", database_url="postgresql://env/db")
    assert found.database_url == "postgresql://env/db"


def test_what_other_gateways_files_hold_is_ignored_and_listed(read):
    text = ENTRY + "      rpm: 5\n    tpm: 3\nrouter_settings: {a: b}\ngeneral_settings: {alerting: [slack]}"
    found = read(text)
    assert found.ignored == ("general_settings.alerting", "router_settings", "model_list[0].tpm")
    assert deployments.build(found, None).ignored == ("mini: rpm",)


def test_a_missing_file_is_told(tmp_path):
    missing = tmp_path / "none.yaml"
    with pytest.raises(SettingsError, match=f"{missing}: cannot be read: .*No such file"):
        load(missing, Environment.model_construct(), tmp_path)


def test_a_file_that_is_not_text_is_told(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=f"{path}: cannot be read"):
        load(path, Environment.model_construct(), tmp_path)


def test_secrets_are_made_once_and_kept_to_ourselves(read):
    found, told = read(""), []
    first = serve.with_secrets(found, told.append)
    again = serve.with_secrets(found, told.append)
    assert first.master_key.get_secret_value() in told[0]
    assert len(told) == 1
    assert (again.master_key, again.secret_keys) == (first.master_key, first.secret_keys)
    assert first.master_key not in first.secret_keys
    for name in ("master_key", "secret_key"):
        assert (found.data_dir / name).stat().st_mode & 0o777 == 0o600


def test_a_secret_is_kept_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("app.settings.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        kept_secret(tmp_path / "master_key")
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_make_a_secret_the_second_takes_the_firsts(tmp_path, monkeypatch):
    secret, new = kept_secret(tmp_path / "master_key")
    monkeypatch.setattr("app.settings.Path.exists", lambda _: False)
    assert new and kept_secret(tmp_path / "master_key") == (secret, False)
    assert [path.name for path in tmp_path.iterdir()] == ["master_key"]


@pytest.mark.parametrize("content", ["", "\n", "sk-guessed"])
def test_a_kept_secret_that_is_none_is_told(tmp_path, content):
    path = tmp_path / "master_key"
    path.write_text(content)
    with pytest.raises(SettingsError, match=f"{path}: must hold a secret of 16 characters"):
        kept_secret(path)


def test_several_secrets_may_be_valid_at_once(tmp_path):
    def loaded(secrets):
        return load(None, Environment.model_construct(filemux_secret_key=SecretStr(secrets)), tmp_path)

    found = loaded("the new one of the secrets, the old one of the secrets,")
    said = [one.get_secret_value() for one in found.secret_keys]
    assert said == ["the new one of the secrets", "the old one of the secrets"]
    assert serve.with_secrets(found, lambda _: None).secret_keys == found.secret_keys
    with pytest.raises(SettingsError, match="FILEMUX_SECRET_KEY: each secret must have 16 characters"):
        loaded("the new one of the secrets, guessed")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://h/d?sslmode=require", "postgresql+asyncpg://h/d?ssl=require"),
        ("postgresql+psycopg2://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql+asyncpg://u@/d?host=/run/pg", "postgresql+asyncpg://u@/d?host=%2Frun%2Fpg"),
    ],
)
def test_a_database_url_may_be_written_as_operators_write_it(written, meant):
    assert normalised(written).render_as_string(hide_password=False) == meant


# --- as a process -----------------------------------------------------------------------------------------------


def serve_refuses(*arguments, **environment):
    """The one line that `filemux serve` says before it ends with status 2."""
    done = run_cli("serve", "--port", "0", *arguments, **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("mistake", ["unset variable", "unknown provider", "unknown key of ours", "bad YAML"])
def test_serve_stops_at_a_wrong_setting(tmp_path, mistake):
    text, line, reason = WRONG[mistake]
    config = tmp_path / "config.yaml"
    config.write_text(text)
    said = serve_refuses("--config", config, FILEMUX_DATA_DIR=tmp_path / "data")
    assert said.startswith(f"filemux: {config}, line {line}: ")
    assert reason in said
    assert not (tmp_path / "data").exists()


def test_serve_stops_at_a_missing_file(tmp_path):
    said = serve_refuses("--config", tmp_path / "none.yaml", FILEMUX_DATA_DIR=tmp_path / "data")
    assert said.startswith(f"filemux: {tmp_path / 'none.yaml'}: cannot be read")


@pytest.mark.parametrize("url", ["mysql://u:hunter2@h/d", "hunter2"])
def test_serve_stops_at_a_database_url_that_is_none(tmp_path, url):
    said = serve_refuses(FILEMUX_DATA_DIR=tmp_path / "data", DATABASE_URL=url)
    assert "DATABASE_URL" in said
    assert "hunter2" not in said


def test_the_sandboxes_configuration_is_a_right_one(read):
    from app.sandbox.config import sandbox_configuration

    found = read(yaml.safe_dump(sandbox_configuration("http://127.0.0.1:4010")))
    names = deployments.account_names(found)
    assert len(names) == len(found.file_accounts), "the files' accounts are the models' accounts"


def test_an_api_version_that_looks_like_a_date_is_text(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("model_list:\n- model_name: m\n  params: {model: azure/gpt-4o, api_version: 2024-10-21}\n")
    [entry] = load(config, Environment(), tmp_path).models
    assert entry.params["api_version"] == "2024-10-21"
