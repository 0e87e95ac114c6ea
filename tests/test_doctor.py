"""`filemux doctor`: all good is 0; whatever is wrong is named, and is 1."""

import json
import re

import pytest
import yaml

from tests.conftest import configuration
from tests.support.processes import run_cli

UNREACHABLE = "http://127.0.0.1:1/v1"


@pytest.fixture
def doctor(sandbox_process, database_url, tmp_path):
    """Exit status and findings by what was examined, for the tests' configuration with further deployments."""

    def run(*deployments, filemux=None, **environment):
        content = {**configuration(sandbox_process.url), "filemux": filemux or {}}
        content["model_list"] += [{"model_name": f"m{index}", "params": one} for index, one in enumerate(deployments)]
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(content))
        environment = {"DATABASE_URL": database_url, "FILEMUX_DATA_DIR": tmp_path, **environment}
        done = run_cli("doctor", "--config", config, "--json", **environment)
        assert "Traceback" not in done.stderr
        return done.returncode, {row["what"]: row for row in json.loads(done.stdout)}

    return run


@pytest.mark.usefixtures("sandbox")
def test_all_is_well(doctor):
    status, findings = doctor()
    assert status == 0
    accounts = {what for what in findings if what.startswith("account ")}
    assert accounts > {"account openai-first", "account openai-second", "account azure", "account azure-v1"}
    assert set(findings) == accounts | {"configuration", "sources", "database"}
    assert all(finding["ok"] for finding in findings.values())
    assert "stores files" in findings["account azure"]["detail"]
    (compatible,) = [one for what, one in findings.items() if "hosted_vllm" in what]
    assert "has no Files API" in compatible["detail"]


@pytest.mark.usefixtures("sandbox")
def test_where_bytes_are_kept_and_how_to_keep_none(doctor, tmp_path):
    kept = doctor()[1]["sources"]["detail"]
    assert re.fullmatch(rf"bytes are kept in {tmp_path}/sources, [\d.]+ [kMGTP]?B free; .*", kept)
    assert kept.endswith("`filemux: {sources: {store: none}}` keeps none")
    not_kept = doctor(filemux={"sources": {"store": "none"}})[1]["sources"]["detail"]
    assert not_kept.startswith("no bytes are kept; without `filemux: {sources: {store: none}}` they are, in ")
    assert not_kept.endswith(str(tmp_path / "sources"))


@pytest.mark.usefixtures("sandbox")
def test_whether_the_bucket_of_kept_bytes_answers(doctor, sandbox_process):
    store = {"store": "s3", "bucket": "filemux-sandbox", "access_key_id": "AKIAONE", "secret_access_key": "secret"}
    url = f"{sandbox_process.url}/s3"
    kept = doctor(filemux={"sources": {**store, "endpoint_url": url}})[1]["sources"]
    where = f"s3:{url}/filemux-sandbox/filemux-sources/"
    assert (kept["ok"], kept["detail"]) == (True, f"bytes are kept in {where}, which answers")
    status, findings = doctor(filemux={"sources": {**store, "endpoint_url": url, "bucket": "elsewhere"}})
    assert (status, findings["sources"]["ok"]) == (1, False)
    assert findings["sources"]["detail"].endswith("there is no bucket elsewhere")


@pytest.mark.usefixtures("sandbox")
def test_the_table_names_everything(sandbox_process, database_url, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**configuration(sandbox_process.url), "router_settings": {"a": "b"}}))
    done = run_cli("doctor", "--config", config, DATABASE_URL=database_url, FILEMUX_DATA_DIR=tmp_path)
    assert done.returncode == 0
    for words in ("configuration", "ignored: router_settings", "sources", "database", "account openai-first"):
        assert words in done.stdout


@pytest.mark.usefixtures("sandbox")
def test_what_is_wrong_at_an_account_is_named_and_the_others_are_still_examined(doctor, sandbox_process):
    base = f"{sandbox_process.url}/openai/v1"
    status, findings = doctor(
        {"model": "gpt-4o", "api_base": base, "api_key": "bad-key", "account": "refused"},
        {"model": "gpt-4o", "api_base": UNREACHABLE, "api_key": "sk-1", "account": "out-of-reach"},
        {"model": "gpt-4o", "api_base": f"{sandbox_process.url}/nowhere", "api_key": "sk-1", "account": "elsewhere"},
    )
    assert status == 1
    wrong = {what: finding["detail"] for what, finding in findings.items() if not finding["ok"]}
    assert set(wrong) == {"account refused", "account out-of-reach", "account elsewhere"}
    assert all(wrong.values())
    assert "bad-key" not in str(findings)
    assert findings["account openai-first"]["ok"]


@pytest.mark.usefixtures("sandbox")
def test_an_unmigrated_database_is_named(doctor, empty_database_url):
    status, findings = doctor(DATABASE_URL=empty_database_url)
    assert status == 1
    assert [what for what, finding in findings.items() if not finding["ok"]] == ["database"]
    assert "run `filemux migrate`" in findings["database"]["detail"]


@pytest.mark.usefixtures("sandbox")
def test_a_database_that_is_out_of_reach_is_named(doctor):
    status, findings = doctor(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert status == 1
    assert [what for what, finding in findings.items() if not finding["ok"]] == ["database"]


def test_a_wrong_configuration_is_told_with_its_line(tmp_path, database_url):
    config = tmp_path / "config.yaml"
    config.write_text("filemux:\n  polcy: all\n")
    done = run_cli("doctor", "--config", config, DATABASE_URL=database_url, FILEMUX_DATA_DIR=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{config}, line 2: " in done.stderr
