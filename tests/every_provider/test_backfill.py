"""A file that was uploaded for one model name is sent to every other provider that a chat asks for."""

from tests.every_provider.test_errors import PROVIDERS
from tests.every_provider.test_files_in_chats import FILES, MODEL_NAMES, every_model, upload
from tests.support.chats import answer_of, ask, file_part, streamed_answer, text_part
from tests.support.uploads import sha256

PDF = FILES["report.pdf"][0]


@every_model
def test_one_upload_works_with_every_model_name(client, sandbox, model_name):
    """Uploaded for this one; first asked for in a stream, then not."""
    file = upload(client, "report.pdf", [model_name])
    for other in MODEL_NAMES:
        question = (text_part("Look:"), file_part(file.id))
        assert sha256(PDF) in streamed_answer(ask(client, other, *question, stream=True)), other
        assert sha256(PDF) in answer_of(ask(client, other, *question)), other
    assert sorted(one["provider"] for one in sandbox.files) == sorted(PROVIDERS.values())
    assert {sandbox.calls(f"{provider}.upload_file") for provider in PROVIDERS.values()} == {1}
    targets = client.files.retrieve(file.id).filemux["targets"]
    assert {name for target in targets for name in target["model_names"]} == set(MODEL_NAMES)
