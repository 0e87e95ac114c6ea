"""Vertex AI, through google-genai and google-auth; what they would never send, by hand."""

import base64
import json
import time

import google.auth.exceptions
import google.auth.transport.requests
import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google import genai
from google.genai import errors, types
from google.oauth2 import service_account
from google.oauth2.credentials import Credentials

from app.sandbox import sample_path
from app.sandbox.faults import Faults
from app.sandbox.gemini_contents import FileData
from app.sandbox.model import Attachment
from app.sandbox.store import Store, StoredFile
from app.sandbox.vertex import Vertex
from tests.sandbox.conftest import Sandbox, Switchboard

_MODELS = "/vertex/v1/publishers/google/models"
_PROJECT_MODELS = "/vertex/v1/projects/p/locations/us-central1/publishers/google/models"
_TOKEN = {"authorization": "Bearer tok"}
_HI = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def _client(sandbox: Sandbox, credentials) -> genai.Client:
    options = types.HttpOptions(base_url=f"{sandbox.base_url}/vertex")
    return genai.Client(
        vertexai=True, project="p", location="us-central1", credentials=credentials, http_options=options
    )


@pytest.fixture
def client(sandbox: Sandbox):
    with _client(sandbox, Credentials("tok")) as client:
        yield client


@pytest.fixture
def key_client(sandbox: Sandbox):
    options = types.HttpOptions(base_url=f"{sandbox.base_url}/vertex")
    with genai.Client(vertexai=True, api_key="one", http_options=options) as client:
        yield client


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, *form).decode()


def _service_account(sandbox: Sandbox, private_key: str, email: str) -> service_account.Credentials:
    info = {"client_email": email, "private_key": private_key, "token_uri": f"{sandbox.base_url}/vertex/token"}
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    return service_account.Credentials.from_service_account_info(info, scopes=scopes)


def _ask(client, contents, model: str = "gemini-2.0-flash", **config) -> types.GenerateContentResponse:
    return client.models.generate_content(model=model, contents=contents, config=config)


@pytest.mark.parametrize("fixture", ["client", "key_client"])
def test_chats_with_a_token_or_with_a_key(request, fixture):
    client = request.getfixturevalue(fixture)
    part = types.Part.from_bytes(data=b"hi", mime_type="text/plain")
    whole = _ask(client, [part, "What is this?"], labels={"team": "one"})
    assert whole.text.splitlines()[0].startswith("[file filename=upload bytes=2 ")
    chunks = [*client.models.generate_content_stream(model="gemini-2.0-flash", contents=[part, "What is this?"])]
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert "publishers/google/models/gemini-2.0-flash" in [model.name for model in client.models.list()]
    assert client.models.get(model="gemini-3-pro").name == "publishers/google/models/gemini-3-pro"


def test_signed_calls_come_back(client):
    def lookup(q: str) -> str:
        """Look something up."""
        return f"found {q}"

    assert _ask(client, "call:lookup", "gemini-3-flash", tools=[lookup]).text == '{"result":"found call:lookup"}'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"fileUri": "gs://filemux-sandbox/none", "mimeType": "application/pdf"}, "Cannot fetch content"),
        ({"fileUri": "files/a", "mimeType": "application/pdf"}, "Cannot fetch content"),
        ({"fileUri": "gs://filemux-sandbox/none"}, "contents[0].parts[0].file_data.mime_type"),
        ({"fileUri": "gs://filemux-sandbox/none", "mimeType": "text/html"}, "value text/html, which is not supported"),
        ({"fileUri": "gs://filemux-sandbox/none", "mimeType": "application/json"}, "is not supported"),
    ],
)
async def test_a_bad_reference_is_refused(http: httpx.AsyncClient, data, message):
    body = {"contents": [{"role": "user", "parts": [{"fileData": data}]}]}
    answer = await http.post(f"{_PROJECT_MODELS}/gemini-2.0-flash:generateContent", json=body, headers=_TOKEN)
    assert answer.status_code == 400
    assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"
    assert message in answer.json()["error"]["message"]


def test_any_credential_reads_any_object():
    store = Store()
    stored = StoredFile(
        provider="vertex_ai",
        account="one",
        id="gs://filemux-sandbox/a.pdf",
        filename="a.pdf",
        size_bytes=3,
        sha256="abc",
        purpose="",
        content_type="application/pdf",
        created_at=store.clock.now(),
        expires_at=None,
        path=sample_path(),
    )
    store.add(stored)
    data = FileData.model_validate({"fileUri": stored.id, "mimeType": "application/pdf"})
    assert Vertex(store, Faults()).resolve(data, "two") == Attachment("a.pdf", 3, "abc")
    store.close()


