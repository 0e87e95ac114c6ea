"""The Gemini simulator as the tests speak to it: through google-genai, and by hand."""

import hashlib
import io

import httpx
from google import genai
from google.genai import types

PDF = b"%PDF-1.4 not really"
KEY = {"x-goog-api-key": "one"}
# Models of the second generation and of the third, which tell their thoughts' signatures.
SECOND, THIRD = "gemini-2.5-flash", "gemini-3-pro"


def open_client(base_url: str, api_key: str = "one") -> genai.Client:
    return genai.Client(api_key=api_key, http_options=types.HttpOptions(base_url=f"{base_url}/gemini"))


def line(data: bytes, filename: str) -> str:
    """What the simulated model says of a file."""
    return f"[file filename={filename} bytes={len(data)} sha256={hashlib.sha256(data).hexdigest()}]"


def upload(client, data: bytes = PDF, mime_type: str = "application/pdf", **config) -> types.File:
    return client.files.upload(file=io.BytesIO(data), config={"mime_type": mime_type, **config})


def ask(client, contents, model: str = SECOND, **config) -> types.GenerateContentResponse:
    return client.models.generate_content(model=model, contents=contents, config=config)


def stream(client, contents, model: str = SECOND, **config) -> list[types.GenerateContentResponse]:
    return [*client.models.generate_content_stream(model=model, contents=contents, config=config)]


def parts_of(chunks) -> list[types.Part]:
    return [part for chunk in chunks for part in chunk.candidates[0].content.parts]


async def post(http: httpx.AsyncClient, body, *, model: str = SECOND, verb: str = "generateContent", **more):
    path = f"/gemini/v1beta/models/{model}:{verb}"
    return await http.post(path, **{"json": body, "headers": KEY, **more})


def assert_refused(answer: httpx.Response) -> dict:
    """The error of a request that is wrong."""
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["message"]
    return error
