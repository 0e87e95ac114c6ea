"""What each provider costs: a small chat in its format with one client, and translating a large one."""

import json
import time
from collections.abc import Iterator, Mapping
from statistics import median

from app.providers.protocol import ChatRequest, Provider
from app.providers.registry import REGISTRY
from app.providers.translated import Translating
from benchmarks.chat import body
from benchmarks.client import wrk
from benchmarks.processes import Bench, gateway
from benchmarks.report import Row, Target

ADDED = Target("added_p50_ms", 1.0)
TRANSLATED = Target("translation_ms", 2.0)
PAYLOAD_BYTES = 100_000
ROUNDS = 200

# Model name → its entry, `{fake}` standing for the fake provider, and the path that its chats take there.
AWS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
VERTEX = {"vertex_project": "p", "vertex_access_token": "token", "api_base": "{fake}"}
ENTRIES = {
    "openai": ({"model": "openai/gpt-4o-mini", "api_key": "key", "api_base": "{fake}/v1"}, "/v1/chat/completions"),
    "azure": ({"model": "azure/gpt-4o", "api_key": "key", "api_base": "{fake}"}, "/openai/v1/chat/completions"),
    "anthropic": ({"model": "anthropic/claude-sonnet-4-5", "api_key": "key", "api_base": "{fake}"}, "/v1/messages"),
    "gemini": ({"model": "gemini/gemini-2.0-flash", "api_key": "key", "api_base": "{fake}"}, "/v1/m:generateContent"),
    "vertex_ai": ({"model": "vertex_ai/gemini-2.0-flash", **VERTEX}, "/v1/m:generateContent"),
    "bedrock": (
        {"model": "bedrock/amazon.nova-lite-v1:0", **AWS, "aws_bedrock_runtime_endpoint": "{fake}"},
        "/model/m/converse",
    ),
}


def rows(bench: Bench) -> Iterator[Row]:
    """Each provider's chat beside the same bytes sent straight to the fake provider; then the translations."""
    fake = bench.provider.url.removesuffix("/v1")
    entries = {name: at(fake, entry) for name, (entry, _) in ENTRIES.items()}
    with gateway(bench.provider, entries=entries) as server:
        for name, (_, path) in ENTRIES.items():
            payload = body(None, model=name)
            direct = wrk(f"{fake}{path}", payload, clients=1, seconds=bench.seconds)
            seen = wrk(f"{server.url}/chat/completions", payload, clients=1, seconds=bench.seconds)
            seen["added_p50_ms"] = seen["p50_ms"] - direct["p50_ms"]
            yield Row("providers", f"{name}, clients 1", seen, (ADDED,))
            busy = wrk(f"{server.url}/chat/completions", payload, clients=64, seconds=bench.seconds)
            yield Row("providers", f"{name}, clients 64", busy)
    for name, entry in entries.items():
        provider = provider_of(name, entry)
        if isinstance(provider, Translating):
            figures = {"translation_ms": _translation_ms(provider)}
            yield Row("providers", f"{name}, translating 100 KB", figures, (TRANSLATED,))


def at(fake: str, entry: Mapping[str, str]) -> dict[str, str]:
    """An entry that has the fake provider at this address."""
    return {key: value.format(fake=fake) for key, value in entry.items()}


def provider_of(name: str, entry: Mapping[str, str]) -> Provider:
    """The provider of an entry, for what it does without a connection."""
    kind = REGISTRY[name]
    params = {key: value for key, value in entry.items() if key != "model"}
    return kind.provider(kind.params.model_validate(params), None)


def _translation_ms(provider: Translating) -> float:
    """The middle time from OpenAI's bytes to the provider's."""
    model = "gemini-2.0-flash"
    turns = [{"role": role, "content": "Word after word after word. " * 36} for role in ("user", "assistant")]
    messages = turns * (PAYLOAD_BYTES // len(json.dumps(turns))) + turns[:1]
    request = ChatRequest(model, json.dumps({"model": model, "messages": messages}).encode())
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        provider.translated(request)
        taken.append(time.perf_counter() - started)
    return median(taken) * 1000
