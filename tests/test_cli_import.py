"""`filemux import-litellm`: LiteLLM's managed files become ours, and its ids go on working."""

import json
import time
import uuid
from base64 import urlsafe_b64encode

import openai
import pytest
import yaml

from app.files.imported.litellm import model_id
from app.ids import is_imported_id
from app.yaml_file import Place, YamlFile
from tests.conftest import configuration, connected, new_database
from tests.support.chats import answer_of, ask, file_part, seen
from tests.support.processes import run_cli
from tests.support.sandbox import eventually
from tests.support.uploads import PDF, upload

BATCH_LINE = (
    b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "mini", "messages":'
    b' [{"role": "user", "content": "Hello"}]}}'
)

# proxy/schema.prisma of LiteLLM 1.109, as far as it is read.
TABLES = """
CREATE TABLE "LiteLLM_ManagedFileTable" (
    id text PRIMARY KEY, unified_file_id text UNIQUE NOT NULL, file_object jsonb, model_mappings jsonb NOT NULL,
    flat_model_file_ids text[] DEFAULT '{}', storage_backend text, storage_url text, created_by text, team_id text
);
CREATE TABLE "LiteLLM_ManagedObjectTable" (id text PRIMARY KEY, file_purpose text NOT NULL);
INSERT INTO "LiteLLM_ManagedObjectTable" VALUES ('1', 'batch'), ('2', 'fine-tune');
"""
INSERT = """
INSERT INTO "LiteLLM_ManagedFileTable" (id, unified_file_id, file_object, model_mappings, storage_backend, team_id)
VALUES ($1, $2, $3, $4, $5, $6)
"""


@pytest.fixture
async def litellm(postgres_url):
    """An empty database of LiteLLM's: its URL as LiteLLM's users write it, and a way to add a file."""
    async with new_database(postgres_url) as url, connected(url) as connection:
        await connection.execute(TABLES)
        yield LiteLLM(url, connection)


class LiteLLM:
    def __init__(self, url, connection):
        self.url = f"{url}{'&' if '?' in url else '?'}connection_limit=5&pool_timeout=60&schema=public"
        self._connection = connection

    async def add(self, replicas, *, storage_backend=None, team_id=None, **facts):
        """A managed file with these provider file ids by model id; the unified id that its clients have."""
        facts = {
            "filename": "a.pdf",
            "bytes": len(PDF),
            "purpose": "user_data",
            "created_at": int(time.time()),
            **facts,
        }
        said = f"litellm_proxy:application/pdf;unified_id,{uuid.uuid4()};target_model_names,mini,other"
        unified_id = urlsafe_b64encode(said.encode()).decode().rstrip("=")
        # LiteLLM fills these columns with the text of an object.
        columns = (json.dumps(json.dumps(facts)), json.dumps(json.dumps(replicas)))
        await self._connection.execute(INSERT, uuid.uuid4().hex, unified_id, *columns, storage_backend, team_id)
        return unified_id


@pytest.fixture
def config(sandbox, tmp_path):
    """LiteLLM's configuration; one deployment says its id itself."""
    content = configuration(sandbox.url)
    assert content["model_list"][2]["model_name"] == "other"
    content["model_list"][2]["model_info"] = {"id": "the-other"}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture
def filemux(config, litellm, database_url, tmp_path):
    """`filemux import-litellm --from DATABASE_URL ARGUMENTS`; a CompletedProcess."""

    def run(*arguments):
        environment = {"DATABASE_URL": database_url, "FILEMUX_DATA_DIR": tmp_path, "FILEMUX_CONFIG": config}
        return run_cli("import-litellm", "--from", litellm.url, *arguments, **environment)

    return run


