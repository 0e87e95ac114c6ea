"""Requests that schemathesis cannot make, byte by byte, each with the status that it must be refused with."""

import contextlib
import http.client
import socket
from urllib.parse import urlsplit

from tests.conftest import MASTER_KEY
from tests.support.uploads import BATCH_LINE

FORM = b"content-type: multipart/form-data; boundary=b\r\n"
NO_FILE_ID = b"file-mux-" + b"0" * 32


def part(name, value, rest=b""):
    """One part of a multipart body; `rest` is further parameters and headers."""
    return b'--b\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (name, rest, value)


def upload(*fields, file=b'; filename="a.pdf"', headers=FORM, content=b"{}", purpose=b"user_data"):
    """An upload to `mini` that is right but for what is given."""
    right = part(b"purpose", purpose) + part(b"target_model_names", b"mini")
    return b"POST /files", headers, right + b"".join(fields) + part(b"file", content, file) + b"--b--\r\n"


def team(body):
    return b"POST /admin/teams", b"", body


def key(body):
    return b"POST /admin/keys", b"", body


def batch(body):
    return b"POST /batches", b"", body


def batch_of(requests, metadata=b"null"):
    return batch(b'{"endpoint":"/v1/chat/completions","requests":%s,"metadata":%s}' % (requests, metadata))


def chat(body):
    return b"POST /chat/completions", b"", body


def chat_about(file_id):
    file = b'{"type":"file","file":{"file_id":"%s"}}' % file_id
    return chat(b'{"model":"mini","messages":[{"role":"user","content":[%s]}]}' % file)


def answered(url, line, headers=b"", body=None):
    """Send a request as it stands, with the master key: status, headers and body."""
    address = urlsplit(url)
    length = b"" if body is None else b"content-length: %d\r\n" % len(body)
    secret = MASTER_KEY.encode()
    head = b"%s HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer %s\r\n" % (line, secret)
    with socket.create_connection((address.hostname, address.port), 120) as connection:
        # Who refuses a request may answer, and close, before all of it was sent.
        with contextlib.suppress(ConnectionError):
            connection.sendall(head + length + headers + b"\r\n" + (body or b""))
        response = http.client.HTTPResponse(connection, method=line.partition(b" ")[0].decode())
        response.begin()
        return response.status, response.headers, response.read()


ANCHOR = part(b"expires_after[anchor]", b"created_at")

