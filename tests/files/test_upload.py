"""POST /files: what was sent is what every provider holds."""

import os

import pytest

from tests.support.uploads import (
    BATCH_LINE,
    BOUNDARY,
    CLOSING,
    PDF,
    PURPOSE,
    TARGETS,
    file_part,
    post_form,
    sha256,
    upload,
)

MIB = 1024 * 1024


def test_one_upload_reaches_every_target(member, sandbox):
    file = upload(member)
    assert file.id.startswith("file-mux-")
    assert (file.bytes, file.filename, file.purpose, file.status) == (len(PDF), "a.pdf", "user_data", "processed")
    held = {(one["provider"], one["sha256"], one["filename"]) for one in sandbox.files}
    assert held == {("openai", sha256(PDF), "a.pdf"), ("azure", sha256(PDF), "a.pdf")}


def test_the_answer_says_where_the_file_is(member):
    file = upload(member, "mini,four,azure")
    assert file.filemux["sha256"] == sha256(PDF)
    targets = {
        (target["account"], *sorted(target["model_names"]), target["state"]) for target in file.filemux["targets"]
    }
    assert targets == {("openai-first", "four", "mini", "stored"), ("azure", "azure", "stored")}


@pytest.mark.parametrize("size", [1, MIB - 1, MIB, MIB + 1, 5 * MIB])
def test_every_size_arrives_whole(member, sandbox, size):
    content = os.urandom(size)
    file = upload(member, content=content)
    assert (file.bytes, file.filemux["sha256"]) == (size, sha256(content))
    assert [(one["bytes"], one["sha256"]) for one in sandbox.files] == [(size, sha256(content))] * 2


@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_a_body_of_unknown_length_arrives_whole(http, sandbox, size):
    content = os.urandom(size)
    body = b"".join((PURPOSE, TARGETS, file_part(content), CLOSING))
    chunks = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    answer = http.post("/files", content=chunks, headers=headers)
    assert answer.status_code == 200, answer.text
    assert "content-length" not in answer.request.headers
    assert [one["sha256"] for one in sandbox.files] == [sha256(content)] * 2


@pytest.mark.parametrize("closing", [f"--{BOUNDARY}--".encode(), CLOSING + b"an epilogue"])
@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_a_form_that_ends_in_its_own_way_arrives_whole(http, sandbox, closing, size):
    content = os.urandom(size)
    answer = post_form(http, PURPOSE, TARGETS, file_part(content), closing=closing)
    assert (answer.status_code, answer.json().get("bytes")) == (200, size), answer.text
    assert [one["sha256"] for one in sandbox.files] == [sha256(content)] * 2


@pytest.mark.parametrize(
    ("name", "declared", "content", "mime_type"),
    [
        ("a.pdf", "application/pdf", PDF, "application/pdf"),
        ("a.bin", "text/x-special; charset=utf-8", PDF, "text/x-special; charset=utf-8"),
        ("a.csv", "application/octet-stream", b"a,b\n", "text/csv"),
        ("a.csv", None, b"a,b\n", "text/csv"),
        ("nameless", "application/octet-stream", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "application/pdf"),
        ("nameless", None, b"\x00\x01\x02\x03", "application/octet-stream"),
    ],
)
def test_the_type_is_the_clients_word_else_the_names_else_the_contents(http, name, declared, content, mime_type):
    answer = post_form(http, PURPOSE, TARGETS, file_part(content, name, declared))
    assert answer.json()["filemux"]["mime_type"] == mime_type


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("report 2026.pdf", "report 2026.pdf"),
        ("Übersicht 報告 🎉.pdf", "Übersicht 報告 🎉.pdf"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\windows\\a.pdf", "a.pdf"),
        ("C:\\fakepath\\a.pdf", "a.pdf"),
        ("folder/", "upload"),
    ],
)
def test_a_filename_is_kept_without_its_folders(member, sandbox, sent, kept):
    assert upload(member, filename=sent).filename == kept
    assert {one["filename"] for one in sandbox.files} == {kept}


@pytest.mark.parametrize("sent", ['a "quoted" name.pdf', "a\r\nX-Injected: yes\r\n.pdf", 'a"; name="purpose.pdf'])
def test_a_filename_cannot_break_out_of_its_header(member, sandbox, sent):
    file = upload(member, filename=sent)
    assert "\r" not in file.filename and "\n" not in file.filename
    assert [(one["filename"], one["sha256"]) for one in sandbox.files] == [(file.filename, sha256(PDF))] * 2


def test_azure_is_given_a_purpose_that_it_takes_and_ours_stays(member, sandbox):
    file = upload(member)
    assert file.purpose == "user_data"
    assert member.files.retrieve(file.id).purpose == "user_data"
    assert {one["provider"]: one["purpose"] for one in sandbox.files} == {"openai": "user_data", "azure": "assistants"}


@pytest.mark.parametrize("purpose", ["assistants", "batch", "fine-tune", "vision"])
def test_every_purpose_that_all_targets_take(member, sandbox, purpose):
    assert upload(member, content=BATCH_LINE, filename="a.jsonl", purpose=purpose).purpose == purpose
    assert [one["purpose"] for one in sandbox.files] == [purpose] * 2


async def test_two_model_names_on_one_account_share_one_provider_file(member, sandbox, rows, filename):
    upload(member, "mini,four", filename=filename)
    [held] = sandbox.files
    mappings = await rows.mappings(filename)
    assert [(row["model_name"], row["provider_file_id"], row["state"]) for row in mappings] == [
        ("four", held["id"], "stored"),
        ("mini", held["id"], "stored"),
    ]


async def test_a_model_name_on_two_accounts_is_stored_at_both(member, sandbox, rows, filename):
    upload(member, "pair", filename=filename)
    mappings = await rows.mappings(filename)
    assert [(row["model_name"], row["account"]) for row in mappings] == [
        ("pair", "openai-first"),
        ("pair", "openai-second"),
    ]
    assert {row["provider_file_id"] for row in mappings} == {one["id"] for one in sandbox.files}


def test_both_forms_of_azure_take_files(member, sandbox):
    upload(member, "azure,azure-v1")
    assert len({one["account"] for one in sandbox.files}) == 2
    assert {one["provider"] for one in sandbox.files} == {"azure"}
