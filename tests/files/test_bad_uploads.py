"""What is wrong with an upload: each its own error, and nothing left at any provider."""

import openai
import pytest

from tests.support.sandbox import eventually
from tests.support.uploads import (
    BOUNDARY,
    CLOSING,
    PDF,
    PURPOSE,
    TARGETS,
    file_part,
    part,
    post_form,
    raw_client,
    refusal,
    upload,
)
from tests.support.wire import Line

FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
MAX_FILE_BYTES = 1_000_000


async def nothing_left(sandbox, rows, filename):
    """Whether no row and no provider remembers the file."""
    return await rows.forgotten(filename) and sandbox.files == []


@pytest.mark.parametrize(
    ("parts", "code", "param"),
    [
        ((PURPOSE, TARGETS), "missing_file", "file"),
        ((), "missing_file", "file"),
        ((PURPOSE, TARGETS, file_part(b"")), "empty_file", "file"),
        ((file_part(b""), PURPOSE, TARGETS), "empty_file", "file"),
        ((TARGETS, file_part()), "missing_purpose", "purpose"),
        ((TARGETS, part("purpose", ""), file_part()), "missing_purpose", "purpose"),
        ((TARGETS, part("purpose", "shopping"), file_part()), "invalid_purpose", "purpose"),
        ((TARGETS, file_part(), part("purpose", "shopping")), "invalid_purpose", "purpose"),
        ((TARGETS, PURPOSE, part("purpose", "batch"), file_part()), "repeated_field", "purpose"),
        ((TARGETS, part("purpose", "evals"), file_part()), "purpose_not_supported", "purpose"),
        ((PURPOSE, part("target_model_names", "mini,nope"), file_part()), "unknown_model_name", "target_model_names"),
        ((PURPOSE, file_part(), part("target_model_names", "nope")), "unknown_model_name", "target_model_names"),
        ((PURPOSE, TARGETS, part("document", PDF, "a.pdf")), "unexpected_file", "document"),
        ((PURPOSE, TARGETS, part("file", "not a file")), "not_a_file", "file"),
        ((PURPOSE, TARGETS, part("note", "x" * 70_000), file_part()), "field_too_long", "note"),
        ((TARGETS, part("purpose", b"\xff\xfe"), file_part()), "field_not_utf8", "purpose"),
        ([part("note", "x")] * 1100, "malformed_multipart", None),
    ],
)
def test_a_form_that_is_wrong(http, sandbox, parts, code, param):
    refusal(post_form(http, *parts), 400, code, param)
    assert sandbox.files == []
    assert sandbox.calls("openai.upload_file") == 0


@pytest.mark.parametrize("targets", ["vllm", "mini,vllm"])
def test_a_target_without_files_where_no_copy_is_kept_for_it(keepless, sandbox, targets):
    with raw_client(keepless) as http:
        answer = post_form(http, PURPOSE, part("target_model_names", targets), file_part())
    message = refusal(answer, 400, "target_without_files", "target_model_names")
    assert "'vllm'" in message and "filemux.sources" in message
    assert sandbox.calls("openai.upload_file") == 0


@pytest.mark.parametrize("first_file", [PDF, b"x" * 3_000_000], ids=["small", "large"])
async def test_two_files(http, sandbox, rows, filename, first_file):
    answer = post_form(http, PURPOSE, TARGETS, file_part(first_file, filename), file_part(PDF, "second.pdf"))
    refusal(answer, 400, "two_files", "file")
    assert await nothing_left(sandbox, rows, filename)


@pytest.mark.parametrize(
    ("closing", "reason"),
    [
        (b"", "no closing boundary"),
        (CLOSING[:-6], "a closing boundary cut off"),
        (b"--another-boundary--\r\n", "the wrong boundary"),
    ],
)
@pytest.mark.parametrize("size", [100, 3_000_000], ids=["small", "large"])
async def test_a_form_without_its_end(http, sandbox, rows, filename, closing, reason, size):
    answer = post_form(http, PURPOSE, TARGETS, file_part(b"x" * size, filename), closing=closing)
    refusal(answer, 400, "malformed_multipart")
    assert await nothing_left(sandbox, rows, filename), reason


@pytest.mark.parametrize(
    "body",
    [
        b"no boundary anywhere",
        f"--{BOUNDARY}\r\nno header\r\n\r\nvalue\r\n".encode() + CLOSING,
        f"--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nvalue\r\n".encode() + CLOSING,
        b"",
    ],
    ids=["prose", "part without a header", "part without a name", "nothing"],
)
def test_a_body_that_is_no_form(http, sandbox, body):
    refusal(http.post("/files", content=body, headers={"content-type": FORM_TYPE}), 400, "malformed_multipart")
    assert sandbox.files == []


