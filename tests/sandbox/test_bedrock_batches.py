"""Bedrock's model invocation jobs, through boto3."""

import json
from contextlib import ExitStack, closing

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.sandbox import Switchboard

_BUCKET = "filemux-sandbox"
_NOVA = "amazon.nova-lite-v1:0"
_ROLE = "arn:aws:iam::123456789012:role/batches"


@pytest.fixture(scope="module")
def clients(sandbox):
    """Bedrock's control plane and S3, by any access key; botocore would refuse what the sandbox is to refuse itself."""
    with ExitStack() as stack:

        def client(service, key="AKIASANDBOX"):
            path = "s3" if service == "s3" else "bedrock"
            made = boto3.client(
                service,
                endpoint_url=f"{sandbox.base_url}/{path}",
                region_name="us-east-1",
                aws_access_key_id=key,
                aws_secret_access_key="secret",
                config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
            )
            return stack.enter_context(closing(made))

        yield client


@pytest.fixture(scope="module")
def bedrock(clients):
    return clients("bedrock")


@pytest.fixture(scope="module")
def s3(clients):
    return clients("s3")


@pytest.fixture
def board(sandbox):
    board = Switchboard(sandbox.base_url)
    yield board
    board.close()


def _record(text, record_id=None, **more):
    named = {"recordId": record_id} if record_id else {}
    return {**named, "modelInput": {"messages": [{"role": "user", "content": [{"text": text}]}], **more}}


def _wanted(name="in.jsonl", **more):
    return {
        "jobName": "job-1",
        "roleArn": _ROLE,
        "modelId": _NOVA,
        "modelInvocationType": "Converse",
        "inputDataConfig": {"s3InputDataConfig": {"s3Uri": f"s3://{_BUCKET}/{name}"}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"s3://{_BUCKET}/out/"}},
        **more,
    }


@pytest.fixture
def created(bedrock, s3):
    def create(*records, name="in.jsonl", **more):
        lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
        s3.put_object(Bucket=_BUCKET, Key=name, Body=lines)
        return bedrock.create_model_invocation_job(**_wanted(name, **more))["jobArn"]

    return create


@pytest.fixture
def output(s3):
    """Reads a file among a job's results."""

    def read(arn, name="in.jsonl.out"):
        body = s3.get_object(Bucket=_BUCKET, Key=f"out/{arn.rpartition('/')[2]}/{name}")["Body"].read()
        return [json.loads(line) for line in body.splitlines()]

    return read


def test_a_job_runs_by_the_clock_and_leaves_its_results_in_the_bucket(bedrock, board, created, output):
    arn = created(_record("slow:60", "1"), _record("slow:61"))
    job = bedrock.get_model_invocation_job(jobIdentifier=arn)
    # It is validated for a second, which may have passed.
    assert job["status"] in ("Validating", "InProgress")
    assert (job["jobName"], job["modelId"], job["roleArn"]) == ("job-1", _NOVA, _ROLE)
    board.advance(1)
    job = bedrock.get_model_invocation_job(jobIdentifier=arn.rpartition("/")[2])
    assert (job["status"], job["totalRecordCount"], job["processedRecordCount"]) == ("InProgress", 2, 0)
    board.advance(60)
    job = bedrock.get_model_invocation_job(jobIdentifier=arn)
    assert (job["status"], job["successRecordCount"], job["errorRecordCount"]) == ("Completed", 2, 0)
    assert job["submitTime"] < job["endTime"] < job["jobExpirationTime"]
    texts = {line["recordId"]: line["modelOutput"]["output"]["message"]["content"][0]["text"] for line in output(arn)}
    assert texts.pop("1") == "slow:60" and [*texts.values()] == ["slow:61"]
    [manifest] = output(arn, "manifest.json.out")
    assert manifest["successRecordCount"] == 2
    assert len([file for file in board.files if file["id"].startswith(f"s3://{_BUCKET}/out/")]) == 2


def test_records_that_fail_say_so_each(bedrock, board, created, output):
    tools = {"tools": [{"toolSpec": {"name": "t", "inputSchema": {"json": {"type": "object"}}}}]}
    wrong = {"recordId": "4", "modelInput": {"messages": "none"}}
    arn = created(_record("a", "1"), _record("fail:503", "2"), _record("b", "3", toolConfig=tools), wrong)
    board.advance(2)
    job = bedrock.get_model_invocation_job(jobIdentifier=arn)
    assert (job["status"], job["successRecordCount"], job["errorRecordCount"]) == ("Completed", 1, 3)
    failed = {line["recordId"]: line["error"] for line in output(arn) if "modelOutput" not in line}
    assert {record_id: error["errorCode"] for record_id, error in failed.items()} == {"2": 503, "3": 400, "4": 400}
    assert "toolConfig" in failed["3"]["errorMessage"]


