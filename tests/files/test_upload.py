"""POST /files with the official SDK."""

import hashlib

PDF = b"%PDF-1.4 a small file\n" * 10


def test_one_upload_reaches_every_target(member, sandbox):
    file = member.files.create(
        file=("a.pdf", PDF), purpose="user_data", extra_body={"target_model_names": "mini,azure"}
    )
    assert file.id.startswith("file-mux-")
    assert (file.bytes, file.filename, file.purpose, file.status) == (len(PDF), "a.pdf", "user_data", "processed")
    digest = hashlib.sha256(PDF).hexdigest()
    held = {(one["provider"], one["sha256"], one["filename"]) for one in sandbox.files}
    assert held == {("openai", digest, "a.pdf"), ("azure", digest, "a.pdf")}
