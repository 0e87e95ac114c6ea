"""GET /files/{id}."""

import pytest

from tests.support.uploads import upload


def test_a_retrieved_file_is_the_one_that_was_created(member):
    created = upload(member, "mini,four,azure")
    retrieved = member.files.retrieve(created.id)
    assert retrieved.to_dict() == created.to_dict()


@pytest.mark.parametrize("file_id", ["file-mux-" + "0" * 32, "file-abc", "file-mux-" + "G" * 32, "%2e%2e", "x" * 500])
@pytest.mark.parametrize("path", ["/files/{}", "/files/{}/content"])
def test_a_file_that_does_not_exist(http, path, file_id):
    answer = http.get(path.format(file_id))
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].startswith("No such File object: ")
