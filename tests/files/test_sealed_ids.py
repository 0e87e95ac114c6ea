"""Sealed ids: what names the one account, who may use an id, and what is left when an upload ends early."""

import base64

import openai
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import MASTER_KEY, configuration
from tests.files.test_isolation import NOBODYS, post_chat
from tests.support.kept import FORM_TYPE
from tests.support.processes import Gateway
from tests.support.sandbox import eventually
from tests.support.uploads import CLOSING, PDF, PURPOSE, file_part, part, post_form, raw_client, refusal, upload
from tests.support.wire import Line

MODEL = part("model", "mini")
OLD_SECRET, NEW_SECRET = "the secret of last year", "the secret of this year"


# Of a purpose that OpenAI gives back.
PURPOSE_READ = "fine-tune"
# Of a slow machine; and every example is about the same three files.
UNHEALTHY = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


def create(client, model="mini", content=PDF, **options):
    return client.files.create(file=("a.pdf", content), purpose=PURPOSE_READ, extra_body={"model": model}, **options)


def raised(call, *arguments, **options):
    with pytest.raises(openai.APIStatusError) as failure:
        call(*arguments, **options)
    return failure.value.status_code, failure.value.code


# --- creating ---------------------------------------------------------------------------------------------------


def test_the_model_may_follow_the_file(http, sandbox):
    file = post_form(http, PURPOSE, file_part(), MODEL).json()
    assert file["filemux"] == {"provider": "openai", "account": "openai-first"}
    assert [(one["filename"], one["purpose"]) for one in sandbox.files] == [("a.pdf", "user_data")]


def test_no_row_is_written(member, sandbox):
    create(member)
    assert member.files.list().data == []
    assert len(sandbox.files) == 1


def test_an_expiry_is_passed_on(member):
    file = create(member, expires_after={"anchor": "created_at", "seconds": 7200})
    assert file.expires_at == file.created_at + 7200


def test_a_model_name_with_several_accounts(member, sandbox):
    """The id says at which one the file is."""
    # Which one is chance: that 40 find the same one will not be seen.
    files = [create(member, "pair") for _ in range(40)]
    accounts = {file.filemux["account"] for file in files}
    assert accounts == {"openai-first", "openai-second"}
    for file in files:
        assert f";model,pair;account,{file.filemux['account']};team," in said(file.id)
        assert member.files.content(file.id).content == PDF
        assert member.files.delete(file.id).deleted
    assert sandbox.files == []


def test_an_id_outlives_its_accounts_place_and_name(make_gateway, sandbox_process, sandbox, clients_of, tmp_path):
    """Another account is put before its own; and its own has another name, but is the only one."""
    params = {"model": "openai/gpt-4o-mini", "api_base": f"{sandbox_process.url}/openai/v1"}
    known, file_id = configuration(sandbox_process.url)["model_list"], None
    for names in ({"own": "sk-own"}, {"other": "sk-other", "own": "sk-own"}, {"renamed": "sk-own"}):
        entries = [{**params, "account": name, "api_key": key} for name, key in names.items()]
        model_list = [*known, *({"model_name": "moving", "litellm_params": entry} for entry in entries)]
        with make_gateway(directory=tmp_path, model_list=model_list) as running:
            client = clients_of(running).admin
            file_id = file_id or create(client, "moving").id
            assert client.files.content(file_id).content == PDF


def said(file_id):
    encoded = file_id.removeprefix("file-")
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()


@pytest.mark.parametrize(
    ("parts", "headers", "status", "code", "param"),
    [
        ((part("model", "none"),), {}, 400, "unknown_model_name", "model"),
        ((part("model", "vllm"),), {}, 400, "target_without_files", "model"),
        ((MODEL, part("target_model_names", "mini")), {}, 400, "contradicting_targets", "model"),
        ((part("provider", "openai"),), {}, 403, "permission_denied", None),
        ((MODEL,), {"idempotency-key": "one"}, 400, "idempotency_key_not_taken", "idempotency-key"),
    ],
)
def test_an_upload_that_cannot_be(http, sandbox, parts, headers, status, code, param):
    http.headers.update(headers)
    refusal(post_form(http, PURPOSE, *parts, file_part()), status, code, param)
    assert sandbox.files == []


