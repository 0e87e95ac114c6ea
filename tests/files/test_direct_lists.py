"""The lists of accounts: through several accounts of one model name, without what is, or will be, another team's."""

import pytest

from app.files.direct.listing import MAX_REMEMBERED, Cursors
from tests.support.batches import create as create_batch
from tests.support.batches import jsonl, line
from tests.support.replicas import Replicas
from tests.support.uploads import PDF, upload


def create(client, model):
    return client.files.create(file=("a.pdf", PDF), purpose="user_data", extra_body={"model": model})


def listed(client, **query):
    return [file.id for file in client.files.list(extra_query=query)]


def test_the_accounts_of_a_model_name_one_after_the_other(clients):
    permitted = clients.member(permissions=["provider_files"])
    made = {create(permitted, "mini").id for _ in range(3)} | {create(permitted, "other").id for _ in range(2)}
    assert len(made) == 5
    pages = list(permitted.files.list(limit=2, extra_query={"model": "pair"}).iter_pages())
    files = [file for page in pages for file in page.data]
    assert [file.filemux["account"] for file in files] == ["openai-first"] * 3 + ["openai-second"] * 2
    assert [page.has_more for page in pages] == [True, True, False]
    assert listed(permitted, model="pair", after=files[2].id) == [file.id for file in files[3:]]
    assert listed(permitted, model="pair", after=files[0].id) == [file.id for file in files[1:]]
    for file in files:
        assert permitted.files.delete(file.id).deleted


def test_the_batches_of_all_accounts_of_a_model_name(clients, sandbox):
    permitted = clients.member(permissions=["provider_files"])
    for model in ("mini", "other"):
        content = jsonl([line("one", model, "slow:80000")])
        file = permitted.files.create(file=("a.jsonl", content), purpose="batch", extra_body={"model": model})
        create_batch(permitted, file)
    listed = list(permitted.batches.list(limit=1, extra_query={"model": "pair"}))
    assert [one.filemux["account"] for one in listed] == ["openai-first", "openai-second"]


async def test_a_file_whose_row_does_not_know_it_yet_is_not_shown(clients, member, database, sandbox):
    replicas = Replicas(database, upload(member, "mini").id)
    assert listed(clients.admin, model="mini") == []
    await replicas.set(state="'pending'", provider_file_id="NULL", attempts="1", due_at="now() + interval '1 hour'")
    assert len(sandbox.files) == 1
    assert listed(clients.admin, model="mini") == []
    mine = clients.member(permissions=["provider_files"])
    made = create(mine, "other")
    assert listed(mine, model="other") == [], "of the same name, and not older"
    await replicas.set(state="'deleting'", due_at="now() + interval '1 hour'")
    assert listed(mine, model="other") == [made.id]


@pytest.mark.parametrize("after", ["file-none", "file-mux-" + "0" * 32, "../models"])
def test_a_page_follows_a_file_of_the_list_alone(clients, after):
    answer = clients.http.get("/v1/files", params={"model": "mini", "after": after})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")


def test_only_so_many_places_are_remembered():
    cursors = Cursors()
    for number in range(MAX_REMEMBERED + 1):
        cursors.keep((number,), str(number))
    assert cursors.take((0,)) is None
    assert cursors.take((1,)) == "1"
    cursors.forget((1,))
    assert cursors.take((1,)) is None