@pytest.fixture
def outcome(filemux):
    """The same with --json, parsed."""

    def run(*arguments):
        done = filemux("--json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def at_provider(sandbox):
    """`at_provider("sk-first")`: a file as LiteLLM has uploaded it to that account; the provider's id."""

    def store(api_key, **fields):
        fields = {"file": ("a.pdf", PDF), "purpose": "user_data", **fields}
        with openai.OpenAI(base_url=f"{sandbox.url}/openai/v1", api_key=api_key) as provider:
            return provider.files.create(**fields).id

    return store


def id_of(config, index):
    """LiteLLM's own id of an entry."""
    entry = YamlFile.read(config).items("model_list")[index]
    return model_id(entry["model_name"], entry["litellm_params"], Place("", None))


def test_model_ids_are_litellms():
    # Its own function (litellm/router_api.py, deployment_id, 1.109.1) makes this of these parameters.
    params = YamlFile.parse(
        "{model: azure/gpt-4o, api_base: 'https://example.openai.azure.com', api_key: sk-1, api_version: 2024-10-21,"
        " timeout: 30, stream_timeout: 1.5, drop_params: true, region_name: null, extra_headers: {a: 1}, tags: [x, 1]}",
        "",
    ).content
    made = model_id("gpt-4o-azure", params, Place("", None))
    assert made == "b183e1ba1a0f116d05a557fc20c264e9b2a543a2ad8ff246c46d64f8d8168e07"


async def test_imported_files_go_on_working(outcome, litellm, config, clients, at_provider, sandbox):
    replicas = {id_of(config, 0): at_provider("sk-first"), "the-other": at_provider("sk-second")}
    unified_id = await litellm.add(replicas)
    assert outcome("--apply") == {"new": 1, "known": 0, "batches": 1, "left": [], "unknown_model_ids": {}}
    client = clients.admin
    file = client.files.retrieve(unified_id)
    assert (file.filename, file.bytes, file.purpose) == ("a.pdf", len(PDF), "user_data")
    assert file.id in [one.id for one in client.files.list(limit=10).data]
    assert [one.id for one in client.files.list(limit=1, extra_query={"after": unified_id})] != [file.id]
    for model, old_or_new in (("mini", unified_id), ("other", unified_id), ("mini", file.id)):
        completion = ask(client, model, file_part(old_or_new), file_part(file.id))
        assert seen("a.pdf", PDF) in answer_of(completion)
    assert client.files.delete(unified_id).deleted
    assert eventually(lambda: sandbox.files == [])
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(unified_id)
    # What was deleted is not imported again.
    assert outcome("--apply")["known"] == 1


async def test_content_of_an_imported_file(outcome, litellm, config, clients, at_provider):
    lines = b'{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}\n'
    stored = at_provider("sk-first", file=("a.jsonl", lines), purpose="fine-tune")
    # Its size is what LiteLLM says, and may be wrong.
    unified_id = await litellm.add({id_of(config, 0): stored}, filename="a.jsonl", purpose="fine-tune", bytes=1)
    outcome("--apply")
    content = clients.admin.files.with_raw_response.content(unified_id)
    assert content.content == lines
    again = clients.http.get(f"/v1/files/{unified_id}/content", headers={"if-none-match": content.headers["etag"]})
    assert again.status_code == 304


async def test_an_imported_file_is_uploaded_to_another_provider_when_it_is_needed(
    outcome, litellm, config, clients, at_provider
):
    stored = at_provider("sk-first", purpose="batch")
    unified_id = await litellm.add({id_of(config, 0): stored}, purpose="batch")
    outcome("--apply")
    assert seen("a.pdf", PDF) in answer_of(ask(clients.admin, "other", file_part(unified_id)))


async def test_a_batch_of_an_imported_file(outcome, litellm, config, clients, at_provider, sandbox):
    stored = at_provider("sk-first", file=("lines.jsonl", BATCH_LINE), purpose="batch")
    unified_id = await litellm.add({id_of(config, 0): stored}, purpose="batch", bytes=len(BATCH_LINE))
    outcome("--apply")
    client = clients.admin
    batch = client.batches.create(input_file_id=unified_id, endpoint="/v1/chat/completions", completion_window="24h")
    sandbox.advance(10)
    ended = eventually(lambda: (one := client.batches.retrieve(batch.id)).output_file_id and one)
    assert ended.request_counts.completed == 1


async def test_nothing_is_written_without_apply(outcome, litellm, config, clients, at_provider):
    unified_id = await litellm.add({"the-other": at_provider("sk-second")})
    assert outcome()["new"] == 1
    with pytest.raises(openai.NotFoundError):
        clients.admin.files.retrieve(unified_id)


async def test_a_second_copy_at_an_account_is_deleted_with_its_file(
    outcome, litellm, config, clients, at_provider, sandbox
):
    copies = {id_of(config, index): at_provider("sk-first") for index in (0, 1, 5)}
    unified_id = await litellm.add(copies)
    assert outcome("--apply")["new"] == 1
    assert seen("a.pdf", PDF) in answer_of(ask(clients.admin, "four", file_part(unified_id)))
    assert len(sandbox.files) == 3
    clients.admin.files.delete(unified_id)
    assert eventually(lambda: not sandbox.files)


async def test_unknown_model_ids_are_settled_by_hand(filemux, outcome, litellm, clients, at_provider):
    unified_id = await litellm.add({"old": at_provider("sk-second"), "gone": "file-lost"})
    found = outcome("--apply")
    assert found["unknown_model_ids"] == {"old": 1, "gone": 1}
    assert found["left"] == [{"unified_file_id": unified_id, "reason": "no deployment has the model id old, gone"}]
    said = filemux().stdout
    assert "--map ID=MODEL_NAME" in said
    assert "0 files would be imported (--apply does it), 0 were before, 1 stay behind" in said
    assert "1 batches are not imported" in said
    assert outcome("--apply", "--map", "old=other", "--map", "gone=")["new"] == 1
    assert seen("a.pdf", PDF) in answer_of(ask(clients.admin, "other", file_part(unified_id)))


async def test_files_that_cannot_be_imported_say_why(outcome, litellm):
    long_ago = int(time.time()) - 100
    reasons = {
        await litellm.add({}): "it is at no provider",
        await litellm.add(
            {"x": "y"}, storage_backend="default"
        ): "LiteLLM keeps its bytes itself, and no provider has them",
        await litellm.add({"the-other": "file-1"}, bytes=None): "LiteLLM has not recorded its size and date",
        await litellm.add({"the-other": "file-1"}, expires_at=long_ago): "it has expired",
    }
    found = outcome("--apply")
    assert {one["unified_file_id"]: one["reason"] for one in found["left"]} == reasons
    assert found["new"] == 0


async def test_files_belong_to_the_team_that_litellm_names(outcome, litellm, clients, at_provider):
    named, other = clients.new_team(), clients.new_team()
    of_named = await litellm.add({"the-other": at_provider("sk-second")}, team_id=named)
    of_nobody = await litellm.add({"the-other": at_provider("sk-second")}, team_id="of no such name")
    assert outcome("--apply", "--team", other)["new"] == 2
    member, stranger = clients.member(named), clients.member(other)
    assert member.files.retrieve(of_named).filename == "a.pdf"
    assert stranger.files.retrieve(of_nobody).filename == "a.pdf"
    for client, file_id in ((stranger, of_named), (member, of_nobody)):
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(file_id)
        with pytest.raises(openai.NotFoundError):
            client.files.delete(file_id)
        with pytest.raises(openai.BadRequestError):
            ask(client, "other", file_part(file_id))


async def test_imported_files_are_as_old_as_they_are(outcome, litellm, clients, at_provider):
    member_key = clients.new_team()
    member = clients.member(member_key)
    new = upload(member, "other")
    created_at = int(time.time()) - 10_000_000
    old = await litellm.add({"the-other": at_provider("sk-second")}, team_id=member_key, created_at=created_at)
    outcome("--apply")
    listed = member.files.list().data
    assert [one.id for one in listed] == [new.id, member.files.retrieve(old).id]
    assert listed[1].created_at == created_at
    assert [one.id for one in member.files.list(after=new.id).data] == [listed[1].id]
    assert [one.id for one in member.files.list(order="asc", after=old).data] == [new.id]


def test_what_cannot_be_done_is_told_in_a_line(filemux, litellm, database_url, tmp_path):
    def told(*arguments):
        done = filemux(*arguments)
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "'nothing' is not MODEL_ID=MODEL_NAME" in told("--map", "nothing")
    assert "the model name 'pair' is at 2 accounts: openai-first, openai-second" in told("--map", "x=pair")
    litellm.url = database_url
    assert "holds no managed files" in told()
    litellm.url = "postgresql://nobody@127.0.0.1:1/none"
    assert "--from: cannot be read" in told()
    alone = run_cli("import-litellm", "--from", database_url, DATABASE_URL=database_url, FILEMUX_DATA_DIR=tmp_path)
    assert "it needs LiteLLM's configuration" in alone.stderr


@pytest.mark.parametrize(
    "text", ["file-mux-" + "0" * 32, "bGl0ZWxsbV9wcm94eT", "file-bGl0ZWxsbV9wcm94eTphOg", "bGl0ZWxsbV9wcm94eTp/"]
)
def test_other_ids_are_no_imported_ones(text):
    assert not is_imported_id(text)
