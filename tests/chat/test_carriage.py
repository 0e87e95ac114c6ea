"""How a file travels in a chat: by the provider's id, inside the request, as text, or not at all."""

import base64
import json

import openai
import pytest

from app.formats import tool_calls
from tests.support.chats import answer_of, ask, file_part, seen, streamed_answer, text_part
from tests.support.uploads import PDF, raw_client, refusal, sha256, upload

MIB = 1024 * 1024
PNG = b"\x89PNG\r\n\x1a\n and the picture"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
# The sandbox names an account by its key's digest.
OTHER, VLLM = sha256(b"sk-second")[:8], sha256(b"sk-vllm")[:8]


def upload_as(client, targets, filename, mime_type, content):
    form = {"target_model_names": targets}
    return client.files.create(file=(filename, content, mime_type), purpose="user_data", extra_body=form)


def post_chat(http, model, *parts):
    return http.post("/chat/completions", json={"model": model, "messages": [{"role": "user", "content": list(parts)}]})


def base64_of(content):
    return base64.b64encode(content).decode()


def image(mime_type, content):
    return {"type": "image_url", "image_url": {"url": f"data:{mime_type};base64,{base64_of(content)}"}}


def audio(form, content):
    return {"type": "input_audio", "input_audio": {"data": base64_of(content), "format": form}}


def as_text(filename, text):
    return text_part(f'<file name="{filename}">\n{text}\n</file>')


UMLAUTS = "größer,報告\n"
# Filename, type, content, and the part that OpenAI is sent.
PARTS = [
    ("a.pdf", "application/pdf", PDF, file_part("file-of-the-recorder")),
    ("a.pdf", "Application/PDF; version=1.7", PDF, file_part("file-of-the-recorder")),
    *((f"a.{kind}", f"image/{kind}", PNG, image(f"image/{kind}", PNG)) for kind in ("png", "jpeg", "gif", "webp")),
    ("a.jpg", "image/jpg", PNG, image("image/jpeg", PNG)),
    ("a.wav", "audio/wav", b"RIFF", audio("wav", b"RIFF")),
    ("a.wav", "audio/x-wav", b"RIFF", audio("wav", b"RIFF")),
    ("a.mp3", "audio/mpeg", b"ID3", audio("mp3", b"ID3")),
    *(
        (f"a.{kind}", mime_type, UMLAUTS.encode(), as_text(f"a.{kind}", UMLAUTS))
        for kind, mime_type in (
            ("txt", "text/plain"),
            ("txt", "text/plain; charset=utf-8"),
            ("md", "text/markdown"),
            ("csv", "text/csv"),
            ("html", "text/html"),
            ("json", "application/json"),
            ("py", "text/x-python"),
        )
    ),
    ("a.txt", "text/plain", UMLAUTS.encode("utf-16"), as_text("a.txt", UMLAUTS)),
    ('say "hi".txt', "text/plain", b"hi", as_text("say %22hi%22.txt", "hi")),
]


@pytest.mark.parametrize(("filename", "mime_type", "content", "expected"), PARTS)
def test_the_part_that_openai_is_sent(recorded_member, recorded_http, recorder, filename, mime_type, content, expected):
    file = upload_as(recorded_member, "recorded", filename, mime_type, content)
    answer = post_chat(recorded_http, "recorded", text_part("Look:"), file_part(file.id), text_part("What is it?"))
    assert answer.status_code == 200, answer.text
    [message] = json.loads(recorder.chats[0].body)["messages"]
    assert message["content"] == [text_part("Look:"), expected, text_part("What is it?")]


FILES = {
    "report.pdf": ("application/pdf", PDF),
    "photo.png": ("image/png", PNG),
    "words.mp3": ("audio/mpeg", b"ID3 some words"),
    "notes.txt": ("text/plain", "größer\n".encode()),
    "table.csv": ("text/csv", b"a,b\r\n1,2\r\n"),
    "page.html": ("text/html", b'<p title="a page">&amp;</p>\n</file>'),
}


def line_of(filename):
    """What the model says that it was given; neither an image nor sound has a name in a chat."""
    mime_type, content = FILES[filename]
    return seen("upload" if mime_type.startswith(("image/", "audio/")) else filename, content)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["mini", "azure", "vllm"])
def test_several_files_in_one_request(member, model, stream):
    ids = [upload_as(member, model, name, *FILES[name]).id for name in FILES]
    answer = ask(member, model, *map(file_part, ids), text_part("Compare them."), stream=stream)
    said = streamed_answer(answer) if stream else answer_of(answer)
    assert said == "\n".join([*map(line_of, FILES), "Compare them."])


@pytest.mark.parametrize("name", FILES)
def test_a_server_without_a_files_api_gets_the_file_inside_the_request(member, sandbox, name):
    for targets in ("vllm", "mini,vllm"):
        file = upload_as(member, targets, name, *FILES[name])
        assert answer_of(ask(member, "vllm", file_part(file.id), text_part("Hello"))) == f"{line_of(name)}\nHello"
    assert {one["account"] for one in sandbox.files} == {sha256(b"sk-first")[:8]}


