"""Requests in Bedrock's Converse, row by row as wire.md §6c and §6d have it."""

import json

import pytest

from app.errors import Rejected, Unsupported
from app.formats import tool_calls
from app.formats.converse import translate
from app.formats.openai import Chat, FileFacts

NOVA, CLAUDE = "us.amazon.nova-lite-v1:0", "us.anthropic.claude-sonnet-5"
URI = "s3://bucket/filemux/abc"
PART = "messages[0].content[0]"
QUESTION = {"role": "user", "content": "why?"}
LOOKUP = {
    "type": "function",
    "function": {"name": "lookup", "description": "Looks up.", "parameters": {"type": "object"}},
}
LOOKUP_SPEC = {"toolSpec": {"name": "lookup", "description": "Looks up.", "inputSchema": {"json": {"type": "object"}}}}
OPEN_SCHEMA = {"json": {"type": "object", "properties": {}}}


def chat_of(*messages, model=NOVA, drop_params=False, files=None, **parameters):
    body = json.dumps({"model": model, "messages": list(messages) or [QUESTION], **parameters}).encode()
    return Chat.read(body, provider="bedrock", provider_model=model, files=files or {}, drop_params=drop_params)


def translated(*messages, **options):
    return translate(chat_of(*messages, **options))


def user(*parts):
    return {"role": "user", "content": list(parts)}


def text(content):
    return {"type": "text", "text": content}


def image(url, **options):
    return {"type": "image_url", "image_url": {"url": url, **options}}


def audio(sound_format):
    return {"type": "input_audio", "input_audio": {"data": "QUJD", "format": sound_format}}


def file(**source):
    return {"type": "file", "file": source}


def calling(*calls, content=None):
    """An assistant's turn that calls functions: (id, name, arguments) each."""
    made = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for call_id, name, arguments in calls
    ]
    return {"role": "assistant", "content": content, "tool_calls": made}


def result(call_id, content="42"):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def blocks_of(*messages, **options):
    """The blocks of the only turn, or of the last."""
    return translated(*messages, **options)["messages"][-1]["content"]


# --- messages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["system", "developer"])
def test_what_the_system_says_first_is_the_system(role):
    body = translated({"role": role, "content": "be brief"}, {"role": "system", "content": "and kind"}, QUESTION)
    assert body["system"] == [{"text": "be brief"}, {"text": "and kind"}]
    assert body["messages"] == [{"role": "user", "content": [{"text": "why?"}]}]


def test_what_the_system_says_later_is_said_by_the_user():
    body = translated(QUESTION, {"role": "system", "content": "be brief"})
    assert body == {"messages": [{"role": "user", "content": [{"text": "why?"}, {"text": "be brief"}]}]}


def test_turns_of_one_role_are_one_turn_and_blank_ones_none():
    said = [
        QUESTION,
        user(text(""), text(" \n")),
        user(text("how?")),
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": [text("so"), {"type": "refusal", "refusal": "no"}]},
        {"role": "assistant", "content": None, "refusal": "never"},
    ]
    assert translated(*said)["messages"] == [
        {"role": "user", "content": [{"text": "why?"}, {"text": "how?"}]},
        {"role": "assistant", "content": [{"text": "so"}, {"text": "no"}, {"text": "never"}]},
    ]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "assistant", "content": "hi"}, QUESTION], "messages[0]"),
        ([{"role": "system", "content": "be brief"}, {"role": "assistant", "content": "hi"}], "messages[1]"),
        ([{"role": "system", "content": "be brief"}], "messages"),
    ],
)
def test_a_conversation_that_does_not_begin_with_the_user_is_refused(messages, param):
    with pytest.raises(Rejected) as refused:
        translated(*messages)
    assert refused.value.param == param


def inline(kind, extension, **more):
    return {kind: {"format": extension, "source": {"bytes": "QUJD"}, **more}}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (image("data:image/png;base64,QUJD"), inline("image", "png")),
        (image("data:image/jpg;base64,QUJD"), inline("image", "jpeg")),
        (audio("wav"), inline("audio", "wav")),
        (audio("mp3"), inline("audio", "mp3")),
        (file(file_data="QUJD", filename="a.mov"), inline("video", "mov")),
        (file(file_data="QUJD", filename="my a.b_c.pdf"), inline("document", "pdf", name="my a b c pdf")),
        (file(file_data="data:text/markdown;base64,QUJD"), inline("document", "md", name="document")),
        (file(file_data="QUJD", filename="a.py"), {"text": '<file name="a.py">\nABC\n</file>'}),
    ],
)
def test_media_travel_as_bytes(part, expected):
    assert blocks_of(user(text("see"), part))[1] == expected


