"""A video that Gemini still works on: the replica says so, and a chat waits for it."""

import openai
import pytest

from tests.support.chats import answer_of, ask, file_part, text_part
from tests.support.sandbox import eventually
from tests.support.uploads import sha256

VIDEO = b"\x00\x00\x00\x18ftypmp42 moving pictures"


def upload(client, filename):
    return client.files.create(
        file=(filename, VIDEO, "video/mp4"),
        purpose="user_data",
        extra_body={"target_model_names": "gemini-flash"},
    )


def states(client, file_id):
    return [target["state"] for target in client.files.retrieve(file_id).filemux["targets"]]


def test_a_chat_waits_until_the_file_is_ready(client):
    file = upload(client, "clip.mp4")
    assert [target["state"] for target in file.filemux["targets"]] == ["processing"]
    answer = answer_of(ask(client, "gemini-flash", file_part(file.id), text_part("What happens?")))
    assert sha256(VIDEO) in answer
    assert states(client, file.id) == ["stored"]


def test_a_file_that_cannot_be_processed_is_a_failed_replica(client, sandbox):
    file = upload(client, "fails.mp4")
    assert eventually(lambda: states(client, file.id) == ["failed"])
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "gemini-flash", file_part(file.id))
    assert refused.value.code == "file_without_replica"
    # Its bytes are at the provider all the same, and go with the file.
    assert len(sandbox.files) == 1
    client.files.delete(file.id)
    assert eventually(lambda: not sandbox.files)


def test_a_file_is_deleted_while_it_is_processed(client, sandbox):
    file = upload(client, "clip.mp4")
    client.files.delete(file.id)
    assert eventually(lambda: not sandbox.files)