def test_a_purpose_that_the_provider_does_not_take(http):
    refusal(
        post_form(http, part("purpose", "evals"), part("model", "azure"), file_part()),
        400,
        "purpose_not_supported",
        "purpose",
    )


def test_a_key_may_use_its_own_model_names_only(clients, sandbox):
    member = clients.member(models=["azure"])
    assert raised(create, member) == (403, "model_name_not_allowed")
    assert create(member, "azure").id
    assert [one["provider"] for one in sandbox.files] == ["azure"]


# --- who may use it ---------------------------------------------------------------------------------------------


def test_the_team_shares_an_id_and_an_admin_reaches_it(clients, sandbox):
    team = clients.new_team()
    file = create(clients.member(team))
    viewer = clients.member(team, role="viewer")
    assert viewer.files.retrieve(file.id).filename == "a.pdf"
    assert viewer.files.content(file.id).content == PDF
    assert raised(viewer.files.delete, file.id) == (403, "permission_denied")
    assert clients.admin.files.retrieve(file.id).id == file.id
    assert clients.admin.files.delete(file.id).deleted
    assert sandbox.files == []


def test_only_with_the_permission_is_an_account_listed(clients):
    team = clients.new_team()
    member, permitted = clients.member(team), clients.member(team, permissions=["provider_files"])
    file = create(member)
    assert raised(member.files.list, extra_query={"model": "mini"}) == (403, "permission_denied")
    [listed] = permitted.files.list(extra_query={"model": "mini"})
    assert listed.id == file.id
    assert member.files.retrieve(listed.id).id == file.id


ROUTES = {
    "retrieve": lambda http, file_id: http.get(f"/files/{file_id}"),
    "content": lambda http, file_id: http.get(f"/files/{file_id}/content"),
    "delete": lambda http, file_id: http.delete(f"/files/{file_id}"),
    "chat": post_chat,
}


@pytest.fixture
def sealed(clients):
    """The sealed ids of three files: the caller's own at two accounts, and another team's."""
    team = clients.new_team()
    mine = clients.member(team)
    with raw_client(mine) as http:
        yield http, create(mine).id, create(mine, "pair").id, create(clients.member()).id


@settings(max_examples=60, derandomize=True, database=None, suppress_health_check=UNHEALTHY)
@given(st.data())
def test_a_forged_id_is_one_that_never_existed(sealed, sandbox, data):
    http, mine, other, theirs = sealed
    forged = data.draw(
        st.one_of(
            _flipped(mine),
            st.integers(6, len(mine) - 1).map(lambda end: mine[:end]),
            st.sampled_from([theirs, "batch_" + mine.removeprefix("file-"), mine + "=", mine.upper()]),
            _swapped(said(mine), said(other), said(theirs)),
        )
    )
    before = sandbox.calls("openai.delete_file")
    for verb, request in ROUTES.items():
        answer = request(http, forged)
        expected = request(http, NOBODYS)
        assert answer.status_code == (400 if verb == "chat" else 404), forged
        error, usual = answer.json()["error"], expected.json()["error"]
        assert {**error, "message": None} == {**usual, "message": None}
        assert error["message"].replace(forged[:100], NOBODYS) == usual["message"]
    assert sandbox.calls("openai.delete_file") == before
    assert http.get(f"/files/{mine}").status_code == 200


def _flipped(text):
    """One bit of one of the characters behind the prefix is another."""
    return st.builds(
        lambda place, bit: text[:place] + chr(ord(text[place]) ^ 1 << bit) + text[place + 1 :],
        st.integers(5, len(text) - 1),
        st.integers(0, 6),
    ).filter(lambda one: one.isprintable() and not set(one) & set('/?#%\\"'))


def _swapped(*contents):
    """Fields of several ids in one."""
    fields = [content.split(";") for content in contents]
    width = min(map(len, fields))
    chosen = st.lists(st.integers(0, len(fields) - 1), min_size=width, max_size=width).filter(
        lambda one: len(set(one)) > 1
    )
    mixed = chosen.map(lambda which: ";".join(fields[one][at] for at, one in enumerate(which)))
    return mixed.filter(lambda one: one not in contents).map(
        lambda text: "file-" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    )


