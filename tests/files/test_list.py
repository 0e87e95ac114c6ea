"""GET /files: keyset pages, newest first."""

import openai
import pytest

from tests.conftest import Clients
from tests.support.uploads import BATCH_LINE, raw_client, refusal, upload

FILES = 25
BATCH_EVERY = 5


@pytest.fixture(scope="module")
def shelf(gateway):
    """A client whose team has 25 files, every fifth for batches, and their ids, newest first."""
    clients = Clients(gateway.url)
    client = clients.member()
    purposes = ["user_data" if number % BATCH_EVERY else "batch" for number in range(FILES)]
    ids = [
        upload(client, "mini", BATCH_LINE, filename=f"{number}.jsonl", purpose=purpose).id
        for number, purpose in enumerate(purposes)
    ]
    yield client, ids[::-1]
    clients.close()


def pages(client, limit, **params):
    """Every page until has_more is false, by hand."""
    after = {}
    while True:
        page = client.files.list(limit=limit, **after, **params)
        yield page
        if not page.has_more:
            return
        after = {"after": page.data[-1].id}


@pytest.mark.parametrize(
    ("limit", "sizes"), [(10, [10, 10, 5]), (5, [5, 5, 5, 5, 5]), (24, [24, 1]), (25, [25]), (26, [25])]
)
def test_pages_are_full_and_has_more_is_honest(shelf, limit, sizes):
    client, ids = shelf
    found = list(pages(client, limit))
    assert [len(page.data) for page in found] == sizes
    assert [file.id for page in found for file in page.data] == ids


def test_every_page_names_its_first_and_last(shelf):
    client, ids = shelf
    for page, start in zip(pages(client, 10), range(0, FILES, 10), strict=True):
        mine = ids[start : start + 10]
        assert (page.first_id, page.last_id) == (mine[0], mine[-1])


def test_oldest_first(shelf):
    client, ids = shelf
    found = [file.id for page in pages(client, 10, order="asc") for file in page.data]
    assert found == ids[::-1]


@pytest.mark.parametrize(("limit", "sizes"), [(2, [2, 2, 1]), (5, [5])])
def test_of_one_purpose(shelf, limit, sizes):
    client, ids = shelf
    found = list(pages(client, limit, purpose="batch"))
    assert [len(page.data) for page in found] == sizes
    assert [file.id for page in found for file in page.data] == ids[BATCH_EVERY - 1 :: BATCH_EVERY]


def test_the_sdk_turns_the_pages_itself(shelf):
    client, ids = shelf
    assert [file.id for file in client.files.list(limit=10)] == ids


def test_without_a_limit_all_are_on_one_page(shelf):
    client, ids = shelf
    page = client.files.list()
    assert ([file.id for file in page.data], page.has_more) == (ids, False)


def test_a_listed_file_is_the_retrieved_one(shelf):
    client, ids = shelf
    listed = client.files.list(limit=1).data[0]
    retrieved = client.files.retrieve(ids[0])
    assert listed.to_dict() | {"filemux": None} == retrieved.to_dict() | {"filemux": None}


def test_an_empty_list(http):
    assert http.get("/files").json() == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


def test_after_the_last_one_there_is_nothing(shelf):
    client, ids = shelf
    page = client.files.list(after=ids[-1])
    assert (page.data, page.has_more) == ([], False)


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("limit", "0"),
        ("limit", "-1"),
        ("limit", "10001"),
        ("limit", "ten"),
        ("limit", "1.5"),
        ("order", "up"),
        ("after", "nope"),
        ("after", "file-abc"),
        ("purpose", "shopping"),
    ],
)
def test_a_parameter_that_is_wrong(http, param, value):
    message = refusal(http.get("/files", params={param: value}), 400, None, param)
    assert param in message


def test_a_deleted_file_vanishes_and_still_marks_a_place(member):
    newest_first = [upload(member, "mini").id for _ in range(4)][::-1]
    cursor = member.files.list(limit=2).data[-1].id
    member.files.delete(cursor)
    assert [file.id for file in member.files.list()] == [newest_first[0], *newest_first[2:]]
    assert [file.id for file in member.files.list(after=cursor)] == newest_first[2:]


def test_an_admin_lists_another_team_by_name(clients):
    team = clients.new_team()
    file = upload(clients.member(team), "mini")
    assert [one.id for one in clients.admin.files.list(extra_query={"team": team})] == [file.id]
    assert file.id not in [one.id for one in clients.admin.files.list()]
    with pytest.raises(openai.NotFoundError):
        clients.admin.files.list(extra_query={"team": "no such team"})


def test_a_member_lists_no_other_team(clients):
    own, foreign = clients.new_team(), clients.new_team()
    upload(clients.member(foreign), "mini")
    with raw_client(clients.member(own)) as http:
        refusal(http.get("/files", params={"team": foreign}), 403, "permission_denied", "team")
        assert http.get("/files", params={"team": own}).json()["data"] == []
