"""What the tests of chats share."""

import contextlib

import pytest

from tests.conftest import Clients, configuration
from tests.support.recorder import recording
from tests.support.uploads import raw_client


@pytest.fixture
def http(member):
    """httpx with the key of `member`, for what the SDK would not send."""
    with raw_client(member) as opened:
        yield opened


@pytest.fixture(scope="session")
def recorder_process():
    with recording() as recorder:
        yield recorder


@pytest.fixture(scope="session")
def recorded_gateway(make_gateway, sandbox_process, recorder_process):
    """A gateway with the model names of all tests, `recorded`, which is served by the recorder, and `mixed`, by the
    account of `other` and by a server without a Files API."""
    content = configuration(sandbox_process.url)
    by_name = {entry["model_name"]: entry["litellm_params"] for entry in content["model_list"]}
    params = {"model": "openai/the-provider's-name", "api_key": "sk-r", "account": "recorder"}
    further = [
        ("recorded", {**params, "api_base": recorder_process.url}),
        ("mixed", by_name["other"]),
        ("mixed", by_name["vllm"]),
    ]
    model_list = [*content["model_list"], *({"model_name": name, "litellm_params": one} for name, one in further)]
    with make_gateway(model_list=model_list) as running:
        yield running


@pytest.fixture
def recorder(recorder_process):
    recorder_process.reset()
    return recorder_process


@pytest.fixture
def recorded_clients(recorded_gateway, sandbox):
    """Clients of the gateway in front of the recorder."""
    with contextlib.closing(Clients(recorded_gateway.url)) as opened:
        yield opened


@pytest.fixture
def recorded_member(recorded_clients):
    return recorded_clients.member()


@pytest.fixture
def recorded_http(recorded_member):
    """httpx with a member's key of that gateway."""
    with raw_client(recorded_member) as opened:
        yield opened


@pytest.fixture
def keepless_clients(keepless_gateway, sandbox):
    """Clients of a gateway that keeps no sources, so that it makes no replica after the upload."""
    with contextlib.closing(Clients(keepless_gateway.url)) as opened:
        yield opened


@pytest.fixture
def keepless(keepless_clients):
    """The official SDK with a member key of that gateway."""
    return keepless_clients.member()