# --- secrets ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rotated(sandbox_process, database_url, tmp_path_factory):
    """Two gateways of one database: one that still has the old secret, one that seals with a new one, opens with both,
    and takes LiteLLM's ids."""
    tmp_path_factory.getbasetemp()

    def start(secrets, **options):
        directory = tmp_path_factory.mktemp("secrets")
        config = directory / "config.yaml"
        config.write_text(yaml.safe_dump({**configuration(sandbox_process.url), "filemux": options}))
        environment = {"FILEMUX_DATA_DIR": directory, "DATABASE_URL": database_url, "FILEMUX_SECRET_KEY": secrets}
        return Gateway("--config", config, **environment)

    with start(OLD_SECRET) as old, start(f"{NEW_SECRET},{OLD_SECRET}", accept_litellm_ids=True) as new:
        yield old, new


@pytest.fixture
def before_and_after(rotated, clients, clients_of):
    """The official SDK with one key at both, and at a gateway that has other secrets altogether."""
    key = clients.new_key()["key"]
    return [clients_of(one).client(key) for one in rotated] + [clients.client(key)]


def test_a_secret_is_replaced_without_a_break(before_and_after):
    old, new, stranger = before_and_after
    file, newer = create(old), create(new)
    assert new.files.retrieve(file.id).id == file.id
    assert raised(old.files.retrieve, newer.id) == raised(stranger.files.retrieve, file.id) == (404, "not_found")
    assert new.files.delete(file.id).deleted and new.files.delete(newer.id).deleted


def test_an_id_of_litellms_opens_no_more_than_its_user_may_use(before_and_after, clients, clients_of, rotated, sandbox):
    old, new, _ = before_and_after
    theirs = upload(clients.member(), "mini")
    [replica] = sandbox.files
    file = said(create(new).id).split(";")[0].removeprefix("filemux:")
    unsigned = as_litellm(file)
    assert new.files.content(unsigned).content == PDF
    assert raised(old.files.retrieve, unsigned) == (404, "not_found")
    limited = clients_of(rotated[1]).member(models=["azure"])
    for client, one in ((limited, unsigned), (new, as_litellm(replica["id"])), (new, as_litellm("../models"))):
        assert raised(client.files.retrieve, one) == raised(client.files.delete, one) == (404, "not_found")
    assert new.files.delete(unsigned).deleted
    assert clients.admin.files.retrieve(theirs.id).id == theirs.id


def as_litellm(provider_file_id):
    text = f"litellm:{provider_file_id};model,mini"
    return "file-" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


# --- endings ----------------------------------------------------------------------------------------------------


def test_a_client_that_leaves_leaves_nothing(gateway, member, sandbox):
    sandbox.fault("openai", "upload_file", delay_seconds=600)
    body = PURPOSE + MODEL + file_part() + CLOSING
    with Line(gateway.url) as line:
        line.send_head("POST", "/v1/files", member.api_key, content_type=FORM_TYPE, content_length=len(body))
        line.send(body)
        assert eventually(lambda: sandbox.calls("openai.upload_file") == 1)
        # A gateway that answers others meanwhile has sent the rest of the file on.
        assert member.models.list().data
        line.hang_up()
    sandbox.release()
    assert eventually(lambda: sandbox.calls("openai.delete_file") == 1)
    assert eventually(lambda: sandbox.files == [])


def test_a_late_field_that_names_another_account_leaves_one_file(http, sandbox):
    refusal(post_form(http, PURPOSE, MODEL, file_part(), part("model", "azure")), 400, "repeated_field", "model")
    assert eventually(lambda: sandbox.files == [])


def test_what_the_provider_refuses_is_said_as_it_says_it(http, sandbox):
    sandbox.fault("openai", "upload_file", status=400, times=1)
    assert post_form(http, PURPOSE, MODEL, file_part()).status_code == 400
    sandbox.fault("openai", "upload_file", status=503, times=1)
    assert post_form(http, PURPOSE, MODEL, file_part()).status_code == 200
    assert len(sandbox.files) == 1


def test_the_master_key_is_a_team_member_too(clients):
    file = create(clients.client(MASTER_KEY))
    assert clients.admin.files.retrieve(file.id).id == file.id
    assert raised(clients.member().files.retrieve, file.id) == (404, "not_found")