@pytest.mark.parametrize(
    ("mime_type", "kind", "name"),
    [
        ("application/pdf", "document", "pdf"),
        ("text/csv", "document", "csv"),
        ("application/msword", "document", "doc"),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "document", "docx"),
        ("application/vnd.ms-excel", "document", "xls"),
        ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "document", "xlsx"),
        ("text/html", "document", "html"),
        ("text/plain; charset=utf-8", "document", "txt"),
        ("text/x-markdown", "document", "md"),
        ("image/webp", "image", "webp"),
        ("image/gif", "image", "gif"),
        ("video/mp4", "video", "mp4"),
        ("video/3gpp", "video", "three_gp"),
        ("audio/flac", "audio", "flac"),
    ],
)
def test_a_stored_file_travels_as_its_place_in_s3(mime_type, kind, name):
    [made] = blocks_of(user(text("see"), file(file_id=URI)), files={URI: FileFacts(mime_type, "a")})[1:]
    named = {"name": "a"} if kind == "document" else {}
    assert made == {kind: {"format": name, "source": {"s3Location": {"uri": URI}}, **named}}


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("report.pdf", "report pdf"),
        ("  a_b -- (1) [x]\t\n.pdf", "a b -- (1) [x] pdf"),
        ("日本.pdf", "pdf"),
        ("...", "document"),
        ("", "document"),
        ("x" * 300, "x" * 200),
    ],
)
def test_document_names_are_what_converse_allows(filename, name):
    made = blocks_of(user(text("see"), file(file_data="QUJD", filename=filename, format="application/pdf")))
    assert made[1]["document"]["name"] == name


def test_document_names_are_unlike_each_other_in_the_whole_conversation():
    pdf, long = file(file_data="QUJD", filename="a.pdf"), file(file_data="QUJD", filename="x" * 300 + ".pdf")
    body = translated(
        user(text("see"), pdf, pdf, long),
        calling(("t1", "lookup", {})),
        result("t1", [long, file(file_data="QUJD", filename="A.PDF")]),
    )
    first, _, last = (turn["content"] for turn in body["messages"])
    names = [made["document"]["name"] for made in (*first[1:], *last[0]["toolResult"]["content"])]
    assert names == ["a pdf", "a pdf (2)", "x" * 200, "x" * 196 + " (2)", "A PDF (3)"]


def test_a_document_alone_is_given_the_text_that_converse_wants():
    pdfs = [file(file_data="QUJD", filename=name) for name in ("a.pdf", "b.pdf")]
    assert blocks_of(user(*pdfs))[2:] == [{"text": "Documents: a pdf, b pdf"}]
    assert len(blocks_of(user(*pdfs), user(text("see")))) == 3
    assert len(blocks_of(user(image("data:image/png;base64,QUJD")))) == 1


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (user(file(file_data="QUJD", filename="a.zip")), f"{PART}.file.file_data"),
        (user(file(file_url="https://x.org/a.pdf")), f"{PART}.file.file_url"),
        (user(image("https://x.org/a.png")), f"{PART}.image_url.url"),
        (user(file(file_url="s3://other/a.pdf")), f"{PART}.file.file_url"),
        (user(file(file_data="/w==", filename="a.py")), f"{PART}.file.file_data"),
        (user({"type": "refusal", "refusal": "no"}), PART),
        ({"role": "assistant", "content": [image("data:image/png;base64,QUJD")]}, PART),
        ({"role": "user", "name": "ann", "content": "hi"}, "messages[0].name"),
        (result("t1", [audio("wav")]), f"{PART}.input_audio.data"),
    ],
)
def test_what_converse_does_not_take_is_refused_by_its_place(message, param):
    with pytest.raises((Rejected, Unsupported)) as refused:
        translated(message)
    assert refused.value.param == param


# --- tools ------------------------------------------------------------------------------------------------------


def tool_use(call_id, **arguments):
    return {"toolUse": {"toolUseId": call_id, "name": "lookup", "input": arguments}}


def tool_result(call_id, *content):
    return {"toolResult": {"toolUseId": call_id, "content": list(content)}}


def test_calls_and_their_results_which_stand_first():
    calls = calling(("t1", "lookup", {"q": "x"}), ("t2", "lookup", {}), content="wait")
    late = {"role": "system", "content": "be brief"}
    body = translated(QUESTION, calls, result("t2"), late, result("t1", ""), QUESTION, tools=[LOOKUP])
    assert body["messages"][1:] == [
        {"role": "assistant", "content": [{"text": "wait"}, tool_use("t1", q="x"), tool_use("t2")]},
        {
            "role": "user",
            "content": [tool_result("t2", {"text": "42"}), tool_result("t1"), {"text": "be brief"}, {"text": "why?"}],
        },
    ]


