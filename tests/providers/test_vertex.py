"""Vertex AI: its URLs, the credentials that it takes and how long they last, and what it does without a bucket."""

import asyncio
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import ValidationError

from app.errors import Missing, Rejected, Unauthorized, Unavailable, Unsupported
from app.providers.protocol import ChatRequest
from app.providers.registry import REGISTRY
from app.providers.vertex import CAPABILITIES, WITHOUT_BUCKET, Vertex, VertexParams
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