@pytest.mark.parametrize(
    ("content_type", "code"),
    [
        ("application/json", "not_multipart"),
        ("application/x-www-form-urlencoded", "not_multipart"),
        ("multipart/mixed; boundary=x", "not_multipart"),
        ("", "not_multipart"),
        ("multipart/form-data", "missing_boundary"),
        ("multipart/form-data; boundary=", "missing_boundary"),
    ],
)
def test_a_content_type_that_is_no_forms(http, content_type, code):
    answer = http.post("/files", content=PURPOSE + CLOSING, headers={"content-type": content_type})
    refusal(answer, 400, code, "content-type")


@pytest.mark.parametrize("named", ["azure", "mini,azure"])
def test_a_model_name_that_the_key_may_not_use(clients, sandbox, named):
    with raw_client(clients.member(models=["mini"])) as http:
        answer = post_form(http, PURPOSE, part("target_model_names", named), file_part())
    message = refusal(answer, 403, "model_name_not_allowed", "target_model_names")
    assert "azure" in message and "mini" in message
    assert sandbox.files == []


def test_the_sdk_raises_what_it_raises_at_openai(member, sandbox):
    with pytest.raises(openai.BadRequestError) as refused:
        upload(member, "nope")
    assert (refused.value.code, refused.value.param) == ("unknown_model_name", "target_model_names")
    assert refused.value.request_id.startswith("req_")
    assert sandbox.files == []


async def test_a_client_that_leaves_in_the_middle_of_the_file(gateway, member, sandbox, rows, filename):
    beginning = PURPOSE + TARGETS + file_part(b"x" * 3_000_000, filename)
    with Line(gateway.url) as line:
        line.send_head("POST", "/v1/files", member.api_key, content_type=FORM_TYPE, content_length=9_000_000)
        line.send(beginning)
        assert eventually(lambda: sandbox.calls("openai.upload_file") and sandbox.calls("azure.upload_file"))
        assert await rows.mappings(filename)
    assert await nothing_left(sandbox, rows, filename)


async def test_a_chunked_body_that_is_cut_off(gateway, member, sandbox, rows, filename):
    with Line(gateway.url) as line:
        line.send_head("POST", "/v1/files", member.api_key, content_type=FORM_TYPE, transfer_encoding="chunked")
        line.send_chunk(PURPOSE + TARGETS + file_part(b"x" * 3_000_000, filename))
        assert eventually(lambda: sandbox.calls("openai.upload_file"))
    assert await nothing_left(sandbox, rows, filename)


@pytest.fixture(scope="module")
def small_gateway(make_gateway):
    with make_gateway(filemux={"max_file_bytes": MAX_FILE_BYTES}) as running:
        yield running


@pytest.fixture
def small(small_gateway, clients_of):
    return clients_of(small_gateway)


def test_a_file_at_the_limit(small, sandbox):
    assert upload(small.member(), content=b"x" * MAX_FILE_BYTES).bytes == MAX_FILE_BYTES
    assert len(sandbox.files) == 2


@pytest.mark.parametrize("parts", [(PURPOSE, TARGETS), ()], ids=["fields first", "fields after"])
def test_a_file_over_the_limit(small, sandbox, parts):
    with raw_client(small.member()) as http:
        after = () if parts else (PURPOSE, TARGETS)
        answer = post_form(http, *parts, file_part(b"x" * (MAX_FILE_BYTES + 1)), *after)
    message = refusal(answer, 413, "file_too_large", "file")
    assert str(MAX_FILE_BYTES) in message
    assert sandbox.files == []


def test_a_file_over_the_limit_with_the_sdk(small):
    with pytest.raises(openai.APIStatusError) as refused:
        upload(small.member(), content=b"x" * (MAX_FILE_BYTES + 1))
    assert (refused.value.status_code, refused.value.code) == (413, "file_too_large")


def test_a_length_over_the_limit_is_refused_before_the_body_comes(small_gateway, small, sandbox):
    with Line(small_gateway.url) as line:
        key = small.new_key()["key"]
        line.send_head("POST", "/v1/files", key, content_type=FORM_TYPE, content_length=100_000_000)
        line.send(PURPOSE + TARGETS + file_part(b"the first bytes"))
        answer = line.receive_until(b"}}")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"file_too_large" in answer and b"x-request-id" in answer
    assert sandbox.calls("openai.upload_file") == 0


async def test_an_unknown_length_is_refused_when_it_passes_the_limit(small_gateway, small, sandbox, rows, filename):
    with Line(small_gateway.url) as line:
        key = small.new_key()["key"]
        line.send_head("POST", "/v1/files", key, content_type=FORM_TYPE, transfer_encoding="chunked")
        line.send_chunk(PURPOSE + TARGETS + file_part(b"x" * (MAX_FILE_BYTES + 1), filename))
        answer = line.receive_until(b"}}")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert await nothing_left(sandbox, rows, filename)
