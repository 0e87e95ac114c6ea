"""All the ways in which an upload says where it is to go (design §5)."""

import pytest

from tests.support.uploads import PDF, PURPOSE, TARGETS, file_part, part, post_form, raw_client, refusal, sha256, upload

HEADER = "x-filemux-target-model-names"
EXPIRY = (part("expires_after[anchor]", "created_at"), part("expires_after[seconds]", "3600"))


def held(sandbox):
    """(provider, digest) of everything that the providers hold."""
    return sorted((one["provider"], one["sha256"]) for one in sandbox.files)


def providers(sandbox):
    return [provider for provider, _ in held(sandbox)]


@pytest.mark.parametrize(
    "fields",
    [
        [("target_model_names", "mini,azure")],
        [("target_model_names", " mini , azure,, mini ")],
        [("target_model_names", "mini"), ("target_model_names", "azure")],
        [("target_model_names", "mini,four"), ("target_model_names", "azure")],
        [("target_model_names[]", "mini"), ("target_model_names[]", "azure")],
        [("target_model_names[0]", "mini"), ("target_model_names[1]", "azure")],
    ],
    ids=["comma", "spaces", "repeated", "mixed", "brackets", "indexed"],
)
def test_as_form_fields(http, sandbox, fields):
    answer = post_form(http, PURPOSE, *(part(*field) for field in fields), file_part())
    assert answer.status_code == 200, answer.text
    assert providers(sandbox) == ["azure", "openai"]


@pytest.mark.parametrize(
    "options",
    [
        {"params": {"target_model_names": "mini,azure"}},
        {"params": {"target_model_names": ["mini", "azure"]}},
        {"params": {"target_model_names[]": ["mini", "azure"]}},
        {"headers": {HEADER: "mini, azure"}},
    ],
    ids=["query", "repeated query", "brackets in query", "header"],
)
def test_as_query_or_header(http, sandbox, options):
    http.headers.update(options.pop("headers", {}))
    answer = post_form(http, PURPOSE, file_part(), **options)
    assert answer.status_code == 200, answer.text
    assert providers(sandbox) == ["azure", "openai"]


@pytest.mark.parametrize(
    "options",
    [
        {"extra_body": {"target_model_names": "mini,azure"}},
        {"extra_body": {"target_model_names": ["mini", "azure"]}},
        {"extra_query": {"target_model_names": "mini,azure"}},
        {"extra_headers": {HEADER: "mini,azure"}},
    ],
    ids=["string", "list", "query", "header"],
)
def test_as_the_sdk_sends_them(member, sandbox, options):
    member.files.create(file=("a.pdf", PDF), purpose="user_data", **options)
    assert providers(sandbox) == ["azure", "openai"]


def test_a_field_says_more_than_the_query_and_the_query_more_than_the_header(http, sandbox):
    http.headers[HEADER] = "azure,other"
    query = {"target_model_names": "azure"}
    assert post_form(http, PURPOSE, part("target_model_names", "mini"), file_part(), params=query).status_code == 200
    assert providers(sandbox) == ["openai"]
    assert post_form(http, PURPOSE, file_part(), params=query).status_code == 200
    assert providers(sandbox) == ["azure", "openai"]


@pytest.mark.parametrize(
    "parts",
    [
        (file_part(), PURPOSE, TARGETS),
        (PURPOSE, file_part(), TARGETS),
        (TARGETS, file_part(), PURPOSE),
        (PURPOSE, file_part(), part("target_model_names[]", "mini"), part("target_model_names[]", "azure")),
    ],
    ids=["file first, as Node sends it", "targets last", "purpose last", "targets last, in brackets"],
)
def test_fields_may_follow_the_file(http, sandbox, parts):
    answer = post_form(http, *parts)
    assert answer.status_code == 200, answer.text
    assert held(sandbox) == [("azure", sha256(PDF)), ("openai", sha256(PDF))]


@pytest.mark.parametrize("size", [100, 3 * 1024 * 1024], ids=["small", "large"])
async def test_a_field_after_the_file_counts_although_the_fan_out_had_begun(http, sandbox, rows, filename, size):
    content = b"x" * size
    answer = post_form(http, PURPOSE, TARGETS, file_part(content, filename), *EXPIRY)
    assert answer.status_code == 200, answer.text
    file = answer.json()
    assert file["expires_at"] == file["created_at"] + 3600
    assert held(sandbox) == [("azure", sha256(content)), ("openai", sha256(content))]
    assert await rows.file_ids(filename) == [file["id"]]


async def test_a_target_after_the_file_adds_to_those_before_it(http, sandbox, rows, filename):
    targets = (part("target_model_names[]", "mini"), part("target_model_names[]", "azure"))
    answer = post_form(http, PURPOSE, targets[0], file_part(PDF, filename), targets[1])
    assert answer.status_code == 200, answer.text
    assert held(sandbox) == [("azure", sha256(PDF)), ("openai", sha256(PDF))]
    assert await rows.file_ids(filename) == [answer.json()["id"]]
    assert [row["model_name"] for row in await rows.mappings(filename)] == ["azure", "mini"]


