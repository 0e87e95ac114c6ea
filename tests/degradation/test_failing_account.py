"""A provider that hangs or fails costs only its own requests, and is found again by itself."""

import contextlib
import json

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.providers.limits import Limits
from app.sandbox.store import account_digest
from tests.conftest import MASTER_KEY, Clients, configuration
from tests.support.chats import answer_of, ask, text_part
from tests.support.sandbox import eventually
from tests.support.uploads import upload
from tests.support.wire import Line

HELLO = text_part("hello")
LIMIT = 2
ACCOUNT = "openai-first"
FAILURES_TO_OPEN = Limits.allowed_fails + 1


@pytest.fixture(scope="module")
def models(sandbox_process):
    """The model list, with accounts that may fail as often as they may by default."""
    found = configuration(sandbox_process.url)["model_list"]
    for entry in found:
        del entry["litellm_params"]["allowed_fails"]
    return found


@pytest.fixture(scope="module")
def limited(make_gateway, models):
    """A gateway that makes two calls at once to the account of mini, four and one half of pair."""
    first, *others = models
    models = [first | {"litellm_params": {**first["litellm_params"], "max_parallel_requests": LIMIT}}, *others]
    with make_gateway(model_list=models) as running:
        yield running


@pytest.fixture(scope="module")
def failing(make_gateway, models):
    """A gateway of two workers whose circuits nobody else opens."""
    with make_gateway(workers=2, model_list=models) as running:
        yield running


@pytest.fixture
def client_of(sandbox):
    """The admin's client of a gateway: one connection at a time, and so one worker."""
    with contextlib.ExitStack() as stack:

        def client_of(gateway):
            clients = stack.enter_context(contextlib.closing(Clients(gateway.url)))
            lasting = httpx.Client(limits=httpx.Limits(keepalive_expiry=None))
            return clients.client(MASTER_KEY, http_client=lasting)

        yield client_of


def hello(client, model_name):
    return answer_of(ask(client, model_name, HELLO)) == "hello"


def metric(gateway, name):
    """The account's value."""
    text = httpx.get(f"{gateway.url}/metrics").text
    samples = (one for family in text_string_to_metric_families(text) for one in family.samples)
    return next(one.value for one in samples if one.name == name and one.labels["account"] == ACCOUNT)


def test_a_provider_that_hangs_holds_up_only_its_own_requests(limited, client_of, sandbox):
    client = client_of(limited)
    sandbox.fault("openai", "chat", delay_seconds=600, times=LIMIT)
    body = json.dumps({"model": "mini", "messages": [{"role": "user", "content": [HELLO]}]}).encode()
    with contextlib.ExitStack() as callers:
        for _ in range(LIMIT):
            line = callers.enter_context(Line(limited.url))
            line.send_head("POST", "/v1/chat/completions", MASTER_KEY, content_length=len(body))
            line.send(body)
        assert eventually(lambda: sandbox.calls("openai.chat") == LIMIT)
        with pytest.raises(openai.RateLimitError) as failure:
            hello(client, "four")
        assert failure.value.response.headers["retry-after"] == "1"
        assert f"{LIMIT} calls to the account {ACCOUNT} are under way" in failure.value.message
        assert all(hello(client, model_name) for model_name in ["other", "azure", *["pair"] * 8])
    assert eventually(lambda: upload(client, "mini").bytes)
    assert hello(client, "mini")


def test_streams_count_until_they_end(limited, client_of, sandbox):
    client = client_of(limited)
    sandbox.fault("openai", "stream_chat", bytes_per_second=400, times=LIMIT)
    streams = [ask(client, "mini", text_part("hello " * 300), stream=True) for _ in range(LIMIT)]
    with pytest.raises(openai.RateLimitError):
        hello(client, "mini")
    for stream in streams:
        stream.close()

    def answers():
        with contextlib.suppress(openai.RateLimitError):
            return hello(client, "mini")

    assert eventually(answers)


def failure_of(client, model_name):
    with pytest.raises(openai.InternalServerError) as failure:
        hello(client, model_name)
    assert failure.value.status_code == 503
    return failure.value


def test_an_account_that_keeps_failing_is_left_alone_until_it_answers(failing, client_of, sandbox):
    client = client_of(failing)
    assert metric(failing, "filemux_account_circuit_open") == 0
    sandbox.fault("openai", "chat", status=500, times=-1, account=account_digest("sk-first"))
    for _ in range(FAILURES_TO_OPEN):
        assert "the provider answered 500" in failure_of(client, "mini").message

    def left_alone():
        """What one of its chats is told that is not tried."""
        calls = sandbox.calls("openai.chat")
        failure = failure_of(client, "four")
        return failure if sandbox.calls("openai.chat") == calls else None

    failure = eventually(left_alone)
    assert f"the account {ACCOUNT} keeps failing; it is tried again in" in failure.message
    assert int(failure.response.headers["retry-after"]) >= 1
    assert metric(failing, "filemux_account_circuit_open") == 1
    assert all(hello(client, model_name) for model_name in ["other", *["pair"] * 4])
    sandbox.heal()
    # An upload waits for the next try, as for any provider that says when to come again.
    assert upload(client, "mini").bytes
    assert hello(client, "four")
    assert metric(failing, "filemux_account_circuit_open") == 0
    assert metric(failing, "filemux_account_circuit_openings_total") == 1
    for said in ("an account keeps failing", "an account answers again"):
        assert sum(said in line and ACCOUNT in line for line in failing.log) == 1
