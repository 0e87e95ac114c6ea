"""Files at one account, by the official SDK: through a model name under sealed ids, or by a provider's own ids."""

import base64

import openai
import pytest

from app.sandbox.config import BUCKET
from tests.support.chats import MODELS, answer_of, ask, file_part, seen, text_part
from tests.support.uploads import PDF, upload

# The others never give an upload back.
GIVE_BACK = {"openai", "azure", "vertex_ai", "bedrock"}
BUCKETS = {"vertex_ai": ("gs", "gcs"), "bedrock": ("s3", "s3")}
providers = pytest.mark.parametrize("provider", MODELS)
of_buckets = pytest.mark.parametrize("provider", BUCKETS)


@pytest.fixture
def admin(six_clients):
    return six_clients.admin


def create(client, content=PDF, *, filename="a.pdf", purpose="fine-tune", **options):
    return client.files.create(file=(filename, content), purpose=purpose, **options)


def is_missing(call, *arguments, **options):
    with pytest.raises(openai.NotFoundError) as failure:
        call(*arguments, **options)
    assert failure.value.body["message"].startswith("No such File object: ")


def lives(client, file, provider, sandbox, **options):
    """Describe, read and delete a file that was just created."""
    found = client.files.retrieve(file.id, **options)
    assert (found.id, found.bytes, found.filename) == (file.id, len(PDF), "a.pdf")
    assert found.filemux["provider"] == provider
    if provider in GIVE_BACK:
        assert client.files.content(file.id, **options).content == PDF
    else:
        with pytest.raises(openai.BadRequestError):
            client.files.content(file.id, **options)
    deleted = client.files.delete(file.id, **options)
    assert (deleted.id, deleted.deleted) == (file.id, True)
    assert sandbox.files == []
    is_missing(client.files.retrieve, file.id, **options)
    is_missing(client.files.content, file.id, **options)
    if provider != "bedrock":
        # S3 does not say whether there was anything to delete.
        is_missing(client.files.delete, file.id, **options)


@providers
def test_a_model_name_makes_a_sealed_id_that_finds_its_way(client, sandbox, provider):
    file = create(client, extra_body={"model": MODELS[provider]})
    assert (file.filename, file.bytes, file.purpose, file.status) == ("a.pdf", len(PDF), "fine-tune", "processed")
    assert [one["provider"] for one in sandbox.files] == [provider]
    assert file.id.startswith("file-ZmlsZW11eD")
    lives(client, file, provider, sandbox)


@providers
def test_a_providers_own_files(admin, sandbox, provider):
    file = create(admin, extra_body={"provider": provider})
    assert file.id == sandbox.files[0]["id"]
    listed = admin.files.list(extra_query={"provider": provider})
    assert [one.id for one in listed] == [file.id]
    lives(admin, file, provider, sandbox, extra_headers={"custom-llm-provider": provider})


@pytest.mark.parametrize("provider", list(MODELS)[1:])
@pytest.mark.parametrize("version", ["", "/v1"])
def test_a_provider_in_the_path(six_clients, sandbox, provider, version):
    client = six_clients.admin.with_options(base_url=f"{six_clients.url}/{provider}{version}")
    file = create(client)
    assert [one.id for one in client.files.list()] == [file.id]
    lives(client, file, provider, sandbox)


@providers
def test_a_chat_about_a_sealed_id(client, provider):
    file = create(client, purpose="user_data", extra_body={"model": MODELS[provider]})
    answer = answer_of(ask(client, MODELS[provider], file_part(file.id), text_part("hello")))
    assert answer.splitlines()[-1] == "hello"
    assert seen("a.pdf", PDF) in answer


def test_a_chat_with_a_model_at_another_account_is_told_where_the_file_is(client):
    file = create(client, purpose="user_data", extra_body={"model": "gemini-flash"})
    with pytest.raises(openai.BadRequestError, match="at this one's: gemini-flash") as refused:
        ask(client, "claude-sonnet", text_part("hello"), file_part(file.id))
    assert (refused.value.code, refused.value.param) == (
        "file_without_replica",
        "messages[0].content[1].file.file_id",
    )


@providers
def test_pages_go_on_behind_their_last_file(six_clients, provider):
    """The provider's cursor is another thing than an id; one that was never on a page's end is found all the same."""
    admin = six_clients.admin
    made = {create(admin, filename=f"{n}.pdf", extra_body={"provider": provider}).id for n in range(5)}
    where = {"extra_query": {"provider": provider}}
    whole = [one.id for one in admin.files.list(**where)]
    assert set(whole) == made and len(whole) == 5
    pages = list(admin.files.list(limit=2, **where).iter_pages())
    assert [[one.id for one in page.data] for page in pages] == [whole[:2], whole[2:4], whole[4:]]
    assert [page.has_more for page in pages] == [True, True, False]
    assert [one.id for one in admin.files.list(after=whole[0], limit=3, **where).data] == whole[1:4]
    assert not admin.files.list(limit=5, **where).has_more
    through_the_model = admin.files.list(limit=2, extra_query={"model": MODELS[provider]})
    sealed = [one.id for one in through_the_model]
    assert len(set(sealed)) == 5
    assert admin.files.delete(sealed[0]).deleted
    is_missing(admin.files.retrieve, whole[0], **where)