async def test_a_bad_field_after_the_file_takes_back_what_had_begun(http, sandbox, rows, filename):
    late = part("expires_after[anchor]", "never")
    answer = post_form(http, PURPOSE, TARGETS, file_part(b"x" * 3_000_000, filename), late)
    refusal(answer, 400, "invalid_expires_after", "expires_after[anchor]")
    assert await rows.forgotten(filename)
    assert sandbox.files == []


ALL_WAYS = {
    "field": {"parts": [part("target_model_names", "*")]},
    "query": {"params": {"target_model_names": "*"}},
    "header": {"headers": {HEADER: "*"}},
    "defaults of the team": {},
}


@pytest.mark.parametrize("way", ALL_WAYS.values(), ids=ALL_WAYS)
def test_all_model_names_that_the_key_may_use(clients, sandbox, way):
    team = clients.new_team(default_target_model_names=[] if way else ["*"])
    with raw_client(clients.member(team, models=["mini", "azure", "vllm"])) as http:
        answer = post_one_way(http, way)
    targets = answer.json()["filemux"]["targets"]
    assert [one["model_names"] for one in targets] == [["mini"], ["azure"]]
    assert providers(sandbox) == ["azure", "openai"]


def test_all_model_names_are_named_alone(http, sandbox):
    answer = post_form(http, PURPOSE, part("target_model_names", "mini,*"), file_part())
    assert "send it alone" in refusal(answer, 400, "contradicting_targets", "target_model_names")
    assert sandbox.calls("openai.upload_file") == 0


def test_the_defaults_of_a_team(clients, sandbox):
    member = clients.member(clients.new_team(default_target_model_names=["mini", "azure"]))
    member.files.create(file=("a.pdf", PDF), purpose="user_data")
    assert providers(sandbox) == ["azure", "openai"]
    sandbox.reset()
    upload(member, "azure-v1")
    assert providers(sandbox) == ["azure"]


@pytest.fixture(scope="module")
def gateway_with_defaults(make_gateway):
    with make_gateway(filemux={"default_target_model_names": ["azure", "other"]}) as running:
        yield running


@pytest.fixture
def with_defaults(gateway_with_defaults, clients_of):
    return clients_of(gateway_with_defaults)


def test_the_configured_defaults(with_defaults, sandbox):
    with_defaults.member().files.create(file=("a.pdf", PDF), purpose="user_data")
    assert providers(sandbox) == ["azure", "openai"]


def test_a_teams_defaults_say_more_than_the_configured_ones(with_defaults, sandbox):
    member = with_defaults.member(with_defaults.new_team(default_target_model_names=["mini"]))
    member.files.create(file=("a.pdf", PDF), purpose="user_data")
    assert providers(sandbox) == ["openai"]


def test_of_the_defaults_only_what_the_key_may_use(with_defaults, sandbox):
    with_defaults.member(models=["azure", "four"]).files.create(file=("a.pdf", PDF), purpose="user_data")
    assert providers(sandbox) == ["azure"]


def test_no_target_at_all_is_told_every_way_of_naming_one(clients, sandbox):
    with raw_client(clients.member(models=["mini", "azure"])) as http:
        message = refusal(post_form(http, PURPOSE, file_part()), 400, "no_targets", "target_model_names")
    for way in ("target_model_names", "form field", "query", HEADER, "defaults", "mini, azure"):
        assert way in message
    assert "four" not in message
    assert sandbox.calls("openai.upload_file") == 0


MODEL_WAYS = [
    {"parts": [part("model", "mini")]},
    {"params": {"model": "mini"}},
    *({"headers": {name: "mini"}} for name in ("x-filemux-model", "x-litellm-model", "x-dheera_ai-model")),
]
PROVIDER_WAYS = [
    *({"parts": [part(name, "openai")]} for name in ("provider", "custom_llm_provider")),
    *({"params": {name: "openai"}} for name in ("provider", "custom_llm_provider")),
    {"headers": {"custom-llm-provider": "openai"}},
]


def post_one_way(http, way, *parts):
    http.headers.update(way.get("headers", {}))
    return post_form(http, PURPOSE, *parts, *way.get("parts", ()), file_part(), params=way.get("params"))


@pytest.mark.parametrize("way", MODEL_WAYS, ids=str)
def test_targets_and_a_model_contradict_each_other(http, sandbox, way):
    message = refusal(post_one_way(http, way, TARGETS), 400, "contradicting_targets", "model")
    assert "target_model_names" in message
    assert sandbox.calls("openai.upload_file") == 0


@pytest.mark.parametrize("way", MODEL_WAYS, ids=str)
def test_a_model_is_one_account(http, sandbox, way):
    answer = post_one_way(http, way)
    assert answer.status_code == 200, answer.text
    assert answer.json()["filemux"] == {"provider": "openai", "account": "openai-first"}
    assert held(sandbox) == [("openai", sha256(PDF))]


@pytest.mark.parametrize("way", PROVIDER_WAYS, ids=str)
def test_a_provider_is_its_own_files_api(http, clients, sandbox, way):
    """Not for every key; and not at a gateway that has no account for it."""
    refusal(post_one_way(http, way), 403, "permission_denied")
    with raw_client(clients.admin) as admin:
        refusal(post_one_way(admin, way), 400, "unknown_provider", "provider")
    assert sandbox.calls("openai.upload_file") == 0
