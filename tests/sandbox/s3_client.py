"""S3 as the tests speak to it: through boto3, and by hand with its signatures."""

import boto3
import httpx
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

BUCKET = "filemux-sandbox"
# The smallest part that may be followed by another one.
PART_BYTES = 5 * 1024**2


def open_client(endpoint_url: str, access_key: str = "AKIAONE", **options):
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key,
        aws_secret_access_key="secret",
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        **options,
    )


def code_of(error) -> tuple[str, int]:
    """The code and the status of a ClientError."""
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def signed(method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None, service: str = "s3"):
    """The headers of a request by hand; those that are given are signed, and win over botocore's."""
    request = AWSRequest(method, url, data=body, headers=headers or {})
    S3SigV4Auth(Credentials("AKIAONE", "secret"), service, "us-east-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()} | (headers or {})


async def put(http: httpx.AsyncClient, key: str, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    path = f"/s3/{BUCKET}/{key}"
    return await http.put(path, content=body, headers=signed("PUT", str(http.base_url.join(path)), body, headers))


def error_code(answer: httpx.Response) -> str:
    """The code in an XML error, which has the parts that every error has."""
    assert "<Message>" in answer.text
    return answer.text.partition("<Code>")[2].partition("</Code>")[0]