@pytest.mark.parametrize("provider", ["anthropic", "gemini"])
def test_a_cursor_that_is_none_any_more_is_found_again(admin, sandbox, provider):
    for _ in range(3):
        create(admin, extra_body={"provider": provider})
    where = {"extra_query": {"provider": provider}}
    whole = [one.id for one in admin.files.list(**where)]
    assert [one.id for one in admin.files.list(limit=1, **where).data] == whole[:1]
    sandbox.fault(provider, "list_files", status=400, times=1)
    assert [one.id for one in admin.files.list(after=whole[0], **where)] == whole[1:]


def test_a_list_may_be_deleted_while_it_is_read(admin, sandbox):
    for number in range(5):
        create(admin, filename=f"{number}.pdf", extra_body={"provider": "anthropic"})
    for file in admin.files.list(limit=2, extra_query={"provider": "anthropic"}):
        admin.files.delete(file.id, extra_query={"provider": "anthropic"})
    assert sandbox.files == []


@providers
def test_another_teams_file_is_in_no_list_and_under_no_spelling_of_its_id(client, admin, sandbox, provider):
    foreign = upload(client, MODELS[provider])
    [held] = sandbox.files
    mine = create(admin, extra_body={"provider": provider})
    where = {"extra_query": {"provider": provider}}
    assert [one.id for one in admin.files.list(limit=1, **where)] == [mine.id]
    assert not admin.files.list(limit=1, **where).has_more
    assert len(list(admin.files.list(extra_query={"model": MODELS[provider]}))) == 1
    for spelling in {held["id"], f"files/{held['id'].rpartition('/')[2]}", held["id"].rpartition("/")[2]}:
        for verb in (admin.files.retrieve, admin.files.content, admin.files.delete):
            is_missing(verb, spelling, **where)
        if provider == "gemini" or spelling == held["id"]:
            with pytest.raises(openai.BadRequestError, match="No such File object"):
                ask(admin, MODELS[provider], file_part(spelling))
    assert client.files.retrieve(foreign.id).id == foreign.id


def test_only_files_of_a_purpose(admin):
    where = {"extra_query": {"provider": "openai"}}
    for purpose in ("fine-tune", "user_data", "fine-tune"):
        create(admin, purpose=purpose, extra_body={"provider": "openai"})
    assert [one.purpose for one in admin.files.list(purpose="fine-tune", limit=1, **where)] == ["fine-tune"] * 2
    assert admin.files.list(purpose="evals", **where).data == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"provider": "openai", "order": "asc"}, "order_not_supported"),
        ({"provider": "groq"}, "unknown_provider"),
        ({"model": "none"}, "unknown_model_name"),
        ({"provider": "openai", "after": "file-none"}, None),
        ({"provider": "openai", "after": "../models"}, None),
        ({"provider": "bedrock", "storage_config": {"s3": {"prefix": "a"}}}, "invalid_storage_config"),
    ],
)
def test_a_list_that_cannot_be(admin, query, code):
    with pytest.raises(openai.BadRequestError) as refused:
        admin.files.list(extra_query=query)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "raw_id",
    ["../models", "a/../../models", "file-1?x=y", "file-1#x", "file-1%2e", "s3://b/../../c", "a\nb", "ä", "\0"],
)
@providers
def test_an_id_leads_nowhere_else(admin, sandbox, provider, raw_id):
    is_missing(admin.files.retrieve, raw_id, extra_query={"provider": provider})
    assert not any(calls for calls in sandbox.state()["requests"].values())


# --- buckets ----------------------------------------------------------------------------------------------------


@of_buckets
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, lambda uri: uri])
def test_an_object_by_its_uri_or_base64_of_it(admin, provider, encode):
    file = create(admin, extra_body={"provider": provider})
    assert file.id.startswith(f"{BUCKETS[provider][0]}://{BUCKET}/filemux/")
    where = {"extra_query": {"provider": provider}}
    given = encode(file.id.encode()).decode()
    assert admin.files.content(given, **where).content == PDF
    assert admin.files.retrieve(given.rstrip("="), **where).id == file.id


@of_buckets
def test_a_folder_of_the_bucket(admin, sandbox, provider):
    scheme, section = BUCKETS[provider]
    place = {"storage_config": {section: {"bucket": BUCKET, "prefix": "filemux/mine"}}}
    create(admin, extra_body={"provider": provider})
    file = create(admin, extra_body={"provider": provider, **place})
    assert file.id.startswith(f"{scheme}://{BUCKET}/filemux/mine/")
    where = {"provider": provider, **place}
    assert [one.id for one in admin.files.list(extra_query=where)] == [file.id]
    assert len(sandbox.files) == 2
    assert admin.files.delete(file.id, extra_query=where).deleted


@of_buckets
def test_a_bucket_that_is_not_allowed(admin, sandbox, provider):
    place = {"storage_config": {BUCKETS[provider][1]: {"bucket": "another"}}}
    with pytest.raises(openai.BadRequestError, match="another"):
        create(admin, extra_body={"provider": provider, **place})
    with pytest.raises(openai.BadRequestError, match="another"):
        admin.files.list(extra_query={"provider": provider, **place})
    uri = f"{BUCKETS[provider][0]}://another/filemux/key"
    for verb in (admin.files.retrieve, admin.files.content):
        is_missing(verb, uri, extra_query={"provider": provider})
    with pytest.raises(openai.BadRequestError, match="another"):
        # What is not looked for is not said to be gone.
        admin.files.delete(uri, extra_query={"provider": provider})
    assert sandbox.files == []
