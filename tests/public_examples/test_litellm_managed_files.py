"""LiteLLM, "Managed Files" (unified file id): https://docs.litellm.ai/docs/proxy/litellm_managed_files"""

import openai
import pytest

from tests.support.chats import answer_of, ask, file_part, seen, text_part
from tests.support.sandbox import eventually
from tests.support.uploads import PDF

QUESTION = "What is in this recording?"
NAME = "2403.05530.pdf"
TARGETS = "gpt-4o-mini-openai, gemini-2.0-flash"
# The "Complete Example" names the model behind the model name.
PREFIXED_TARGETS = "gpt-4o-mini-openai, vertex_ai/gemini-2.0-flash"
FINE_TUNING = b'{"messages": [{"role": "user", "content": "Who wrote it?"}, {"role": "assistant", "content": "He."}]}\n'
# The page's own example of another user's file.
UNIFIED_ID = (
    "bGl0ZWxsbV9wcm94eTphcHBsaWNhdGlvbi9vY3RldC1zdHJlYW07dW5pZmllZF9pZCwyYTgzOWIyYS03YzI1LTRiNTUtYTUxYS1lZjdhODljNzZkMzU7"
    "dGFyZ2V0X21vZGVsX25hbWVzLGdwdC00by1iYXRjaA"
)


@pytest.fixture
def client(connect):
    return connect()


def stored(client, targets=TARGETS):
    """The page's "Store a PDF file"."""
    return client.files.create(file=(NAME, PDF), purpose="user_data", extra_body={"target_model_names": targets})


def test_store_a_pdf_file(client, sandbox):
    file = stored(client)
    assert (file.filename, file.bytes, file.purpose) == (NAME, len(PDF), "user_data")
    assert sorted(one["provider"] for one in sandbox.files) == ["openai", "vertex_ai"]


def test_target_model_names_as_a_list(client, sandbox):
    stored(client, ["gpt-4o-mini-openai"])
    assert [one["provider"] for one in sandbox.files] == ["openai"]


@pytest.mark.parametrize("model", ["gpt-4o-mini-openai", "gemini-2.0-flash"])
def test_use_the_same_file_id_across_different_providers(client, model):
    completion = ask(client, model, text_part(QUESTION), file_part(stored(client).id))
    assert seen(NAME, PDF) in answer_of(completion)


def test_complete_example(client):
    file = stored(client, PREFIXED_TARGETS)
    for model in ("gemini-2.0-flash", "gpt-4o-mini-openai"):
        completion = ask(client, model, text_part(QUESTION), file_part(file.id))
        assert seen(NAME, PDF) in answer_of(completion)


def test_file_permissions(connect, new_key):
    client = connect(key=new_key("user_123"))
    file = client.files.create(
        file=("fine_tuning.jsonl", FINE_TUNING),
        purpose="fine-tune",
        extra_body={"target_model_names": "gpt-4.1-openai"},
    )
    assert client.files.retrieve(file_id=file.id) == file
    with pytest.raises(openai.NotFoundError):
        connect(key=new_key("user_124")).files.retrieve(file_id=file.id)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file_id=UNIFIED_ID)


def test_retrieve_a_file(client):
    file = stored(client)
    assert client.files.retrieve(file_id=file.id).filename == NAME


def test_delete_a_file(client, sandbox):
    assert client.files.delete(file_id=stored(client).id).deleted
    assert eventually(lambda: not sandbox.files)


def test_list_files(client):
    file = stored(client)
    # Nothing of it is sent by the SDK of today: all files of the team.
    listed = client.files.list(extra_body={"target_model_names": "gpt-4o-mini-openai"})
    assert file.id in [one.id for one in listed.data]
