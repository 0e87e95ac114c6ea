"""docs/providers.md: its tables are what the registry, the capabilities and the formats say."""

import json
import re

import orjson
import pytest

from app import deployments, entries, settings
from app.errors import Unsupported
from app.formats import anthropic, converse, gemini
from app.formats.openai import Chat
from app.providers import bedrock, openai, vertex
from app.providers.http import CHAT_READ_SECONDS
from app.providers.protocol import PURPOSES
from app.providers.registry import REGISTRY
from tests.readme.markdown import ROOT, blocks, tables

PAGE = ROOT / "docs" / "providers.md"
COMPATIBLE = [name for name, kind in REGISTRY.items() if issubclass(kind.params, openai.CompatibleParams)]
OTHERS = [name for name in REGISTRY if name not in COMPATIBLE]
AUTHORIZED_USER = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "t"}


def quoted(names):
    return ", ".join(f"`{name}`" for name in names)


# --- parameters -------------------------------------------------------------------------------------------------


def default_of(kind, name):
    """A parameter's default in the page's words."""
    field = kind.params.model_fields[name]
    own = "" if field.is_required() or field.default is None else f"`{field.default}`"
    if name in kind.defaults:
        return f"`{kind.defaults[name]}`"
    return ", else ".join(filter(None, (quoted(kind.environment.get(name, ())), own)))


def test_every_provider_is_introduced():
    introduced = [name for row in tables(PAGE, "Providers")[0][1:] for name in re.findall(r"`(\w+)`", row[0])]
    assert introduced == list(REGISTRY)


@pytest.mark.parametrize("name", OTHERS)
def test_the_parameters_of_each_provider(name):
    kind = REGISTRY[name]
    documented = {parameter: default for parameter, default, _ in tables(PAGE, name)[0][1:]}
    assert documented == {f"`{one}`": default_of(kind, one) for one in kind.params.model_fields}


def test_the_parameters_of_compatible_servers():
    documented = tables(PAGE, "OpenAI-compatible servers")[0]
    names = ("api_base", "api_key")
    assert documented == [
        ["provider", *(f"`{one}`" for one in names)],
        *([f"`{name}`", *(default_of(REGISTRY[name], one) for one in names)] for name in COMPATIBLE),
    ]
    assert set(openai.CompatibleParams.model_fields) == set(openai.OpenAIParams.model_fields)


def test_the_parameters_of_every_deployment():
    documented = {parameter: default for parameter, default, _ in tables(PAGE, "Parameters of every deployment")[0][1:]}
    assert set(documented) == {f"`{name}`" for name in entries.DEPLOYMENT_PARAMS}
    assert documented["`timeout`"] == f"`{CHAT_READ_SECONDS:.0f}`"
    may_differ = f"{quoted(sorted(entries.NOT_IDENTITY - {'max_tokens'}))} and `max_tokens` may differ"
    assert may_differ in " ".join(PAGE.read_text().split())


@pytest.mark.parametrize("text", blocks(PAGE, "yaml"), ids=lambda text: re.search(r"model: (\w+)/", text)[1])
def test_each_example_is_a_valid_configuration(text, tmp_path, monkeypatch):
    needed = {*re.findall(r"os\.environ/(\w+)", text), "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"}
    for name in needed:
        monkeypatch.setenv(name, json.dumps(AUTHORIZED_USER) if name.endswith("CREDENTIALS") else "a-secret")
    config = tmp_path / "filemux.yaml"
    config.write_text(text)
    found = settings.load(config, settings.Environment(), tmp_path)
    assert len(deployments.account_names(found)) == 1


# --- files ------------------------------------------------------------------------------------------------------


def purposes(found):
    missing = PURPOSES - found
    if len(missing) < len(found):
        return f"all but {', '.join(sorted(missing))}" if missing else "all"
    return ", ".join(sorted(found)) or "none"


def size(count):
    for unit, name in ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB")):
        if count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count / 1_000_000:g} MB"


def test_what_each_provider_does_with_files():
    def row(found):
        if not found.stores_files:
            return ["none", "", "", ""]
        kept = f"{found.file_ttl_seconds // 3600} h" if found.file_ttl_seconds else "until deleted"
        return [purposes(found.purposes), purposes(found.readable), size(found.max_file_bytes), kept]

    documented = {name: cells for name, *cells in tables(PAGE, "Files")[0][1:]}
    assert documented == {f"`{name}`": row(kind.capabilities) for name, kind in REGISTRY.items()}