@pytest.mark.parametrize("name", [name for name in FILES if name != "report.pdf"])
def test_what_travels_inside_the_request_needs_no_replica(member, sandbox, name):
    file = upload_as(member, "azure", name, *FILES[name])
    assert line_of(name) in answer_of(ask(member, "mini", file_part(file.id)))
    assert {one["provider"] for one in sandbox.files} == {"azure"}


def test_the_same_file_several_times(member):
    name = "notes.txt"
    file = upload_as(member, "mini", name, *FILES[name])
    messages = [
        {"role": "user", "content": [file_part(file.id), text_part("One"), file_part(file.id)]},
        {"role": "assistant", "content": "I see."},
        {"role": "user", "content": [file_part(file.id), text_part("Two")]},
    ]
    completion = member.chat.completions.create(model="mini", messages=messages)
    assert answer_of(completion).splitlines() == [line_of(name)] * 3 + ["Two"]


# --- refused ----------------------------------------------------------------------------------------------------

WHERE = "messages[0].content[1].file.file_id"


@pytest.mark.parametrize(
    ("filename", "mime_type"),
    [
        ("a.docx", DOCX),
        ("a.xls", "application/vnd.ms-excel"),
        ("a.mp4", "video/mp4"),
        ("a.flac", "audio/flac"),
        ("a.tiff", "image/tiff"),
        ("nameless", "application/octet-stream"),
    ],
)
@pytest.mark.parametrize("model", ["mini", "azure", "vllm"])
def test_a_type_that_the_provider_does_not_take(member, http, sandbox, model, filename, mime_type):
    file = upload_as(member, model, filename, mime_type, b"\x00\x01\x02\x03")
    message = refusal(post_chat(http, model, text_part("a"), file_part(file.id)), 400, "unsupported_file_type", WHERE)
    assert message.startswith(f"{WHERE}: ") and mime_type in message
    assert sandbox.calls("openai.chat") == sandbox.calls("azure.chat") == 0


@pytest.mark.parametrize(
    ("filename", "mime_type", "limit"), [("a.png", "image/png", 20 * MIB), ("a.txt", "text/plain", 10 * MIB)]
)
def test_a_file_that_is_too_large_to_travel_inside_the_request(member, http, sandbox, filename, mime_type, limit):
    file = upload_as(member, "mini", filename, mime_type, b"x" * (limit + 1))
    message = refusal(post_chat(http, "mini", text_part("a"), file_part(file.id)), 413, "file_too_large", WHERE)
    assert str(limit) in message and str(limit + 1) in message
    assert sandbox.calls("openai.chat") == 0
    fits = upload_as(member, "mini", filename, mime_type, b"x" * limit)
    assert f"bytes={limit} " in answer_of(ask(member, "mini", file_part(fits.id)))


@pytest.mark.parametrize("times", [(1, 1, 1), (3,)], ids=["three files", "one file three times"])
def test_files_that_are_too_large_together(member, http, sandbox, times):
    parts = []
    for number, count in enumerate(times):
        file = upload_as(member, "mini", f"{number}.png", "image/png", b"x" * (17 * MIB))
        parts += [file_part(file.id)] * count
    refusal(post_chat(http, "mini", *parts), 413, "file_too_large", "messages")
    assert sandbox.calls("openai.chat") == 0


@pytest.mark.parametrize("content", [PNG, UMLAUTS.encode("latin-1", "ignore"), b"\xff\xfe\x00"])
def test_a_text_that_is_none(member, http, sandbox, content):
    file = upload_as(member, "mini", "a.txt", "text/plain", content)
    message = refusal(post_chat(http, "mini", text_part("a"), file_part(file.id)), 400, "file_not_text", WHERE)
    assert message.startswith(f"{WHERE}: ")
    assert sandbox.calls("openai.chat") == 0


@pytest.mark.parametrize(
    ("message", "where"),
    [
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"file_id": "FILE"}}]},
            "messages[0].content[0].image_url.file_id",
        ),
        ({"role": "user", "content": "Hello", "file_id": "FILE"}, "messages[0].file_id"),
        ({"role": "user", "content": [{"type": "file", "file_id": "FILE"}]}, "messages[0].content[0].file_id"),
        # In its place, and once more out of it.
        ({"role": "user", "content": [file_part("FILE")], "file_id": "FILE"}, "messages[0].file_id"),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_id": "FILE", "x": {"file_id": "FILE"}}}]},
            "messages[0].content[0].file.x.file_id",
        ),
    ],
)
def test_a_file_id_outside_of_a_file_part(recorded_member, recorded_http, recorder, message, where):
    """A file that travels inside the request has no other place; the id of one that does not goes where it stands."""
    text = upload_as(recorded_member, "recorded", "a.txt", "text/plain", b"text")
    pdf = upload_as(recorded_member, "recorded", "a.pdf", "application/pdf", PDF)

    def post(file_id):
        body = json.dumps({"model": "recorded", "messages": [message]}).replace("FILE", file_id)
        return recorded_http.post("/chat/completions", content=body)

    assert refusal(post(text.id), 400, "file_id_outside_part", where).startswith(f"{where}: ")
    assert recorder.chats == []
    assert post(pdf.id).status_code == 200
    assert json.loads(recorder.chats[0].body)["messages"] == [
        json.loads(json.dumps(message).replace("FILE", "file-of-the-recorder"))
    ]


