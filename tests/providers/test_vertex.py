"""Vertex AI: its URLs, the credentials that it takes and how long they last, and what it does without a bucket."""

import asyncio
import json

import hypothesis.strategies as st
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from pydantic import ValidationError

from app.errors import Missing, Rejected, Unauthorized, Unavailable, Unsupported
from app.formats.batch_lines import CHAT_ENDPOINT
from app.providers.protocol import BatchOptions, BatchSubmission, ChatRequest, ProviderBatch
from app.providers.registry import REGISTRY
from app.providers.vertex import CAPABILITIES, WITHOUT_BUCKET, Vertex, VertexParams, failure_of, key_of, label_of
from tests.conformance.suite import unreachable
from tests.support.providers import canned, upload_of

MODEL = "gemini-2.5-flash"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "say this back"}]}
REQUEST = ChatRequest(MODEL, json.dumps(CHAT).encode())
STREAMED = ChatRequest(MODEL, json.dumps({**CHAT, "stream": True}).encode())
ANSWER = b'{"candidates": [{"content": {"parts": [{"text": "so"}]}, "finishReason": "STOP"}], "responseId": "r1"}'
PROJECT = {"vertex_project": "sandbox"}
TOKEN = {**PROJECT, "vertex_access_token": "a-token"}


def account(http, url=None, **params):
    return Vertex(VertexParams.model_validate({**({"api_base": url} if url else {}), **params}), http)


# --- urls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "url"),
    [
        ({}, "https://us-central1-aiplatform.googleapis.com"),
        ({"vertex_location": "europe-west4"}, "https://europe-west4-aiplatform.googleapis.com"),
        ({"vertex_location": "global"}, "https://aiplatform.googleapis.com"),
        ({"vertex_location": "us"}, "https://aiplatform.us.rep.googleapis.com"),
        ({"vertex_location": "eu"}, "https://aiplatform.eu.rep.googleapis.com"),
        ({"api_key": "k"}, "https://aiplatform.googleapis.com"),
        ({"api_base": "https://proxy.example/vertex/", "vertex_location": "eu"}, "https://proxy.example/vertex"),
    ],
)
def test_where_the_models_are(params, url):
    assert VertexParams.model_validate(params).url == url


async def head_of(http, request=REQUEST, **params):
    """The head of the request that a chat causes, in lower case."""
    async with canned(body=ANSWER) as (url, requests):
        provider = account(http, url, **params)
        if request is STREAMED:
            await (await provider.stream_chat(request)).aclose()
        else:
            await provider.chat(request)
    return requests[0].partition(b"\r\n\r\n")[0].decode().lower()


@pytest.mark.parametrize(
    ("params", "request_", "line"),
    [
        (TOKEN, REQUEST, "/v1beta1/projects/sandbox/locations/us-central1/publishers/google/models/{}:generatecontent"),
        (
            {**TOKEN, "vertex_location": "eu", "api_version": "v1"},
            STREAMED,
            "/v1/projects/sandbox/locations/eu/publishers/google/models/{}:streamgeneratecontent?alt=sse",
        ),
        ({"api_key": "a-key"}, REQUEST, "/v1beta1/publishers/google/models/{}:generatecontent"),
    ],
)
async def test_a_chat_names_project_and_location_unless_a_key_does(http, params, request_, line):
    head = await head_of(http, request_, **params)
    assert head.startswith(f"post {line.format(MODEL)} http/1.1")
    assert ("authorization: bearer a-token" in head) is ("api_key" not in params)
    assert ("x-goog-api-key: a-key" in head) is ("api_key" in params)


async def test_a_chat_is_answered(http, sandbox):
    for params in (TOKEN, {"api_key": "a-key"}):
        answer = json.loads(await account(http, f"{sandbox.url}/vertex", **params).chat(REQUEST))
        assert answer["choices"][0]["message"]["content"] == "say this back"


# --- credentials ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def private_key():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def service_account(private_key, sandbox):
    """The JSON of a service account, as text; its tokens come from the sandbox."""

    def text(**fields):
        info = {
            "type": "service_account",
            "project_id": "its-project",
            "private_key_id": "1",
            "private_key": private_key,
            "client_email": "robot@its-project.iam.gserviceaccount.com",
            "token_uri": f"{sandbox.url}/vertex/token",
        }
        return json.dumps({**info, **fields})

    return text


