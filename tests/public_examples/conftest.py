"""The examples of other gateways' documentation, run as their readers would: only base_url and key are changed.

Names that the pages leave open (`your-s3-bucket`) are the sandbox's. What a page prints is asserted here.
"""

import httpx
import openai
import pytest

from tests.conftest import MASTER_KEY
from tests.public_examples.pages import ENDED, configuration
from tests.support.sandbox import eventually


@pytest.fixture(scope="session")
def pages_gateway(make_gateway, sandbox_process):
    """A gateway with the accounts and model names of the pages."""
    with make_gateway(**configuration(sandbox_process.url)) as running:
        yield running


@pytest.fixture
def connect(pages_gateway, sandbox):
    """`connect("/v1")`: the SDK at the base URL that a page shows, with another key if one is given."""
    opened = []

    def connect(path="", key=MASTER_KEY):
        opened.append(openai.OpenAI(base_url=pages_gateway.url + path, api_key=key, max_retries=0, timeout=60))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


@pytest.fixture
def new_key(pages_gateway):
    """`new_key("user_123")`: a key of a team of that name."""
    headers = {"authorization": f"Bearer {MASTER_KEY}"}
    with httpx.Client(base_url=pages_gateway.url, headers=headers, timeout=60) as http:

        def make(team):
            http.post("/admin/teams", json={"name": team})
            body = {"team": team, "role": "member"}
            return http.post("/admin/keys", json=body).raise_for_status().json()["key"]

        yield make


@pytest.fixture
def finished(sandbox):
    """`finished(retrieve)`: the batch at its end; the pages look every five seconds, here the clock is put on."""

    def finished(retrieve):
        def look():
            sandbox.advance(1)
            found = retrieve()
            return found if found.status in ENDED else None

        batch = eventually(look, 120) or retrieve()
        assert batch.status == "completed", batch
        return batch

    return finished