# --- nothing kept -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FILES if name != "report.pdf"])
def test_without_kept_bytes_only_ids_travel(keepless, sandbox, name):
    file = upload_as(keepless, "mini", name, *FILES[name])
    with raw_client(keepless) as http:
        answer = post_chat(http, "mini", text_part("a"), file_part(file.id))
    message = refusal(answer, 400, "content_not_available", WHERE)
    assert message.startswith(f"{WHERE}: ") and "filemux.sources" in message
    assert sandbox.calls("openai.chat") == 0
    pdf = upload_as(keepless, "mini", "report.pdf", *FILES["report.pdf"])
    assert line_of("report.pdf") in answer_of(ask(keepless, "mini", file_part(pdf.id)))


@pytest.mark.parametrize("model", ["mini", "vllm"])
def test_without_kept_bytes_they_come_from_a_provider_that_gives_them_back(keepless, model):
    file = upload(keepless, "mini", b'{"a": 1}', filename="a.json", purpose="fine-tune")
    assert answer_of(ask(keepless, model, file_part(file.id))) == seen("a.json", b'{"a": 1}')


# --- several deployments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_deployment_that_cannot_be_given_the_file_is_not_asked(recorded_member, sandbox, stream):
    """Of the two, only the server without files can have it: it was never uploaded to the other one."""
    file = upload(recorded_member, "mini")
    sandbox.fault("openai", "*", status=500, times=-1, account=OTHER)
    for _ in range(8):
        answer = ask(recorded_member, "mixed", file_part(file.id), stream=stream)
        assert (streamed_answer(answer) if stream else answer_of(answer)) == seen("a.pdf", PDF)
    assert sandbox.calls("openai.stream_chat" if stream else "openai.chat") == 8


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("broken", [OTHER, VLLM])
def test_each_deployment_gets_the_file_in_its_own_way(recorded_member, sandbox, name, broken):
    file = upload_as(recorded_member, "mixed", name, *FILES[name])
    sandbox.fault("openai", "chat", status=503, times=-1, account=broken)
    for _ in range(6):
        assert answer_of(ask(recorded_member, "mixed", file_part(file.id))) == line_of(name)


def test_a_file_that_no_deployment_can_be_given(recorded_member, sandbox):
    pdf = upload(recorded_member, "mini")
    office = upload_as(recorded_member, "mixed", "a.docx", DOCX, b"PK")
    with pytest.raises(openai.BadRequestError) as refused:
        ask(recorded_member, "mixed", file_part(pdf.id), file_part(office.id))
    assert (refused.value.code, refused.value.param) == ("unsupported_file_type", WHERE)
    assert sandbox.calls("openai.chat") == 0


# --- tools ------------------------------------------------------------------------------------------------------


def called(call_id):
    function = {"name": "look_up", "arguments": "{}"}
    return {"role": "assistant", "tool_calls": [{"id": call_id, "type": "function", "function": function}]}


def test_a_tools_result_may_hold_files(member):
    ids = [upload_as(member, "mini", name, *FILES[name]).id for name in ("notes.txt", "table.csv")]
    messages = [
        {"role": "user", "content": "Look them up."},
        called("call_1"),
        {"role": "tool", "tool_call_id": "call_1", "content": [*map(file_part, ids), text_part("Here they are.")]},
    ]
    completion = member.chat.completions.create(model="mini", messages=messages)
    assert answer_of(completion).splitlines() == [line_of("notes.txt"), line_of("table.csv"), "Here they are."]


def test_what_tool_call_ids_carry_for_another_vendor_is_not_sent_to_openai(recorded_http, recorder):
    laden = tool_calls.with_extra("call_1", "anthropic", {"thinking": "Let me see.", "signature": "s" * 500})
    messages = [called(laden), {"role": "tool", "tool_call_id": laden, "content": laden}, called("call_2")]
    assert recorded_http.post("/chat/completions", json={"model": "recorded", "messages": messages}).status_code == 200
    expected = [called("call_1"), {"role": "tool", "tool_call_id": "call_1", "content": laden}, called("call_2")]
    assert json.loads(recorder.chats[0].body)["messages"] == expected