# The status of the answer, and what is sent: request line, headers, body.
AWKWARD = {
    "unknown route": (404, b"GET /nothing"),
    "root": (404, b"GET /"),
    "prefix alone": (404, b"GET /v1"),
    "prefix twice": (404, b"GET /v1/v1/files"),
    "trailing slash": (404, b"GET /files/"),
    "double slash": (404, b"GET //files"),
    "double slash behind the prefix": (404, b"GET /v1//files"),
    "asterisk": (404, b"OPTIONS *"),
    "unknown verb": (400, b"FROB /files"),
    "verb of another route": (405, b"PUT /files"),
    "OPTIONS": (405, b"OPTIONS /files"),
    "TRACE": (405, b"TRACE /files"),
    "id with an encoded slash": (404, b"GET /files/a%2Fb"),
    "id with NUL": (404, b"GET /files/" + NO_FILE_ID + b"%00"),
    "id that is no UTF-8": (404, b"GET /files/%FF"),
    "id that is not even encoded": (400, b"GET /files/\xff"),
    "id of 60 kB": (404, b"DELETE /files/" + b"a" * 60_000),
    "model name with NUL": (404, b"GET /models/%00"),
    "team id with NUL": (400, b"POST /admin/teams/%00", b"", b'{"name":"x"}'),
    "key id with NUL": (400, b"DELETE /admin/keys/%00"),
    "rotated key id with NUL": (400, b"POST /admin/keys/%00/rotate"),
    "listed team with NUL": (400, b"GET /files?team=%00"),
    "team of keys with NUL": (400, b"GET /admin/keys?team=%00"),
    "batch id with NUL": (404, b"GET /batches/batch_mux-" + b"0" * 32 + b"%00"),
    "batch id with an encoded slash": (404, b"POST /batches/a%2Fb/cancel"),
    "batch id that is no UTF-8": (404, b"POST /batches/%FF/cancel"),
    "after with NUL, of batches": (400, b"GET /batches?after=batch_mux-" + b"0" * 32 + b"%00"),
    "team of batches with NUL": (400, b"GET /batches?team=%00"),
    "model name of a list with NUL": (400, b"GET /files?model=%00"),
    "provider with NUL": (400, b"GET /batches?provider=%00"),
    "provider in the path without an account": (400, b"GET /azure/v1/files"),
    "team that is no UTF-8": (404, b"GET /files?team=%FF"),
    "after that is no UTF-8": (400, b"GET /files?after=%FF"),
    "after with NUL": (400, b"GET /files?after=" + NO_FILE_ID + b"%00"),
    "purpose with NUL": (400, b"GET /files?purpose=%00"),
    "limit 1e9": (400, b"GET /files?limit=1e9"),
    "limit over the bound": (400, b"GET /files?limit=10001"),
    "limit of 5000 digits": (400, b"GET /files?limit=" + b"9" * 5000),
    "query that is not encoded": (400, b"GET /files?team=\xff"),
    "header with NUL": (400, b"GET /files", b"x-a: a\0b\r\n"),
    "header without a name": (400, b"GET /files", b": a\r\n"),
    "header with a space in its name": (400, b"GET /files", b"x a: b\r\n"),
    "negative content-length": (400, b"GET /files", b"content-length: -1\r\n"),
    "content-length with a letter": (400, b"GET /files", b"content-length: 1x\r\n"),
    "content-length and chunks": (400, b"POST /files", b"content-length: 5\r\ntransfer-encoding: chunked\r\n"),
    "bad chunk": (400, b"POST /admin/teams", b"transfer-encoding: chunked\r\n\r\nzz\r\n"),
    "no body": (400, b"POST /admin/teams"),
    "empty body": (400, *chat(b"")),
    "form for JSON": (400, b"POST /admin/teams", b"content-type: application/x-www-form-urlencoded\r\n", b"name=x"),
    "JSON for a form": (400, b"POST /files", b"content-type: application/json\r\n", b"{}"),
    "form without a content type": (400, *upload(headers=b"")),
    "form without a boundary": (400, *upload(headers=b"content-type: multipart/form-data\r\n")),
    "empty form": (400, b"POST /files", FORM, b""),
    "not JSON": (400, *team(b"\xff")),
    "JSON that is no object": (400, *chat(b"null")),
    "JSON nested too deep": (400, *chat(b'{"model":' * 100_000)),
    "admin JSON nested too deep": (400, *team(b"[" * 100_000)),
    "JSON of over a megabyte": (413, *team(b" " * 1_100_000)),
    "cancel with JSON of over a megabyte": (413, b"POST /batches/x/cancel", b"", b" " * 1_100_000),
    "batch without a body": (400, *batch(b"")),
    "batch JSON nested too deep": (400, *batch(b'{"requests":' + b"[" * 100_000)),
    "batch of a file id with NUL": (404, *batch(rb'{"input_file_id":"\u0000","endpoint":"/v1/responses"}')),
    "batch with half a character": (400, *batch(rb'{"input_file_id":"\ud800","endpoint":"/v1/responses"}')),
    "batch metadata with NUL": (400, *batch_of(b'[{"custom_id":"1","body":{"model":"mini"}}]', rb'{"a":"\u0000"}')),
    "batch request with NUL": (400, *batch_of(rb'[{"custom_id":"\u0000","body":{"model":"mini\u0000"}}]')),
    "batch file with NUL": (400, *upload(content=BATCH_LINE.replace(b"mini", rb"\u0000"), purpose=b"batch")),
    "batch requests that are none": (400, *batch_of(b"[1]")),
    "batch of no requests": (400, *batch_of(b"[]")),
    "batch request without an id": (400, *batch_of(b'[{"body":{"model":"mini"}}]')),
    "batch request with a number for an id": (400, *batch_of(b'[{"custom_id":1,"body":{"model":"mini"}}]')),
    "batch model with NUL": (400, *batch_of(rb'[{"custom_id":"1","body":{"model":"mini\u0000"}}]')),
    "batch job name with NUL": (400, *batch(rb'{"input_file_id":"x","endpoint":"/v1/responses","job_name":"\u0000"}')),
    "team name with NUL": (400, *team(rb'{"name":"a\u0000b"}')),
    "team name with half a character": (400, *team(rb'{"name":"\ud800"}')),
    "key of a team with NUL": (400, *key(rb'{"team":"\u0000"}')),
    "key name with NUL": (400, *key(rb'{"team":"default","name":"\u0000"}')),
    "expiry after the last year": (400, *key(b'{"team":"default","expires_at":"9999-12-31T23:59:59-23:59"}')),
    "expiry beyond all floats": (400, *key(b'{"team":"default","expires_at":1e400}')),
    "expiry of 31 digits": (400, *key(b'{"team":"default","expires_at":1%s}' % (b"0" * 30))),
    "model with NUL": (404, *chat(rb'{"model":"\u0000","messages":[]}')),
    "file id in chat with NUL": (400, *chat_about(rb"\u0000")),
    "file id in chat with half a character": (400, *chat_about(rb"\ud800")),
    "field that is no UTF-8": (400, *upload(part(b"x", b"\xff"))),
    "target with NUL": (400, *upload(part(b"target_model_names", b"\0"))),
    "filename that is no UTF-8": (400, *upload(file=b'; filename="\xff"')),
    "file expiry of 5000 digits": (400, *upload(ANCHOR, part(b"expires_after[seconds]", b"9" * 5000))),
    "file expiry as one field": (400, *upload(part(b"expires_after", b'{"anchor":"created_at","seconds":3600}'))),
    "half a file expiry": (400, *upload(ANCHOR)),
}
