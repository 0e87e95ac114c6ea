"""The buckets that callers may name: inside of what the configuration allows everything works, outside nothing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore
from pydantic import TypeAdapter, ValidationError

from app.errors import Missing, Rejected
from app.providers.buckets import AllowedBuckets, Buckets
from app.providers.objects import Objects
from app.providers.protocol import BatchOptions, BatchSubmission, StoragePlace
from app.providers.registry import REGISTRY
from tests.support.providers import upload_of

ALLOWED = TypeAdapter(AllowedBuckets)
OWN = StoragePlace("own", "filemux/", "us-east-1")
PLACES = ("team-data/incoming/", "eu-west-1:other-bucket")


def buckets_of(*allowed, **others):
    def opened(place):
        return Objects(MemoryStore(), "s3", place.bucket, place.prefix)

    return Buckets(OWN, ALLOWED.validate_python(list(allowed)) if allowed else (), opened, **others)


# --- what the configuration says --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("team-data", StoragePlace("team-data")),
        ("team-data/", StoragePlace("team-data")),
        ("team-data/incoming", StoragePlace("team-data", "incoming/")),
        ("team-data/a b/c.d//", StoragePlace("team-data", "a b/c.d/")),
        ("eu-west-1:team-data/incoming/", StoragePlace("team-data", "incoming/", "eu-west-1")),
    ],
)
def test_a_folder_in_the_configuration(text, place):
    assert ALLOWED.validate_python([text]) == (place,)


def test_a_variable_holds_several_between_commas():
    assert ALLOWED.validate_python("one/a, two") == (StoragePlace("one", "a/"), StoragePlace("two"))


@pytest.mark.parametrize(
    "value", [[], "", [""], ["UPPER"], ["s3://team-data"], ["a/../b"], ["team-data/../x"], ["team/a//b"], [7], {"a": 1}]
)
def test_what_is_no_folder_is_refused(value):
    with pytest.raises(ValidationError):
        ALLOWED.validate_python(value)


# --- what a caller may name -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("s3://own/filemux/a", "s3://own/filemux/"),
        ("s3://team-data/incoming/deep/a.pdf", "s3://team-data/incoming/"),
        ("s3://other-bucket/anything", "s3://other-bucket/"),
    ],
)
def test_an_object_in_an_allowed_folder_is_found_there(uri, folder):
    assert buckets_of(*PLACES).holding(uri).uri == folder


@pytest.mark.parametrize(
    "uri",
    [
        "s3://own/a",
        "s3://own/filemux",
        "s3://own/filemux-secret/a",
        "s3://team-data/a",
        "s3://team-data/incoming",
        "s3://team-data/incoming-secret/a",
        "s3://team-data-secret/incoming/a",
        "s3://team/data/incoming/a",
        "s3:///team-data/incoming/a",
        "S3://team-data/incoming/a",
        "gs://team-data/incoming/a",
        "team-data/incoming/a",
        "",
    ],
)
def test_any_other_object_is_missing(uri):
    with pytest.raises(Missing):
        buckets_of(*PLACES).holding(uri)


@pytest.mark.parametrize(
    "key", ["", "../a", "x/../../secret", "x/..", "./a", "/a", "x//a", "x/", "a\n", "a\0b", "\r\nHost: x"]
)
async def test_a_key_that_leads_out_of_its_folder_is_missing(key):
    uri = f"s3://team-data/incoming/{key}"
    for verb in ("retrieve_file", "delete_file"):
        with pytest.raises(Missing):
            await getattr(buckets_of(*PLACES).holding(uri), verb)(uri)


@pytest.mark.parametrize(
    ("place", "uri"),
    [
        (None, "s3://own/filemux/"),
        (StoragePlace("own"), "s3://own/filemux/"),
        (StoragePlace("own", "filemux/sub", "us-east-1"), "s3://own/filemux/sub/"),
        (StoragePlace("team-data"), "s3://team-data/incoming/"),
        (StoragePlace("team-data", "/incoming/"), "s3://team-data/incoming/"),
        (StoragePlace("team-data", "incoming/today"), "s3://team-data/incoming/today/"),
        (StoragePlace("other-bucket", "", "eu-west-1"), "s3://other-bucket/"),
        (StoragePlace("other-bucket", "any"), "s3://other-bucket/any/"),
    ],
)
def test_a_folder_that_a_caller_names(place, uri):
    assert buckets_of(*PLACES).at(place).uri == uri


@pytest.mark.parametrize(
    "place",
    [
        StoragePlace("team"),
        StoragePlace("another"),
        StoragePlace(""),
        StoragePlace("own", "fil"),
        StoragePlace("own", "filemux-secret"),
        StoragePlace("team-data", "incom"),
        StoragePlace("team-data", "incoming-secret"),
        StoragePlace("team-data", "incoming/../secret"),
        StoragePlace("team-data", "incoming/./a"),
        StoragePlace("other-bucket", "a//b"),
        StoragePlace("other-bucket", ".."),
        StoragePlace("other-bucket", "a\nb"),
        StoragePlace("other-bucket", "", "us-east-1"),
    ],
)
def test_any_other_folder_is_refused(place):
    with pytest.raises(Rejected) as refused:
        buckets_of(*PLACES).at(place)
    assert refused.value.code == "storage_not_allowed"


@given(st.text(alphabet="./ab-", max_size=20), st.sampled_from(["team-data", "team-data/incoming", "team", "own"]))
def test_nothing_that_a_caller_writes_leads_outside(text, beginning):
    buckets = buckets_of("team-data/incoming")
    uri = f"s3://{beginning}{text}"
    if found := buckets.find(uri):
        assert re.match(r"s3://(own/filemux|team-data/incoming)/", uri) and uri.startswith(found.uri)
    try:
        folder = buckets.folder(uri)
    except Rejected:
        return
    assert re.match(r"s3://(own/filemux|team-data/incoming)/", folder.uri)
    assert not {"", ".", ".."} & set(folder.uri.removeprefix("s3://").split("/")[:-1])


def test_results_go_where_the_caller_says_or_to_a_folder_of_the_batch():
    batch = BatchSubmission("b1", "m", "/v1/chat/completions")
    assert buckets_of(*PLACES).for_results(batch).uri == "s3://own/filemux/b1-output/"
    elsewhere = buckets_of(results=StoragePlace("results", "filemux/"))
    assert elsewhere.for_results(batch).uri == "s3://results/filemux/b1-output/"
    # What is written there can be read.
    assert elsewhere.holding("s3://results/filemux/b1-output/x").bucket == "results"
    options = BatchOptions(output_uri="s3://team-data/incoming/out")
    named = BatchSubmission("b1", "m", "/v1/chat/completions", options=options)
    assert buckets_of(*PLACES).for_results(named).uri == "s3://team-data/incoming/out/"
    for buckets in (buckets_of(), buckets_of("another")):
        with pytest.raises(Rejected):
            buckets.for_results(named)
    with pytest.raises(Rejected, match="must begin with s3://"):
        buckets_of(*PLACES).folder("gs://team-data/incoming/out")


# --- at the providers -------------------------------------------------------------------------------------------

ACCOUNTS = {
    "vertex_ai": {
        "api_base": "{sandbox}/vertex",
        "gcs_endpoint": "{sandbox}/gcs",
        "gcs_bucket": "filemux-sandbox",
        "vertex_project": "p",
        "vertex_access_token": "a token",
    },
    "bedrock": {
        "api_base": "{sandbox}/bedrock",
        "s3_endpoint_url": "{sandbox}/s3",
        "s3_bucket_name": "filemux-sandbox",
        "aws_access_key_id": "AKIATEST",
        "aws_secret_access_key": "secret",
    },
}


@pytest.fixture(params=ACCOUNTS)
def account(request, sandbox, http):
    def made(**params):
        kind = REGISTRY[request.param]
        written = {key: text.format(sandbox=sandbox.url) for key, text in ACCOUNTS[request.param].items()}
        return kind.provider(kind.params.model_validate({**written, **params}), http)

    return made


async def test_files_in_an_allowed_folder(account):
    provider = account(allowed_buckets=["filemux-sandbox/team/"])
    place = StoragePlace("filemux-sandbox", "team/in")
    own = await provider.upload_file(upload_of(b"own", replica_id="1"))
    file = await provider.upload_file(upload_of(b"theirs", replica_id="report.txt", storage=place))
    assert file.id.endswith("://filemux-sandbox/team/in/report.txt")
    assert (await provider.retrieve_file(file.id)).bytes == 6
    async with provider.read_file(file.id) as content:
        assert b"".join([chunk async for chunk in content.chunks]) == b"theirs"
    assert [one.id for one in (await provider.list_files(None, 10, place)).files] == [file.id]
    assert [one.id for one in (await provider.list_files(None, 10)).files] == [own.id]
    with pytest.raises(Rejected):
        await provider.list_files("../x", 10)
    stranger = account()
    with pytest.raises(Missing):
        await stranger.retrieve_file(file.id)
    with pytest.raises(Missing):
        await stranger.read_file(file.id).__aenter__()
    for call in (stranger.upload_file(upload_of(storage=place)), stranger.list_files(None, 10, place)):
        with pytest.raises(Rejected):
            await call
    await provider.delete_file(file.id)
    with pytest.raises(Missing):
        await provider.retrieve_file(file.id)


async def test_a_file_in_a_bucket_that_is_not_used_any_more_is_not_taken_for_gone(account):
    """The configuration moved on to another folder: what is in the old one is still there, and still paid for."""
    before = account(allowed_buckets=["filemux-sandbox/team/"])
    file = await before.upload_file(upload_of(storage=StoragePlace("filemux-sandbox", "team/in")))
    for file_id in (file.id, f"{file.id}-that-never-was"):
        with pytest.raises(Rejected, match="in no bucket that this account uses any more"):
            await account().delete_file(file_id)
    assert await before.retrieve_file(file.id) == file
