"""Uploads as clients make them: with the official SDK, or byte by byte where it would not send such a thing."""

import hashlib

import httpx

PDF = b"%PDF-1.4 a small file\n" * 10
BATCH_LINE = b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{"model":"mini","messages":[]}}\n'
BOUNDARY = "a-boundary"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def upload(client, targets="mini,azure", content=PDF, *, filename="a.pdf", purpose="user_data", **fields):
    """The SDK's upload to these targets; further keywords are further form fields."""
    fields = {"target_model_names": targets, **fields}
    return client.files.create(file=(filename, content), purpose=purpose, extra_body=fields)


def raw_client(client):
    """An httpx client with the key of an SDK client."""
    headers = {"authorization": f"Bearer {client.api_key}"}
    return httpx.Client(base_url=str(client.base_url), headers=headers, timeout=60)


def part(name, value, filename=None, content_type=None):
    """One part of a form, a file's if it has a filename."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'
    head += "" if filename is None else f'; filename="{filename}"'
    head += "" if content_type is None else f"\r\nContent-Type: {content_type}"
    return head.encode() + b"\r\n\r\n" + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"


def file_part(content=PDF, filename="a.pdf", content_type="application/pdf"):
    return part("file", content, filename, content_type)


PURPOSE = part("purpose", "user_data")
TARGETS = part("target_model_names", "mini,azure")
CLOSING = f"--{BOUNDARY}--\r\n".encode()


def post_form(http, *parts, closing=CLOSING, **options):
    """POST /files with these parts, in this order."""
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    return http.post("/files", content=b"".join((*parts, closing)), headers=headers, **options)


def refusal(answer, status, code, param=None):
    """Check an error's status, envelope and request id; its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["x-request-id"].startswith("req_")
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    return error["message"]