@pytest.mark.parametrize(
    "more",
    [
        {"labels": {"team": "One"}},
        {"labels": {"team": "a" * 64}},
        {"labels": {"Team": "one"}},
        {"store": True},
        {"generationConfig": {"enableEnhancedCivicAnswers": True}},
    ],
)
async def test_a_bad_body_is_refused(http: httpx.AsyncClient, more):
    answer = await http.post(f"{_PROJECT_MODELS}/gemini-2.0-flash:generateContent", json=_HI | more, headers=_TOKEN)
    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (_PROJECT_MODELS, {}),
        (_PROJECT_MODELS, {"x-goog-api-key": "one"}),
        (_PROJECT_MODELS, {"authorization": "Bearer bad"}),
        (_PROJECT_MODELS, {"authorization": "Basic tok"}),
        (_MODELS, {}),
        (_MODELS, _TOKEN),
        (_MODELS, {"x-goog-api-key": "bad"}),
    ],
)
async def test_credentials(http: httpx.AsyncClient, path, headers):
    answer = await http.post(f"{path}/gemini-2.0-flash:generateContent", json=_HI, headers=headers)
    assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


def test_unknown_models(client):
    with pytest.raises(errors.ClientError, match="was not found or your project") as refused:
        _ask(client, "hi", "gemini-1")
    assert (refused.value.code, refused.value.status) == (404, "NOT_FOUND")


async def test_faults(client, switchboard: Switchboard):
    await switchboard.fault(provider="vertex_ai", operation="chat", status=429, retry_after_seconds=3)
    with pytest.raises(errors.ClientError) as refused:
        _ask(client, "hi")
    assert (refused.value.code, refused.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert refused.value.details["error"]["details"][0]["retryDelay"] == "3s"
    assert (await switchboard.requests())["vertex_ai.chat"] == 1


def test_a_service_account_gets_a_token(sandbox: Sandbox, private_key):
    credentials = _service_account(sandbox, private_key, "one@p.iam.gserviceaccount.com")
    with _client(sandbox, credentials) as client:
        assert _ask(client, "hi").text == "hi"
    assert credentials.token == "sandbox-one@p.iam.gserviceaccount.com"
    assert credentials.valid


def test_an_unknown_service_account_gets_none(sandbox: Sandbox, private_key):
    credentials = _service_account(sandbox, private_key, "bad@p.iam.gserviceaccount.com")
    with pytest.raises(google.auth.exceptions.RefreshError, match="invalid_grant"):
        credentials.refresh(google.auth.transport.requests.Request())


def _jwt(claims: dict, algorithm: str = "RS256") -> str:
    segments = (json.dumps(part).encode() for part in ({"alg": algorithm, "typ": "JWT"}, claims))
    return ".".join(base64.urlsafe_b64encode(segment).decode().rstrip("=") for segment in (*segments, b"signature"))


_CLAIMS = {
    "iss": "one",
    "scope": "https://www.googleapis.com/auth/devstorage.read_write https://www.googleapis.com/auth/cloud-platform",
    "aud": "https://oauth2.googleapis.com/token",
    "exp": int(time.time()) + 3600,
}
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


async def test_a_token_is_for_a_signed_assertion(http: httpx.AsyncClient):
    answer = await http.post("/vertex/token", data={"grant_type": _GRANT, "assertion": _jwt(_CLAIMS)})
    assert answer.json() == {"access_token": "sandbox-one", "expires_in": 3600, "token_type": "Bearer"}


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "unsupported_grant_type"),
        ({"grant_type": "password", "assertion": _jwt(_CLAIMS)}, "unsupported_grant_type"),
        ({"grant_type": _GRANT}, "invalid_grant"),
        ({"grant_type": _GRANT, "assertion": "a.b.c"}, "invalid_grant"),
        ({"grant_type": _GRANT, "assertion": _jwt(_CLAIMS, "HS256")}, "invalid_grant"),
        *(
            ({"grant_type": _GRANT, "assertion": _jwt(_CLAIMS | {claim: None})}, "invalid_grant")
            for claim in ("iss", "scope", "aud", "exp")
        ),
        ({"grant_type": _GRANT, "assertion": _jwt(_CLAIMS | {"scope": "email"})}, "invalid_grant"),
        ({"grant_type": _GRANT, "assertion": _jwt(_CLAIMS | {"iss": "bad"})}, "invalid_grant"),
    ],
)
async def test_no_token(http: httpx.AsyncClient, form, error):
    answer = await http.post("/vertex/token", data=form)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert answer.json()["error_description"]
