"""S3 as moto simulates it, a process of its own: `python -m benchmarks.soak.bucket`."""

import os
import signal
import threading
from collections.abc import Iterator

import boto3
from moto.server import ThreadedMotoServer

NAME, REGION = "filemux-soak", "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "soak", "AWS_SECRET_ACCESS_KEY": "soak"}
# What is larger moto keeps on disk.
KEPT_IN_MEMORY_BYTES = 64 * 1024


def keys(url: str) -> Iterator[str]:
    """The keys of all objects."""
    for page in _client(url).get_paginator("list_objects_v2").paginate(Bucket=NAME):
        yield from (stored["Key"] for stored in page.get("Contents", []))


def unfinished_uploads(url: str) -> int:
    """How many uploads in parts were begun and neither completed nor aborted."""
    return len(_client(url).list_multipart_uploads(Bucket=NAME).get("Uploads", []))


def _client(url: str):
    access = {name.lower(): value for name, value in CREDENTIALS.items()}
    return boto3.client("s3", endpoint_url=url, region_name=REGION, **access)


def _serve() -> None:
    os.environ["MOTO_S3_DEFAULT_KEY_BUFFER_SIZE"] = str(KEPT_IN_MEMORY_BYTES)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    _client(url).create_bucket(Bucket=NAME)
    print(f"bucket listening on {url}", flush=True)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    server.stop()


if __name__ == "__main__":
    _serve()