def test_files_in_a_result_stand_in_it():
    pdf = file(file_data="QUJD", filename="a.pdf")
    made = blocks_of(QUESTION, calling(("t1", "lookup", {})), result("t1", [text("see"), pdf]))
    assert made == [tool_result("t1", {"text": "see"}, inline("document", "pdf", name="a pdf"))]


@pytest.mark.parametrize(("call_id", "kept"), [("tooluse_1:a.b-c", True), ("fc 1", False), ("x" * 65, False)])
def test_ids_are_what_converse_allows(call_id, kept):
    messages = translated(QUESTION, calling((call_id, "lookup", {})), result(call_id))["messages"]
    use, answered = messages[1]["content"][0]["toolUse"], messages[2]["content"][0]["toolResult"]
    assert use["toolUseId"] == answered["toolUseId"]
    assert (use["toolUseId"] == call_id) is kept
    assert len(use["toolUseId"]) <= 64


@pytest.mark.parametrize("arguments", ["[1]", "{", "7"])
def test_arguments_that_are_no_object_are_refused(arguments):
    call = calling(("t1", "lookup", {}))
    call["tool_calls"][0]["function"]["arguments"] = arguments
    with pytest.raises(Rejected) as refused:
        translated(QUESTION, call)
    assert refused.value.param == "messages[1].tool_calls[0].function.arguments"


def test_tools_are_declared_with_their_schemas():
    bare = {"type": "function", "function": {"name": "bare", "strict": True}}
    untyped = {"type": "function", "function": {"name": "untyped", "parameters": {"properties": {"q": {}}}}}
    assert translated(tools=[LOOKUP, bare, untyped])["toolConfig"]["tools"] == [
        LOOKUP_SPEC,
        {"toolSpec": {"name": "bare", "inputSchema": OPEN_SCHEMA, "strict": True}},
        {"toolSpec": {"name": "untyped", "inputSchema": {"json": {"type": "object", "properties": {"q": {}}}}}},
    ]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", {"auto": {}}),
        ("required", {"any": {}}),
        ({"type": "function", "function": {"name": "lookup"}}, {"tool": {"name": "lookup"}}),
    ],
)
def test_tool_choice(choice, sent):
    assert translated(tools=[LOOKUP], tool_choice=choice)["toolConfig"] == {"tools": [LOOKUP_SPEC], "toolChoice": sent}


def test_without_calls_in_the_history_no_choice_is_no_tools():
    assert translated(tools=[LOOKUP], tool_choice="none") == translated()


@pytest.mark.parametrize(
    ("parameters", "specs"),
    [
        ({"tools": [LOOKUP], "tool_choice": "none"}, [LOOKUP_SPEC]),
        ({}, [{"toolSpec": {"name": "lookup", "inputSchema": OPEN_SCHEMA}}]),
    ],
)
def test_with_calls_in_the_history_the_tools_stay_and_the_prompt_forbids_them(parameters, specs):
    body = translated(QUESTION, calling(("t1", "lookup", {})), result("t1"), **parameters)
    assert body["toolConfig"] == {"tools": specs}
    assert body["system"] == [{"text": "Answer without calling a tool."}]


def test_a_choice_among_no_tools():
    assert translated(tool_choice="none") == translated(tool_choice="auto") == translated()
    with pytest.raises(Rejected) as refused:
        translated(tool_choice="required")
    assert refused.value.param == "tool_choice"


THOUGHT = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}}
HIDDEN = {"reasoningContent": {"redactedContent": "QUJD"}}


def carrying(*blocks):
    return tool_calls.with_extra("t1", "bedrock", list(blocks))


def test_signed_reasoning_comes_back_before_what_was_said():
    second = tool_calls.with_extra("t2", "bedrock", [HIDDEN])
    calls = calling((carrying(THOUGHT, HIDDEN), "lookup", {}), (second, "lookup", {}), content="wait")
    expected = [THOUGHT, HIDDEN, {"text": "wait"}, tool_use("t1"), HIDDEN, tool_use("t2")]
    assert blocks_of(QUESTION, calls, model=CLAUDE) == expected
    # Another model that goes on with the conversation has no use for it.
    assert blocks_of(QUESTION, calls) == [{"text": "wait"}, tool_use("t1"), tool_use("t2")]


@pytest.mark.parametrize(
    "forged",
    [
        [{"document": {"format": "pdf", "name": "x", "source": {"s3Location": {"uri": "s3://other/key"}}}}],
        [{**THOUGHT, "text": "x"}],
        ["text"],
        {"reasoningContent": {}},
        7,
    ],
)
def test_nothing_but_reasoning_gets_in_by_an_id(forged):
    call_id = tool_calls.with_extra("t1", "bedrock", forged)
    assert blocks_of(QUESTION, calling((call_id, "lookup", {})), model=CLAUDE) == [tool_use("t1")]