@pytest.fixture
def no_credentials(monkeypatch, tmp_path):
    """A machine on which Google's libraries find nothing."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", str(tmp_path))


async def test_a_service_account_gets_one_token_for_all_its_chats(http, sandbox, service_account):
    provider = account(http, f"{sandbox.url}/vertex", **PROJECT, vertex_credentials=service_account())
    await asyncio.gather(*(provider.chat(REQUEST) for _ in range(8)))
    assert sandbox.calls("vertex_ai.issue_token") == 1
    assert sandbox.calls("vertex_ai.chat") == 8


async def test_a_service_account_may_be_a_file_and_names_its_project(http, service_account, tmp_path):
    path = tmp_path / "robot.json"
    path.write_text(service_account())
    head = await head_of(http, vertex_credentials=str(path))
    assert "/projects/its-project/locations/us-central1/" in head
    assert "authorization: bearer sandbox-robot@its-project" in head


@pytest.mark.usefixtures("no_credentials")
async def test_the_machines_own_credentials_are_found(http, service_account, tmp_path, monkeypatch):
    path = tmp_path / "robot.json"
    path.write_text(service_account())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    assert "/projects/its-project/" in await head_of(http)
    assert "/projects/sandbox/" in await head_of(http, **PROJECT)


@pytest.mark.usefixtures("no_credentials")
async def test_a_machine_without_credentials_has_none(http):
    with pytest.raises(Unauthorized):
        await account(http, **PROJECT).chat(REQUEST)


async def test_a_token_alone_names_no_project(http):
    with pytest.raises(Unauthorized, match="vertex_project"):
        await account(http, vertex_access_token="a-token").chat(REQUEST)


async def test_a_refused_service_account_is_ours(http, service_account):
    provider = account(http, **PROJECT, vertex_credentials=service_account(client_email="bad@its-project"))
    with pytest.raises(Unauthorized) as refused:
        await provider.check()
    assert "bad@" not in refused.value.message


async def test_a_token_endpoint_that_cannot_be_reached_is_unavailable(http, service_account):
    taken, url = unreachable()
    with taken, pytest.raises(Unavailable):
        await account(http, **PROJECT, vertex_credentials=service_account(token_uri=url)).check()


def issued(seconds):
    return json.dumps({"access_token": "a-token", "expires_in": seconds, "token_type": "Bearer"}).encode()


@pytest.mark.parametrize(("seconds", "tokens"), [(3600, 1), (299, 2)])
async def test_a_token_is_used_until_five_minutes_before_its_end(http, service_account, seconds, tokens):
    async with canned(body=issued(seconds)) as (token_uri, asked), canned(body=ANSWER) as (url, _):
        credentials = service_account(token_uri=token_uri)
        provider = account(http, url, **PROJECT, vertex_credentials=credentials)
        await provider.chat(REQUEST)
        await provider.chat(REQUEST)
    assert len(asked) == tokens


async def test_a_users_credentials_name_the_project_that_pays(http):
    user = {
        "type": "authorized_user",
        "client_id": "id",
        "client_secret": "secret",
        "refresh_token": "of-the-user",
        # Google's library asks for another one only at Google itself.
        "token": "a-token",
        "expiry": "2999-01-01T00:00:00Z",
        "quota_project_id": "who-pays",
    }
    head = await head_of(http, **PROJECT, vertex_credentials=json.dumps(user))
    assert "authorization: bearer a-token" in head and "x-goog-user-project: who-pays" in head


async def test_an_external_account_changes_its_own_token_for_googles(http, tmp_path):
    (tmp_path / "token").write_text("of-the-cluster")
    async with canned(body=issued(3600)) as (token_url, asked):
        external = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": token_url,
            "credential_source": {"file": str(tmp_path / "token")},
        }
        head = await head_of(http, **PROJECT, vertex_credentials=json.dumps(external))
    assert b"of-the-cluster" in asked[0]
    assert "authorization: bearer a-token" in head


@pytest.mark.parametrize(
    "params",
    [
        {"vertex_credentials": "/no/such/file.json"},
        {"vertex_credentials": "{"},
        {"vertex_credentials": "{}"},
        {"vertex_credentials": '{"type": "gdch_service_account"}'},
        {"vertex_credentials": '{"type": "service_account"}'},
        {"vertex_location": "../elsewhere"},
        {"api_base": "aiplatform.googleapis.com"},
        {"gcs_endpoint": "storage.googleapis.com"},
        {"api_version": "v2"},
        {"project": "sandbox"},
    ],
)
def test_parameters_that_are_wrong_are_refused(params):
    with pytest.raises(ValidationError):
        VertexParams.model_validate(params)


def test_a_token_beside_credentials_is_refused(service_account):
    with pytest.raises(ValidationError, match="not both"):
        VertexParams(vertex_access_token="a-token", vertex_credentials=service_account())


def test_credentials_are_never_shown(service_account):
    params = VertexParams(vertex_credentials=service_account())
    assert "PRIVATE" not in repr(params)


# --- the bucket -------------------------------------------------------------------------------------------------


async def test_an_account_without_a_bucket_keeps_no_files(http):
    provider = account(http, **TOKEN)
    assert provider.capabilities == WITHOUT_BUCKET and not WITHOUT_BUCKET.stores_files
    assert provider.capabilities.carriage(MODEL, "application/pdf") == "inline"
    assert provider.capabilities.carriage(MODEL, "text/csv") == "text"
    calls = [
        provider.upload_file(upload_of()),
        provider.retrieve_file("gs://b/f"),
        provider.list_files(None, 1),
        provider.delete_file("gs://b/f"),
        provider.read_file("gs://b/f").__aenter__(),
    ]
    for call in calls:
        with pytest.raises(Unsupported):
            await call
    with pytest.raises(Unsupported):
        provider.chosen_file_id("f")


@pytest.fixture
def with_bucket(http, sandbox):
    """An account of the sandbox with its bucket."""

    def made(**params):
        bucket = {"gcs_endpoint": f"{sandbox.url}/gcs", "gcs_bucket": "filemux-sandbox"}
        return account(http, f"{sandbox.url}/vertex", **{**bucket, **(params or TOKEN)})

    return made


def asking_about(file_id):
    part = {"type": "file", "file": {"file_id": file_id, "format": "application/pdf"}}
    body = {"model": MODEL, "messages": [{"role": "user", "content": [part]}]}
    return ChatRequest(MODEL, json.dumps(body).encode())


async def test_a_file_is_an_object_that_the_model_reads(with_bucket):
    provider = with_bucket()
    assert provider.capabilities == CAPABILITIES
    await provider.check()
    upload = upload_of(b"%PDF", filename="ä.pdf", mime_type="application/pdf")
    file = await provider.upload_file(upload)
    assert file.id == f"gs://filemux-sandbox/filemux/{upload.replica_id}" == provider.chosen_file_id(upload.replica_id)
    assert b"filename=\xc3\xa4.pdf bytes=4" in await provider.chat(asking_about(file.id))


async def test_chats_and_objects_have_one_token(with_bucket, sandbox, service_account):
    provider = with_bucket(**PROJECT, vertex_credentials=service_account())
    file = await provider.upload_file(upload_of(mime_type="application/pdf"))
    await asyncio.gather(provider.chat(asking_about(file.id)), provider.retrieve_file(file.id))
    assert sandbox.calls("vertex_ai.issue_token") == 1


async def test_a_key_answers_for_chats_alone(with_bucket, sandbox, service_account):
    provider = with_bucket(api_key="a-key", vertex_credentials=service_account())
    file = await provider.upload_file(upload_of(mime_type="application/pdf"))
    assert b"bytes=10" in await provider.chat(asking_about(file.id))
    assert sandbox.calls("vertex_ai.issue_token") == 1


async def test_credentials_that_are_refused_are_no_fault_of_the_bucket(with_bucket, service_account):
    provider = with_bucket(**PROJECT, vertex_credentials=service_account(client_email="bad@its-project"))
    with pytest.raises(Unauthorized):
        await provider.upload_file(upload_of())


async def test_a_chat_is_refused_for_a_missing_object_if_one_is(with_bucket, sandbox):
    provider = with_bucket()
    file = await provider.upload_file(upload_of(mime_type="application/pdf"))
    sandbox.fault("vertex_ai", "chat", status=400)
    with pytest.raises(Rejected):
        await provider.chat(asking_about(file.id))
    await provider.delete_file(file.id)
    with pytest.raises(Missing):
        await provider.chat(asking_about(file.id))
    # What is elsewhere is the caller's business.
    with pytest.raises(Rejected):
        await provider.chat(asking_about("gs://another-bucket/a.pdf"))


def test_the_bucket_and_the_project_may_stand_in_the_environment(monkeypatch):
    kind = REGISTRY["vertex_ai"]
    names = ("GCS_BUCKET_NAME", "VERTEXAI_PROJECT", "VERTEXAI_LOCATION")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert kind.filling() == {}
    for name in names:
        monkeypatch.setenv(name, "x")
    assert kind.filling() == {
        "gcs_bucket": "os.environ/GCS_BUCKET_NAME",
        "vertex_project": "os.environ/VERTEXAI_PROJECT",
        "vertex_location": "os.environ/VERTEXAI_LOCATION",
    }


# --- batches ----------------------------------------------------------------------------------------------------

RESULT = {"status": "", "request": {"labels": {"custom_id": "k"}}, "response": json.loads(ANSWER)}


def job(state="SUCCEEDED", **fields):
    """A job as Vertex AI describes it."""
    name = "projects/1234/locations/us-central1/batchPredictionJobs/77"
    return {"name": name, "displayName": "n", "state": f"JOB_STATE_{state}", **fields}


@given(st.text(max_size=9) | st.from_regex(r"[ac-z0-9_-][a-z0-9_-]{0,62}|b32_[a-z]{0,9}", fullmatch=True))
def test_a_key_comes_back_from_its_label(key):
    label = label_of(key)
    assert key_of(label) == key
    assert len(label) <= 63 and set(label) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")


def test_keys_that_label_alike_differ():
    assert label_of("abc") == "abc"
    assert len({label_of(key) for key in ("abc", "ABC", label_of("ABC"))}) == 3


@pytest.mark.parametrize("key", ["A" * 37, "a" * 64, "ä" * 19])
def test_a_key_that_no_label_holds_is_refused(key):
    with pytest.raises(Rejected, match="36 bytes") as refused:
        label_of(key)
    assert refused.value.param == "custom_id"


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ('{"error": {"code": 429, "message": "later", "status": "X"}}', 429, "later"),
        ('Bad Request: {"error": {"code": 400, "message": "no"}}', 400, "no"),
        ('{"code": 503, "message": "busy"}', 503, "busy"),
        ({"code": 404, "message": "gone"}, 404, "gone"),
        # A number that is none of HTTP's.
        ('{"code": 3, "message": "invalid"}', 500, "invalid"),
        ("the model was not in the mood", 500, "the model was not in the mood"),
        ("{broken", 500, "{broken"),
        ('{"error": "text"}', 500, '{"error": "text"}'),
        ("x" * 5000, 500, "x" * 2000),
    ],
)
def test_what_went_wrong_with_a_line(status, code, message):
    assert failure_of(status) == (code, message)


async def test_batches_need_a_bucket_and_a_project(with_bucket, http):
    batch = BatchSubmission("n", MODEL, CHAT_ENDPOINT, input_file_id="gs://filemux-sandbox/filemux/in.jsonl")
    for provider in (account(http, **TOKEN), with_bucket(api_key="k", vertex_access_token="t")):
        assert provider.capabilities.batch_input == "none"
        calls = [
            provider.create_batch(batch),
            provider.retrieve_batch("77"),
            provider.list_batches(None, 1),
            provider.cancel_batch("77"),
            provider.forget_batch(ProviderBatch("77", "completed")),
            provider.read_batch_output(ProviderBatch("77", "completed")).__aenter__(),
        ]
        for call in calls:
            with pytest.raises(Unsupported, match="this account runs no batches"):
                await call


async def test_a_batch_by_the_name_and_in_the_folder_that_the_caller_wants(with_bucket, sandbox):
    provider = with_bucket(**TOKEN, allowed_buckets=["filemux-sandbox/team"])
    line = provider.batch_line("My Key", CHAT_ENDPOINT, REQUEST) + b"\n"
    file = await provider.upload_file(upload_of(line, replica_id="in.jsonl"))
    options = BatchOptions(output_uri="gs://filemux-sandbox/team/out", job_name="Monday's")
    batch = await provider.create_batch(
        BatchSubmission("n1", "gemini-2.5-flash", CHAT_ENDPOINT, input_file_id=file.id, options=options)
    )
    assert (batch.name, batch.input_file_id) == ("n1", file.id)
    sandbox.advance(5)
    batch = await provider.retrieve_batch(batch.id)
    [written] = {one["id"] for one in sandbox.files} - {file.id}
    assert written.startswith("gs://filemux-sandbox/team/out/")
    async with provider.read_batch_output(batch) as output:
        [[result]] = [results async for results in output if results]
    assert result.key == "My Key" and b"say this back" in result.body
    await provider.delete_file(written)
    with pytest.raises(Missing):
        await provider.read_batch_output(batch).__aenter__()


async def test_a_batch_stays_inside_of_the_buckets(with_bucket):
    provider = with_bucket()
    mine = provider.chosen_file_id("in.jsonl")
    with pytest.raises(Missing):
        await provider.create_batch(BatchSubmission("n", MODEL, CHAT_ENDPOINT, input_file_id="gs://others/in.jsonl"))
    options = BatchOptions(output_uri="gs://others/out")
    with pytest.raises(Rejected):
        await provider.create_batch(BatchSubmission("n", MODEL, CHAT_ENDPOINT, input_file_id=mine, options=options))


async def described(http, body, *, batch_id="77"):
    """The batch that a body describes, and the head of the request for it."""
    async with canned(body=json.dumps(body).encode()) as (url, requests):
        return await account(http, url, **TOKEN, gcs_bucket="b").retrieve_batch(batch_id), requests[0]


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("QUEUED", "validating"),
        ("PAUSED", "in_progress"),
        ("UPDATING", "in_progress"),
        ("PARTIALLY_SUCCEEDED", "completed"),
        ("CANCELLING", "cancelling"),
        ("EXPIRED", "expired"),
    ],
)
async def test_the_states_of_a_job(http, state, status):
    found, request = await described(http, job(state), batch_id=job()["name"])
    assert (found.id, found.status, found.name, found.total) == ("77", status, "n", None)
    # The id's project is its number; the account's own is asked.
    assert request.startswith(b"GET /v1beta1/projects/sandbox/locations/us-central1/batchPredictionJobs/77 HTTP")


async def test_what_a_job_tells(http):
    stats = {"successfulCount": "7", "failedCount": "2", "incompleteCount": "1"}
    times = {"createTime": "2026-11-21T08:00:00.123456789Z", "endTime": "2026-11-21T08:00:09Z"}
    error = {"code": 9, "message": "quota"}
    found, _ = await described(http, job("FAILED", completionStats=stats, error=error, **times))
    assert (found.total, found.completed, found.failed) == (10, 7, 2)
    assert (found.created_at, found.ended_at) == (1_795_248_000, 1_795_248_009)
    assert [(one.code, one.message) for one in found.errors] == [("9", "quota")]
    found, _ = await described(http, job(completionStats={"successfulCount": "7", "incompleteCount": "-1"}))
    assert (found.total, found.completed, found.failed) == (None, 7, 0)
    # Another client's, which reads from a table.
    found, _ = await described(http, job(inputConfig={"instancesFormat": "bigquery", "bigquerySource": {}}))
    assert found.input_file_id is None


@pytest.mark.parametrize("body", [{}, {"state": "JOB_STATE_RUNNING"}, job("DREAMING"), {"name": "x"}])
async def test_an_answer_that_is_no_job_is_unavailable(http, body):
    with pytest.raises(Unavailable):
        await described(http, body)


@pytest.mark.parametrize("batch_id", ["", "..", "77/../78", "77:cancel", "batches/77", "seven", "7?x=1"])
async def test_what_no_job_is_called_is_missing(http, batch_id):
    with pytest.raises(Missing):
        await described(http, job(), batch_id=batch_id)


def job_that_wrote(file):
    """A job whose results are a file."""
    directory = file.id.rpartition("/")[0]
    return job(model=f"publishers/google/models/{MODEL}", outputInfo={"gcsOutputDirectory": directory})


@pytest.mark.parametrize(
    ("lines", "keys"),
    [
        (b"", []),
        (b"\n\n", []),
        (json.dumps(RESULT).encode(), ["k"]),
        (b'{"status": "", "response": {}}\n[]\nno json\n' + json.dumps(RESULT).encode() + b"\n", ["k"]),
    ],
)
async def test_lines_that_tell_no_key_are_left_out(with_bucket, sandbox, lines, keys):
    provider = with_bucket()
    file = await provider.upload_file(upload_of(lines, replica_id="out/predictions_1.jsonl"))
    answer = job(
        model=f"publishers/google/models/{MODEL}", outputInfo={"gcsOutputDirectory": file.id.rpartition("/")[0]}
    )
    async with canned(body=json.dumps(answer).encode()) as (url, _):
        there = with_bucket(**TOKEN, api_base=url)
        async with there.read_batch_output(ProviderBatch("77", "completed")) as output:
            assert [result.key async for results in output for result in results] == keys


async def test_an_answer_that_cannot_be_read_fails_its_line_alone(with_bucket):
    provider = with_bucket()
    odd = {**RESULT, "response": {"candidates": "none"}}
    file = await provider.upload_file(
        upload_of(json.dumps(odd).encode() + b"\n" + json.dumps(RESULT).encode(), replica_id="out/predictions.jsonl")
    )
    answer = job(
        model=f"publishers/google/models/{MODEL}", outputInfo={"gcsOutputDirectory": file.id.rpartition("/")[0]}
    )
    async with canned(body=json.dumps(answer).encode()) as (url, _):
        there = with_bucket(**TOKEN, api_base=url)
        async with there.read_batch_output(ProviderBatch("77", "completed")) as output:
            assert [result.status async for results in output for result in results] == [503, 200]
