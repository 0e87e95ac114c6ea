"""/healthz, /readyz and /metrics: no key needed, and every counter moves."""

import contextlib

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Clients
from tests.support.sandbox import eventually
from tests.support.uploads import PDF, upload

CHAT = {"model": "mini", "messages": [{"role": "user", "content": "hello"}]}


def samples(gateway):
    """Sample's name and labels → value, as Prometheus would read them."""
    text = httpx.get(f"{gateway.url}/metrics").raise_for_status().text
    return {
        (one.name, *sorted(one.labels.items())): one.value
        for metric in text_string_to_metric_families(text)
        for one in metric.samples
    }


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def counted(make_gateway, request):
    """A gateway whose metrics nobody else moves."""
    with make_gateway(workers=request.param) as running:
        yield running


@pytest.fixture
def counted_clients(counted, sandbox):
    assert sandbox.files == []
    with contextlib.closing(Clients(counted.url)) as made:
        yield made


@pytest.mark.parametrize(("path", "status"), [("/healthz", "ok"), ("/readyz", "ready"), ("/v1/healthz", "ok")])
def test_health_needs_no_key(gateway, path, status):
    answer = httpx.get(f"{gateway.url}{path}")
    assert (answer.status_code, answer.json()) == (200, {"status": status})


def test_metrics_are_in_prometheus_format(gateway):
    answer = httpx.get(f"{gateway.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert samples(gateway)


def moved(counted, act, route, requests=1):
    """What an act of so many requests adds to each sample."""
    before = samples(counted)

    def counts():
        return {name: value - before.get(name, 0) for name, value in samples(counted).items()}

    act()
    # A request is counted when it has been answered.
    assert eventually(lambda: total(counts(), "filemux_requests_total", route=route) == requests)
    return counts()


def total(changes, name, **labels):
    """The sum of a metric's changes over whatever other labels it has."""
    wanted = set(labels.items())
    return sum(value for (found, *rest), value in changes.items() if found == name and wanted <= set(rest))


def test_an_upload_moves_the_counters(counted, counted_clients):
    member = counted_clients.member()
    changes = moved(counted, lambda: [upload(member, "mini,azure") for _ in range(10)], "files.upload", 10)
    assert total(changes, "filemux_uploads_total", outcome="ok") == 10
    assert total(changes, "filemux_upload_bytes_total") == 10 * len(PDF)
    for provider in ("openai", "azure"):
        assert total(changes, "filemux_replica_uploads_total", provider=provider, outcome="ok") == 10
    assert total(changes, "filemux_requests_total", route="files.upload", status="200") == 10
    assert total(changes, "filemux_provider_seconds_count", operation="upload_file") == 20


def test_a_refused_upload_is_counted_by_its_reason(counted, counted_clients, sandbox):
    member = counted_clients.member()
    sandbox.fault("azure", "upload_file", status=400, times=1)

    def refused():
        with pytest.raises(Exception, match="azure"):
            upload(member, "mini,azure")

    changes = moved(counted, refused, "files.upload")
    assert total(changes, "filemux_uploads_total") == 1
    assert total(changes, "filemux_uploads_total", outcome="ok") == 0
    assert total(changes, "filemux_replica_uploads_total", provider="azure", outcome="failed") == 1


def test_a_delete_moves_the_counters(counted, counted_clients):
    member = counted_clients.member()
    file = upload(member, "mini,azure")
    changes = moved(counted, lambda: member.files.delete(file.id), "files.delete")
    for provider in ("openai", "azure"):
        # Its worker may be deleting what other tests left behind.
        assert total(changes, "filemux_replica_deletes_total", provider=provider, outcome="ok") >= 1
    assert total(changes, "filemux_requests_total", route="files.delete", status="200") == 1


def test_a_chat_moves_the_counters_the_gateways_time_apart_from_the_providers(counted, counted_clients):
    member = counted_clients.member()

    def chats():
        for _ in range(5):
            member.chat.completions.create(**CHAT)
            for _ in member.chat.completions.create(**CHAT, stream=True):
                pass

    changes = moved(counted, chats, "chat.complete", 10)
    assert total(changes, "filemux_chats_total", model_name="mini", outcome="ok") == 10
    assert total(changes, "filemux_requests_total", route="chat.complete", status="200") == 10
    assert total(changes, "filemux_chat_gateway_seconds_count") == 10
    assert 0 < total(changes, "filemux_chat_gateway_seconds_sum") < 60
    assert total(changes, "filemux_provider_seconds_count", operation="chat") == 5
    assert total(changes, "filemux_provider_seconds_count", operation="stream_chat") == 5


def test_the_database_is_counted_by_provider_and_state(make_gateway, sandbox):
    sandbox.fault("openai", "delete_file", status=503, times=-1)
    # Its first scrape counts; another one soon after would get the same numbers.
    with make_gateway() as first, contextlib.closing(Clients(first.url)) as clients:
        member = clients.member()
        upload(member, "azure")
        member.files.delete(upload(member, "mini").id)
        found = samples(first)
    replicas = {name[1:]: value for name, value in found.items() if name[0] == "filemux_replicas"}
    assert replicas[("provider", "azure"), ("state", "stored")] >= 1
    assert replicas[("provider", "openai"), ("state", "deleting")] >= 1
    assert found[("filemux_backlog",)] >= 1


def test_no_label_holds_what_a_caller_sends(counted, counted_clients):
    secret = "tell-tale-7391"
    headers = {"authorization": f"Bearer {counted_clients.new_key()['key']}"}
    for path in (f"/{secret}", f"/v1/files/{secret}", f"/v1/models/{secret}"):
        counted_clients.http.get(path, headers=headers)
    counted_clients.http.post("/v1/chat/completions", json={**CHAT, "model": secret}, headers=headers)
    counted_clients.http.request(secret.upper(), "/v1/files", headers=headers)
    upload(counted_clients.member(), "mini", filename=f"{secret}.pdf")
    assert total(samples(counted), "filemux_requests_total") >= 6
    assert secret not in httpx.get(f"{counted.url}/metrics").text.lower()
