"""What a vendor refuses, as the caller sees it: the right status in OpenAI's envelope (wire.md §0.5)."""

import openai
import pytest

from tests.every_provider.test_files_in_chats import MODEL_NAMES, upload
from tests.support.chats import ask, file_part, text_part
from tests.support.sandbox import eventually

PROVIDERS = dict(zip(MODEL_NAMES, ("openai", "azure", "anthropic", "gemini", "vertex_ai", "bedrock"), strict=True))
PASSED_ON, OURS, AGAIN, LATER, NO_MORE = (400, False), (502, False), (429, True), (503, True), (429, False)
GOOGLE = {400: PASSED_ON, 401: OURS, 403: OURS, 404: PASSED_ON, 429: AGAIN, 500: LATER, 503: LATER, 504: LATER}
OPENAI = {400: PASSED_ON, 401: OURS, 403: OURS, 404: PASSED_ON, 409: AGAIN, 429: AGAIN, 500: LATER, 503: LATER}
# The provider's status → the gateway's, and whether the SDK's retries are welcome.
STATUSES = {
    "openai": OPENAI,
    "azure": OPENAI,
    "anthropic": {
        400: PASSED_ON,
        401: OURS,
        402: NO_MORE,
        403: OURS,
        404: PASSED_ON,
        413: (413, False),
        422: PASSED_ON,
        429: AGAIN,
        500: LATER,
        504: LATER,
        529: LATER,
    },
    "gemini": GOOGLE,
    "vertex_ai": GOOGLE,
    "bedrock": {
        400: PASSED_ON,
        403: OURS,
        404: PASSED_ON,
        408: LATER,
        424: LATER,
        429: AGAIN,
        500: LATER,
        503: LATER,
    },
}
CASES = [
    (model_name, status, *expected)
    for model_name, provider in PROVIDERS.items()
    for status, expected in STATUSES[provider].items()
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model_name", "status", "expected", "retryable"), CASES)
def test_a_refusal_keeps_its_meaning(client, sandbox, model_name, status, expected, retryable, stream):
    fault = {"retry_after_seconds": 7} if status in (429, 503) else {}
    sandbox.fault(PROVIDERS[model_name], "stream_chat" if stream else "chat", status=status, **fault)
    with pytest.raises(openai.APIStatusError) as refused:
        ask(client, model_name, text_part("hello"), stream=stream)
    answer = refused.value
    assert answer.status_code == expected
    assert answer.body["message"] and set(answer.body) == {"message", "type", "param", "code"}
    if fault:
        assert answer.response.headers["retry-after"] == "7"
    assert (answer.status_code in (429, 503) and answer.response.headers.get("x-should-retry") != "false") is retryable


@pytest.mark.parametrize("model_name", MODEL_NAMES)
def test_an_upload_that_a_vendor_refuses_leaves_nothing_anywhere(client, sandbox, model_name):
    sandbox.fault(PROVIDERS[model_name], "upload_file", status=500, times=-1)
    with pytest.raises(openai.InternalServerError) as refused:
        upload(client, "report.pdf")
    assert refused.value.status_code == 503
    sandbox.heal()
    assert list(client.files.list()) == []


@pytest.mark.parametrize("model_name", MODEL_NAMES)
def test_an_unknown_file_id_never_reaches_a_vendor(client, sandbox, model_name):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, model_name, file_part("file-mux-" + "0" * 32), text_part("hello"))
    assert refused.value.param == "messages[0].content[0].file.file_id"
    assert sandbox.calls(f"{PROVIDERS[model_name]}.chat") == 0


@pytest.mark.parametrize("model_name", MODEL_NAMES)
def test_a_lost_answer_leaves_no_orphan(client, sandbox, model_name):
    """Where we choose the name the file is found again and kept; elsewhere the provider's list tells, and it goes."""
    sandbox.fault(PROVIDERS[model_name], "upload_file", lose_answer=True)
    try:
        file = upload(client, "report.pdf")
    except openai.InternalServerError:
        assert PROVIDERS[model_name] in ("openai", "azure", "anthropic")
    else:
        assert {target["state"] for target in file.filemux["targets"]} == {"stored"}
        assert len(sandbox.files) == len(MODEL_NAMES)
        client.files.delete(file.id)
    assert eventually(lambda: not sandbox.files, 120)
