"""Vertex AI's batch prediction jobs, through google-genai; what it would never send, by hand."""

import json

import httpx
import pytest
from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials

from tests.sandbox.conftest import Sandbox, Switchboard

_BUCKET = "gs://filemux-sandbox"
_JOBS = "/vertex/v1/projects/p/locations/us-central1/batchPredictionJobs"
_TOKEN = {"authorization": "Bearer tok"}
_MODEL = "gemini-2.0-flash"


@pytest.fixture
def client(sandbox: Sandbox):
    options = types.HttpOptions(base_url=f"{sandbox.base_url}/vertex")
    with genai.Client(
        vertexai=True, project="p", location="us-central1", credentials=Credentials("tok"), http_options=options
    ) as client:
        yield client


def _line(text: str, **labels: str) -> bytes:
    request = {"contents": [{"role": "user", "parts": [{"text": text}]}], "labels": labels}
    return json.dumps({"request": request}).encode() + b"\n"


async def _put(http: httpx.AsyncClient, name: str, content: bytes) -> str:
    answer = await http.put(f"/gcs/filemux-sandbox/{name}", content=content, headers=_TOKEN)
    assert answer.status_code == 200
    return f"{_BUCKET}/{name}"


async def _results(http: httpx.AsyncClient, job: types.BatchJob) -> dict[str, dict]:
    """The lines of the results by their label `n`."""
    url = job.output_info.gcs_output_directory.replace("gs://", "/gcs/")
    lines = (await http.get(f"{url}/predictions.jsonl", headers=_TOKEN)).raise_for_status().text.splitlines()
    found = [json.loads(line) for line in lines]
    return {line["request"]["labels"]["n"]: line for line in found}


def _created(client: genai.Client, uri: str, **config: str) -> types.BatchJob:
    return client.batches.create(model=_MODEL, src=uri, config={"dest": f"{_BUCKET}/out", **config})


def _text(line: dict) -> str:
    assert line["status"] == ""
    return line["response"]["candidates"][0]["content"]["parts"][0]["text"]


async def test_a_job_runs_by_the_clock_and_leaves_its_results_in_the_bucket(client, http, switchboard: Switchboard):
    uri = await _put(http, "in.jsonl", _line("slow:60", n="1") + _line("two", n="2"))
    job = _created(client, uri, display_name="mine")
    assert (job.state, job.display_name) == (types.JobState.JOB_STATE_PENDING, "mine")
    assert job.model == f"publishers/google/models/{_MODEL}"
    await switchboard.advance(1)
    assert client.batches.get(name=job.name).state == types.JobState.JOB_STATE_RUNNING
    await switchboard.advance(60)
    job = client.batches.get(name=job.name.rpartition("/")[2])
    assert job.state == types.JobState.JOB_STATE_SUCCEEDED
    assert (job.completion_stats.successful_count, job.completion_stats.failed_count) == (2, None)
    assert job.create_time < job.end_time
    results = await _results(http, job)
    assert {n: _text(line) for n, line in results.items()} == {"1": "slow:60", "2": "two"}
    [_, written] = await switchboard.files()
    assert written["id"].startswith(f"{_BUCKET}/out/prediction-model-")


async def test_lines_that_fail_say_so_each(client, http, switchboard):
    wrong = json.dumps({"request": {"contents": [], "labels": {"n": "3"}}}).encode() + b"\n"
    uri = await _put(http, "in.jsonl", _line("fine", n="1") + _line("fail:429", n="2") + wrong)
    job = _created(client, uri)
    await switchboard.advance(2)
    job = client.batches.get(name=job.name)
    assert job.state == types.JobState.JOB_STATE_PARTIALLY_SUCCEEDED
    assert (job.completion_stats.successful_count, job.completion_stats.failed_count) == (1, 2)
    results = await _results(http, job)
    assert _text(results["1"]) == "fine"
    for n, code in (("2", 429), ("3", 400)):
        assert "response" not in results[n]
        assert json.loads(results[n]["status"].partition(": ")[2])["error"]["code"] == code