def test_what_another_vendor_signed_stays_away():
    call_id = tool_calls.with_extra("toolu_1", "anthropic", [{"type": "thinking"}])
    assert blocks_of(QUESTION, calling((call_id, "lookup", {}))) == [tool_use("toolu_1")]


# --- parameters -------------------------------------------------------------------------------------------------


def inference(**config):
    return {"inferenceConfig": config}


def json_schema(**definition):
    return {"outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": definition}}}}


def by_schema(**schema):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", **schema}}}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"temperature": 0.7, "top_p": 0}, inference(temperature=0.7, topP=0)),
        ({"temperature": 1.5}, inference(temperature=1)),
        ({"max_tokens": 7}, inference(maxTokens=7)),
        ({"max_completion_tokens": 8, "max_tokens": 7}, inference(maxTokens=8)),
        ({"stop": "end"}, inference(stopSequences=["end"])),
        ({"stop": ["a", ""]}, inference(stopSequences=["a"])),
        ({"stop": ""}, {}),
        ({"response_format": {"type": "text"}}, {}),
        (
            {"response_format": {"type": "json_object"}},
            {"system": [{"text": "Answer with one JSON object and nothing else."}]},
        ),
        (by_schema(schema={"type": "object"}, strict=True), json_schema(schema='{"type":"object"}', name="x")),
        (by_schema(schema={"maximum": 2**64}), json_schema(schema='{"maximum":18446744073709551616}', name="x")),
        (by_schema(description="d"), json_schema(schema="{}", name="x", description="d")),
        ({"service_tier": "default"}, {"serviceTier": {"type": "default"}}),
        ({"service_tier": "flex"}, {"serviceTier": {"type": "flex"}}),
        ({"service_tier": "priority"}, {"serviceTier": {"type": "priority"}}),
        ({"service_tier": "auto", "parallel_tool_calls": True, "store": False, "metadata": {}}, {}),
        ({"user": "u-1"}, {"requestMetadata": {"user": "u-1"}}),
        (
            {"safety_identifier": "s-1", "metadata": {"team": "red"}},
            {"requestMetadata": {"team": "red", "safety_identifier": "s-1"}},
        ),
    ],
)
def test_parameters(parameters, expected):
    body = translated(**parameters)
    del body["messages"]
    assert body == expected


ADAPTIVE = {"thinking": {"type": "adaptive"}}


@pytest.mark.parametrize(
    ("effort", "sent"),
    [
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "xhigh"),
        ("max", "max"),
    ],
)
def test_reasoning_effort(effort, sent):
    body = translated(reasoning_effort=effort)
    assert body["outputConfig"] == {"effort": sent}
    assert "additionalModelRequestFields" not in body
    assert translated(model=CLAUDE, reasoning_effort=effort) == body | {"additionalModelRequestFields": ADAPTIVE}


def test_only_claude_can_be_told_not_to_think():
    body = translated(model=CLAUDE, reasoning_effort="none")
    assert body["additionalModelRequestFields"] == {"thinking": {"type": "disabled"}}
    assert "outputConfig" not in body


@pytest.mark.parametrize(
    "parameter",
    [
        {"parallel_tool_calls": False},
        {"reasoning_effort": "none"},
        {"service_tier": "scale"},
        {"user": "ann@home (work)"},
        {"metadata": {"key": "x" * 257}},
        {"metadata": {"": "x"}},
        {"metadata": {f"key {number}": "x" for number in range(17)}},
        {"n": 2},
        {"seed": 7},
        {"presence_penalty": 1},
        {"frequency_penalty": 1},
        {"logprobs": True},
        {"top_logprobs": 3},
        {"logit_bias": {"50256": -100}},
        {"verbosity": "low"},
        {"modalities": ["text", "audio"]},
        {"store": True},
        {"prompt_cache_key": "k"},
    ],
)
def test_what_converse_does_not_have_is_refused_or_dropped_with_notice(parameter):
    [name] = parameter
    with pytest.raises(Unsupported) as refused:
        translated(**parameter)
    assert refused.value.param == name
    chat = chat_of(**parameter, drop_params=True)
    assert translate(chat) == translated()
    assert chat.parameters.dropped == [name]


def test_no_metadata_hides_another():
    chat = chat_of(metadata={"user": "a"}, user="b", drop_params=True)
    assert translate(chat)["requestMetadata"] == {"user": "a"}
    assert chat.parameters.dropped == ["user"]


def test_how_closely_an_image_is_looked_at_is_left_out_with_notice():
    chat = chat_of(user(image("data:image/png;base64,QUJD", detail="high")))
    translate(chat)
    assert chat.parameters.dropped == [f"{PART}.image_url.detail"]
