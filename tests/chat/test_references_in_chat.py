"""File ids inside a chat: the right bytes reach the right provider, and no id goes where it does not belong."""

import pytest

from tests.support.chats import answer_of, ask, file_part, seen, text_part
from tests.support.uploads import raw_client, refusal, upload

NOBODYS = "file-mux-" + "0" * 32


def post_chat(http, model, *parts):
    body = {"model": model, "messages": [{"role": "user", "content": list(parts)}]}
    return http.post("/chat/completions", json=body)


@pytest.fixture
def with_permission(clients):
    """A member that may use providers' own ids, and its httpx client."""
    member = clients.member(permissions=["provider_files"])
    with raw_client(member) as http:
        yield member, http


def test_several_files_in_one_request(member):
    contents = [b"%PDF-1.4 file " + bytes([48 + number]) for number in range(3)]
    ids = [upload(member, content=content, filename=f"{content[-1:].decode()}.pdf").id for content in contents]
    for model in ("mini", "azure"):
        answer = answer_of(ask(member, model, *map(file_part, ids), text_part("Compare them.")))
        expected = [seen(f"{number}.pdf", content) for number, content in enumerate(contents)]
        assert answer == "\n".join([*expected, "Compare them."])


def test_the_same_file_twice_and_in_two_messages(member):
    file = upload(member, content=b"%PDF-1.4 twice")
    messages = [
        {"role": "user", "content": [file_part(file.id), file_part(file.id)]},
        {"role": "assistant", "content": "I see."},
        {"role": "user", "content": [text_part("Again:"), file_part(file.id)]},
    ]
    completion = member.chat.completions.create(model="mini", messages=messages)
    assert answer_of(completion) == "\n".join([seen("a.pdf", b"%PDF-1.4 twice")] * 3 + ["Again:"])


def test_every_role_and_any_depth_is_rewritten_and_nothing_else(recorded_member, recorded_http, recorder):
    """The simulated providers refuse files outside of user messages, so the recorder is asked."""
    ours = upload(recorded_member, "recorded").id
    body = """{"model": "recorded", "messages": [
      {"role": "system", "content": [{"type": "file", "file": {"file_id": "FILE"}}]},
      {"role": "developer", "content": [{"type":"file","file":{"filename":"KEEP","file_id" : "FILE"}}]},
      {"role": "assistant", "content": [{"type": "input_file", "file_id": "FILE"}], "name": "KEEP"},
      {"role": "tool", "tool_call_id": "KEEP", "content": [
        {"type": "text", "text": "file_id: KEEP"},
        {"type": "nested", "results": [[{"content": [{"type": "file", "file": {"file_id": "FILE"}}]}]]}]},
      {"role": "user", "content": [{"type":"file","file":{"file\\u005fid":"FILE"}},
        {"text": "{\\"file_id\\":\\"KEEP\\"}"}]}
    ], "metadata": {"file_id": "KEEP"}, "user": "KEEP", "tools": [{"file_id": "KEEP"}]}"""
    sent = body.replace("FILE", ours).replace("KEEP", ours)
    answer = recorded_http.post("/chat/completions", content=sent.encode())
    assert answer.status_code == 200, answer.text
    theirs = body.replace('"model": "recorded"', '"model": "the-provider\'s-name"')
    theirs = theirs.replace("FILE", "file-of-the-recorder").replace("KEEP", ours)
    assert recorder.chats[0].body.decode() == theirs


@pytest.mark.parametrize("text", [NOBODYS, f'{{"file_id": "{NOBODYS}"}}', f'\\"file_id\\":\\"{NOBODYS}\\"'])
def test_text_that_looks_like_an_id_stays(member, text):
    file = upload(member)
    assert answer_of(ask(member, "mini", text_part(text))) == text
    answer = answer_of(ask(member, "mini", text_part(f"{text} {file.id}"), file_part(file.id)))
    assert answer.endswith(f"\n{text} {file.id}")