@pytest.mark.parametrize(
    ("ending", "seconds"),
    [(types.JobState.JOB_STATE_CANCELLED, 3), (types.JobState.JOB_STATE_EXPIRED, 24 * 3600)],
)
async def test_what_has_run_is_there_when_a_job_ends_early(client, http, switchboard, ending, seconds):
    uri = await _put(http, "in.jsonl", _line("quick", n="1") + _line("slow:90000", n="2"))
    job = _created(client, uri)
    await switchboard.advance(seconds)
    if ending == types.JobState.JOB_STATE_CANCELLED:
        client.batches.cancel(name=job.name)
        # That takes a second, which may have passed.
        state = client.batches.get(name=job.name).state
        assert state in (types.JobState.JOB_STATE_CANCELLING, types.JobState.JOB_STATE_CANCELLED)
        await switchboard.advance(1)
    job = client.batches.get(name=job.name)
    assert job.state == ending
    assert (job.completion_stats.successful_count, job.completion_stats.incomplete_count) == (1, 1)
    assert (await _results(http, job)).keys() == {"1"}
    with pytest.raises(errors.ClientError, match="FAILED_PRECONDITION"):
        client.batches.cancel(name=job.name)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"", "no lines"), (b"{}\n", "not a request"), (b"no json\n", "not a request")],
)
async def test_an_input_that_cannot_be_read_fails_the_job(client, http, switchboard, content, message):
    uri = f"{_BUCKET}/none.jsonl" if content is None else await _put(http, "in.jsonl", content)
    job = _created(client, uri)
    await switchboard.advance(1)
    job = client.batches.get(name=job.name)
    assert job.state == types.JobState.JOB_STATE_FAILED
    assert message in job.error.message and job.output_info is None


async def test_a_job_that_writes_to_another_bucket_fails(client, http, switchboard):
    uri = await _put(http, "in.jsonl", _line("one", n="1"))
    job = client.batches.create(model=_MODEL, src=uri, config={"dest": "gs://another/out"})
    await switchboard.advance(2)
    assert client.batches.get(name=job.name).error.message == "The output bucket does not exist."


async def test_jobs_are_listed_newest_first_and_deleted_once_they_have_ended(client, http, switchboard):
    assert [*client.batches.list()] == []
    uri = await _put(http, "in.jsonl", _line("slow:60", n="1"))
    names = [_created(client, uri).name for _ in range(3)]
    listed = [job.name for job in client.batches.list(config={"page_size": 2})]
    assert listed == names[::-1]
    with pytest.raises(errors.ClientError, match="has not ended"):
        client.batches.delete(name=names[0])
    await switchboard.advance(60)
    assert client.batches.delete(name=names[0]).done
    with pytest.raises(errors.ClientError, match="404"):
        client.batches.get(name=names[0])
    assert [job.name for job in client.batches.list()] == names[:0:-1]


async def test_another_token_project_or_place_sees_nothing(client, http, switchboard):
    uri = await _put(http, "in.jsonl", _line("one", n="1"))
    number = _created(client, uri).name.rpartition("/")[2]
    elsewhere = _JOBS.replace("us-central1", "europe-west4")
    for url, token in ((f"{elsewhere}/{number}", "tok"), (f"{_JOBS}/{number}", "another")):
        answer = await http.get(url, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 404
    assert (await http.get(elsewhere, headers=_TOKEN)).json() == {}
    assert (await http.get(_JOBS, headers={"x-goog-api-key": "one"})).status_code == 401


_WANTED = {
    "displayName": "d",
    "model": f"publishers/google/models/{_MODEL}",
    "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [f"{_BUCKET}/in.jsonl"]}},
    "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": _BUCKET}},
}


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"displayName": ""}, 400, "display_name"),
        ({"displayname": "d"}, 400, 'Unknown name "displayname"'),
        ({"labels": {"n": "Upper"}}, 400, "labels"),
        ({"model": "publishers/google/models/none"}, 404, "does not exist"),
        ({"model": _MODEL}, 404, "does not exist"),
        ({"inputConfig": {"instancesFormat": "csv", "gcsSource": {"uris": ["gs://b/in"]}}}, 400, "instances_format"),
        ({"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["s3://b/in"]}}}, 400, "uris"),
        ({"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://b/a", "gs://b/b"]}}}, 400, "uris"),
        ({"inputConfig": {"instancesFormat": "jsonl", "bigquerySource": {}}}, 400, "gcs_source"),
        ({"outputConfig": None}, 400, "output_config"),
    ],
)
async def test_a_wrong_job_is_refused(http: httpx.AsyncClient, change, status, message):
    answer = await http.post(_JOBS, json=_WANTED | change, headers=_TOKEN)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