@pytest.mark.parametrize(
    ("texts", "stopped", "status", "done"),
    [
        (["quick", "slow:90000"], True, "Stopped", {"0"}),
        (["quick", "slow:90000"], False, "PartiallyCompleted", {"0"}),
        (["slow:90000"], False, "Expired", set()),
    ],
)
def test_what_has_run_is_there_when_a_job_ends_early(bedrock, board, created, output, texts, stopped, status, done):
    arn = created(*(_record(text, str(index)) for index, text in enumerate(texts)), timeoutDurationInHours=24)
    if stopped:
        board.advance(3)
        bedrock.stop_model_invocation_job(jobIdentifier=arn)
        assert bedrock.get_model_invocation_job(jobIdentifier=arn)["status"] in ("Stopping", "Stopped")
        with pytest.raises(ClientError, match="ConflictException"):
            bedrock.stop_model_invocation_job(jobIdentifier=arn)
    board.advance(1 if stopped else 24 * 3600)
    assert {line["recordId"] for line in output(arn)} == done
    assert bedrock.get_model_invocation_job(jobIdentifier=arn)["status"] == status
    with pytest.raises(ClientError, match="ConflictException"):
        bedrock.stop_model_invocation_job(jobIdentifier=arn)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "does not exist"),
        ("empty.jsonl", b"", "no lines"),
        ("in.txt", b'{"modelInput": {}}', "ends in .jsonl"),
        ("bad.jsonl", b"no json", "malformed"),
        ("bad.jsonl", b'{"modelInput": {}, "more": 1}', "malformed"),
    ],
)
def test_an_input_that_cannot_be_read_fails_the_job(bedrock, s3, board, name, content, message):
    if content is not None:
        s3.put_object(Bucket=_BUCKET, Key=name, Body=content)
    arn = bedrock.create_model_invocation_job(**_wanted(name))["jobArn"]
    board.advance(1)
    job = bedrock.get_model_invocation_job(jobIdentifier=arn)
    assert job["status"] == "Failed"
    assert message in job["message"]


def test_a_job_of_the_same_token_is_the_same_job(bedrock, board, created):
    arn = created(_record("one"), clientRequestToken="token1")
    assert created(_record("one"), clientRequestToken="token1") == arn
    assert created(_record("one"), clientRequestToken="token2") != arn
    assert len(board.state()["batches"]) == 2


def test_jobs_are_listed_page_by_page(bedrock, board, created):
    arns = [created(_record("slow:60"), jobName=f"job-{number}") for number in range(3)]

    def listed(**parameters):
        pages = bedrock.get_paginator("list_model_invocation_jobs").paginate(**parameters)
        return [job["jobArn"] for page in pages for job in page["invocationJobSummaries"]]

    assert listed(PaginationConfig={"PageSize": 2}, sortOrder="Ascending") == arns
    assert listed(sortBy="CreationTime", sortOrder="Descending") == arns[::-1]
    assert listed(nameContains="-1") == [arns[1]]
    assert listed(statusEquals="Completed") == []
    board.advance(60)
    assert set(listed(statusEquals="Completed")) == set(arns)


def test_another_account_sees_nothing(clients, created):
    arn, another = created(_record("one")), clients("bedrock", "AKIAOTHER")
    assert another.list_model_invocation_jobs()["invocationJobSummaries"] == []
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        another.get_model_invocation_job(jobIdentifier=arn)


@pytest.mark.parametrize(
    "change",
    [
        {"jobName": "no spaces"},
        {"jobName": "a" * 64},
        {"roleArn": "my-role"},
        {"modelId": "none"},
        {"modelInvocationType": "InvokeModel"},
        {"timeoutDurationInHours": 23},
        {"clientRequestToken": "no_underscores"},
        {"inputDataConfig": {"s3InputDataConfig": {"s3Uri": "gs://bucket/in.jsonl"}}},
        {"inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://bucket/in.jsonl", "s3InputFormat": "CSV"}}},
        {"outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket//out"}}},
    ],
)
def test_a_wrong_job_is_refused(bedrock, change):
    with pytest.raises(ClientError, match="ValidationException"):
        bedrock.create_model_invocation_job(**_wanted() | change)


@pytest.mark.parametrize(
    "parameters",
    [{"maxResults": 0}, {"sortOrder": "Up"}, {"sortBy": "Name"}, {"statusEquals": "Done"}, {"nextToken": "?"}],
)
def test_a_wrong_list_is_refused(bedrock, parameters):
    with pytest.raises(ClientError, match="ValidationException"):
        bedrock.list_model_invocation_jobs(**parameters)


def test_what_no_job_is_called_is_refused(bedrock):
    with pytest.raises(ClientError, match="ValidationException"):
        bedrock.get_model_invocation_job(jobIdentifier="no job")