OFFICE = "application/vnd.openxmlformats-officedocument."
TYPES = {
    "PDF": ["application/pdf"],
    "text": ["text/plain"],
    "markdown": ["text/markdown"],
    "html": ["text/html"],
    "csv": ["text/csv"],
    "other text": ["text/x-python"],
    "json": ["application/json"],
    "docx, xlsx": [f"{OFFICE}wordprocessingml.document", f"{OFFICE}spreadsheetml.sheet"],
    "png, jpeg, gif, webp": ["image/png", "image/jpeg", "image/gif", "image/webp"],
    "wav, mp3": ["audio/wav", "audio/mpeg"],
    "mp4": ["video/mp4"],
    "anything else": ["application/octet-stream"],
}
NOVA, CLAUDE = "us.amazon.nova-lite-v1:0", "us.anthropic.claude-sonnet-4-5-v1:0"
# A column's heading → each capabilities and model that it speaks of.
COLUMNS = {
    "`openai`, `azure`": [(REGISTRY["openai"].capabilities, ""), (REGISTRY["azure"].capabilities, "")],
    "`anthropic`": [(REGISTRY["anthropic"].capabilities, "")],
    "`gemini`": [(REGISTRY["gemini"].capabilities, "")],
    "`vertex_ai`": [(vertex.CAPABILITIES, "")],
    "`vertex_ai` without a bucket": [(vertex.WITHOUT_BUCKET, "")],
    "`bedrock`: Nova": [(bedrock.CAPABILITIES, NOVA)],
    "`bedrock`: other models, or without a bucket": [
        (bedrock.CAPABILITIES, CLAUDE),
        (bedrock.WITHOUT_BUCKET, CLAUDE),
        (bedrock.WITHOUT_BUCKET, NOVA),
    ],
    "OpenAI-compatible servers": [(REGISTRY[name].capabilities, "") for name in COMPATIBLE],
}


def carried(capabilities, model, mime_type):
    """How a file travels, in the page's words."""
    carriage = capabilities.carriage(model, mime_type)
    limit = f", {size(capabilities.max_inline_bytes(mime_type))}"
    return carriage + (limit if carriage in ("inline", "text") else "")


def test_how_a_file_travels():
    def cell(mime_types, column):
        [word] = {carried(*one, mime_type) for one in column for mime_type in mime_types}
        return word

    documented = tables(PAGE, "How a file travels")[0]
    assert documented == [
        ["type", *COLUMNS],
        *([name, *(cell(types, column) for column in COLUMNS.values())] for name, types in TYPES.items()),
    ]


# --- chats ------------------------------------------------------------------------------------------------------

FORMATS = {
    "anthropic": (lambda chat: anthropic.translate(chat, anthropic.Dialect(False, 4096)), "claude-sonnet-5"),
    "gemini, vertex_ai": (gemini.translate, "gemini-2.5-flash"),
    "bedrock": (converse.translate, NOVA),
}
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk=", "detail": "high"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
# A row → requests that differ from a plain one by nothing else.
SAMPLES = {
    "`max_completion_tokens`, `max_tokens`": [{"max_completion_tokens": 9}, {"max_tokens": 9}],
    "`temperature`": [{"temperature": 0.5}],
    "`top_p`": [{"top_p": 0.5}],
    "`stop`": [{"stop": "end"}, {"stop": ["end"]}],
    "`n`": [{"n": 2}],
    "`seed`": [{"seed": 7}],
    "`presence_penalty`": [{"presence_penalty": 0.5}],
    "`frequency_penalty`": [{"frequency_penalty": 0.5}],
    "`logit_bias`": [{"logit_bias": {"50256": -100}}],
    "`logprobs`, `top_logprobs`": [{"logprobs": True, "top_logprobs": 2}],
    "`response_format`: `json_schema`": [{"response_format": SCHEMA}],
    "`response_format`: `json_object`": [{"response_format": {"type": "json_object"}}],
    "`reasoning_effort`": [{"reasoning_effort": "low"}],
    "`tools`": [{"tools": TOOLS}],
    "`tool_choice`": [{"tools": TOOLS, "tool_choice": "required"}],
    "`parallel_tool_calls: false`": [{"tools": TOOLS, "parallel_tool_calls": False}],
    "`service_tier`": [{"service_tier": "default"}],
    "`user`, `safety_identifier`": [{"user": "u-1"}, {"safety_identifier": "u-1"}],
    "`metadata`": [{"metadata": {"run": "7"}}],
    "`store: true`": [{"store": True}],
    "`detail` of an image": [{"messages": [{"role": "user", "content": [PICTURE]}]}],
    "`name` of a participant": [{"messages": [{"role": "user", "content": "hi", "name": "Ada"}]}],
    "anything else (`verbosity`, `prediction` …)": [{"verbosity": "low"}, {"prediction": {"type": "content"}}],
}


def translated(column, sample, *, drop_params):
    """What the vendor gets, as JSON, and what was left out."""
    translate, model = FORMATS[column]
    body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], **sample})
    chat = Chat.read(body, provider=column, provider_model=model, files={}, drop_params=drop_params)
    return json.dumps(translate(chat)), chat.parameters.dropped


def test_the_parameters_are_all_there():
    documented = tables(PAGE, "Parameters")[0]
    assert documented[0] == ["parameter", *FORMATS]
    assert [row[0] for row in documented[1:]] == list(SAMPLES)


@pytest.mark.parametrize("row", tables(PAGE, "Parameters")[0][1:], ids=lambda row: row[0])
def test_what_becomes_of_each_parameter(row):
    label, *cells = row
    for column, cell in zip(FORMATS, cells, strict=True):
        for sample in SAMPLES[label]:
            if cell == "refused":
                with pytest.raises(Unsupported):
                    translated(column, sample, drop_params=False)
            sent, dropped = translated(column, sample, drop_params=cell == "refused")
            if cell == "refused" or cell.startswith("left out"):
                assert dropped, column
            else:
                assert dropped == [], column
                for name in re.findall(r"`([\w.]+)`", cell):
                    assert f'"{name.rpartition(".")[2]}"' in sent, (column, name)