@pytest.mark.parametrize("file_id", [NOBODYS, "file-abc123", "assistant-abc123", "", "x" * 300])
def test_an_id_that_is_not_known_is_refused_where_it_stands(http, member, sandbox, file_id):
    file = upload(member)
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "user", "content": [text_part("a"), file_part(file.id), file_part(file_id)]},
    ]
    answer = http.post("/chat/completions", json={"model": "mini", "messages": messages})
    where = "messages[1].content[2].file.file_id"
    message = refusal(answer, 400, "file_not_found", where)
    assert message == f"{where}: No such File object: {file_id[:100]}"
    assert sandbox.calls("openai.chat") == 0


def test_a_providers_own_id_needs_the_permission(http, member, with_permission, sandbox):
    upload(with_permission[0], "mini", content=b"%PDF-1.4 raw")
    [held] = sandbox.files
    refused = post_chat(http, "mini", file_part(held["id"]))
    refusal(refused, 400, "file_not_found", "messages[0].content[0].file.file_id")
    assert sandbox.calls("openai.chat") == 0
    answer = answer_of(ask(with_permission[0], "mini", file_part(held["id"]), text_part("Hello")))
    assert answer == f"{seen('a.pdf', b'%PDF-1.4 raw')}\nHello"


@pytest.mark.parametrize("model", ["mini", "four", "pair"])
def test_another_teams_provider_file_is_refused_even_with_the_permission(member, with_permission, sandbox, model):
    upload(member, "mini")
    [held] = sandbox.files
    answer = post_chat(with_permission[1], model, text_part("a"), file_part(held["id"]))
    where = "messages[0].content[1].file.file_id"
    message = refusal(answer, 400, "file_not_found", where)
    assert message == f"{where}: No such File object: {held['id']}"
    assert sandbox.calls("openai.chat") == 0


def test_an_id_of_ours_and_a_providers_own_in_one_request(with_permission, sandbox):
    member, _ = with_permission
    upload(member, "mini", content=b"%PDF-1.4 raw", filename="raw.pdf")
    [held] = sandbox.files
    file = upload(member, content=b"%PDF-1.4 ours", filename="ours.pdf")
    answer = answer_of(ask(member, "mini", file_part(held["id"]), file_part(file.id)))
    assert answer.splitlines() == [seen("raw.pdf", b"%PDF-1.4 raw"), seen("ours.pdf", b"%PDF-1.4 ours")]


def test_a_file_without_a_replica_for_the_model_says_which_models_have_one(keepless, sandbox):
    file = upload(keepless, "mini,azure")
    where = "messages[0].content[1].file.file_id"
    with raw_client(keepless) as http:
        answer = post_chat(http, "other", text_part("a"), file_part(file.id))
    message = refusal(answer, 400, "file_without_replica", where)
    # `four` and `pair` are served by the same account as `mini`.
    assert message.endswith("model names that have it: mini, four, azure, pair")
    assert sandbox.calls("openai.chat") == 0


def test_of_the_models_that_have_it_only_those_that_the_key_may_use(keepless_clients):
    team = keepless_clients.new_team()
    file = upload(keepless_clients.member(team), "mini,azure")
    with raw_client(keepless_clients.member(team, models=["azure", "other"])) as http:
        answer = post_chat(http, "other", file_part(file.id))
    message = refusal(answer, 400, "file_without_replica", "messages[0].content[0].file.file_id")
    assert message.endswith("model names that have it: azure")


def test_two_files_that_no_single_account_has_together(keepless):
    first, second = upload(keepless, "mini"), upload(keepless, "other")
    with raw_client(keepless) as http:
        answer = post_chat(http, "pair", file_part(first.id), file_part(second.id))
    refusal(answer, 400, "file_without_replica", "messages")


def test_a_model_name_of_the_same_account_needs_no_upload_of_its_own(member, sandbox):
    file = upload(member, "mini", content=b"%PDF-1.4 shared")
    assert seen("a.pdf", b"%PDF-1.4 shared") in answer_of(ask(member, "four", file_part(file.id)))
    assert len(sandbox.files) == 1


def test_each_provider_is_given_its_own_id(member, sandbox):
    """The sandbox knows an id only at its own provider and account, so an answer proves which one was sent."""
    file = upload(member, "mini,other,azure,azure-v1")
    assert len({one["id"] for one in sandbox.files}) == 4
    for model in ("mini", "other", "azure", "azure-v1"):
        assert answer_of(ask(member, model, file_part(file.id))).startswith("[file filename=a.pdf ")
