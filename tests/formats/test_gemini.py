"""Requests in Gemini's format, row by row as wire.md §4c and §4d have it."""

import json

import pytest

from app.errors import Rejected, Unsupported
from app.formats import tool_calls
from app.formats.gemini import FOREIGN_SIGNATURE, translate
from app.formats.openai import Chat, FileFacts

URI = "https://generativelanguage.googleapis.com/v1/files/abc"
PART = "messages[0].content[0]"
QUESTION = {"role": "user", "content": "why?"}
LOOKUP = {
    "type": "function",
    "function": {"name": "lookup", "description": "Looks up.", "parameters": {"type": "object"}},
}


def chat_of(*messages, model="gemini-2.5-flash", drop_params=False, files=None, **parameters):
    body = json.dumps({"model": model, "messages": list(messages) or [QUESTION], **parameters}).encode()
    return Chat.read(body, provider="gemini", provider_model=model, files=files or {}, drop_params=drop_params)


def translated(*messages, **options):
    return translate(chat_of(*messages, **options))


def config(**options):
    return translated(**options).get("generationConfig")


def user(*parts):
    return {"role": "user", "content": list(parts)}


def image(url):
    return {"type": "image_url", "image_url": {"url": url}}


def audio(sound_format):
    return {"type": "input_audio", "input_audio": {"data": "QUJD", "format": sound_format}}


def file(**source):
    return {"type": "file", "file": source}


def calling(*calls):
    """An assistant's turn that calls functions: (id, name, arguments) each."""
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for call_id, name, arguments in calls
        ],
    }


def result(call_id, content="42"):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def parts_of(*messages, **options):
    """The parts of the only turn, or of the last."""
    return translated(*messages, **options)["contents"][-1]["parts"]


# --- messages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["system", "developer"])
def test_what_the_system_says_first_is_the_instruction(role):
    body = translated({"role": role, "content": "be brief"}, {"role": "system", "content": "and kind"}, QUESTION)
    assert body["systemInstruction"] == {"parts": [{"text": "be brief"}, {"text": "and kind"}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": "why?"}]}]


def test_what_the_system_says_later_is_said_by_the_user():
    body = translated(QUESTION, {"role": "system", "content": "be brief"})
    assert body == {"contents": [{"role": "user", "parts": [{"text": "why?"}, {"text": "be brief"}]}]}


def test_turns_of_one_role_are_one_turn_and_empty_ones_none():
    said = [
        QUESTION,
        user({"type": "text", "text": ""}),
        user({"type": "text", "text": "how?"}),
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": [{"type": "text", "text": "so"}, {"type": "refusal", "refusal": "no"}]},
        {"role": "assistant", "content": None, "refusal": "never"},
    ]
    assert translated(*said)["contents"] == [
        {"role": "user", "parts": [{"text": "why?"}, {"text": "how?"}]},
        {"role": "model", "parts": [{"text": "so"}, {"text": "no"}, {"text": "never"}]},
    ]


def inline(mime_type, data):
    return {"inlineData": {"mimeType": mime_type, "data": data}}


def referenced(mime_type, uri):
    return {"fileData": {"mimeType": mime_type, "fileUri": uri}}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (image("data:image/png;base64,QUJD"), inline("image/png", "QUJD")),
        (image("https://x.org/a.webp"), referenced("image/webp", "https://x.org/a.webp")),
        (audio("wav"), inline("audio/wav", "QUJD")),
        (audio("mp3"), inline("audio/mp3", "QUJD")),
        (file(file_data="data:application/pdf;base64,QUJD"), inline("application/pdf", "QUJD")),
        (file(file_data="QUJD", filename="a.mp4"), inline("video/mp4", "QUJD")),
        (file(file_url="https://x.org/a.pdf"), referenced("application/pdf", "https://x.org/a.pdf")),
        (file(file_data="QUJD", filename="a.csv"), {"text": '<file name="a.csv">\nABC\n</file>'}),
        (file(file_data="data:text/plain;base64,QUJD"), {"text": '<file name="document.txt">\nABC\n</file>'}),
    ],
)
def test_media_travel_as_data_or_by_address(part, expected):
    assert parts_of(user(part)) == [expected]


@pytest.mark.parametrize("mime_type", ["application/pdf", "text/html", "audio/mpeg", "video/mp4"])
def test_a_stored_file_travels_as_its_uri(mime_type):
    files = {URI: FileFacts(mime_type, "a")}
    assert parts_of(user(file(file_id=URI)), files=files) == [referenced(mime_type, URI)]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (user(file(file_data="QUJD", filename="a.zip")), f"{PART}.file.file_data"),
        (user(file(file_url="gs://bucket/a.pdf")), f"{PART}.file.file_url"),
        (user(file(file_data="/w==", filename="a.txt")), f"{PART}.file.file_data"),
        (user({"type": "refusal", "refusal": "no"}), PART),
        ({"role": "assistant", "content": [image("https://x.org/a.png")]}, PART),
        ({"role": "user", "name": "ann", "content": "hi"}, "messages[0].name"),
        (result("call_1"), "messages[0].tool_call_id"),
    ],
)
def test_what_no_model_takes_is_refused_by_its_place(message, param):
    with pytest.raises((Rejected, Unsupported)) as refused:
        translated(message)
    assert refused.value.param == param


# --- tools ------------------------------------------------------------------------------------------------------


def test_a_call_and_its_result():
    body = translated(QUESTION, calling(("fc1", "lookup", {"q": "x"})), result("fc1"), QUESTION)
    assert body["contents"][1:] == [
        {"role": "model", "parts": [{"functionCall": {"id": "fc1", "name": "lookup", "args": {"q": "x"}}}]},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "fc1", "name": "lookup", "response": {"output": "42"}}},
                {"text": "why?"},
            ],
        },
    ]


def test_ids_that_the_vendor_did_not_give_stay_here():
    call, response = translated(QUESTION, calling(("call_1", "lookup", {})), result("call_1"))["contents"][1:]
    assert call["parts"] == [{"functionCall": {"name": "lookup", "args": {}}}]
    assert response["parts"] == [{"functionResponse": {"name": "lookup", "response": {"output": "42"}}}]


def test_results_without_ids_are_in_the_order_of_their_calls():
    calls = calling(("call_1", "lookup", {"q": "x"}), ("call_2", "lookup", {"q": "y"}))
    parts = parts_of(QUESTION, calls, result("call_2", "of y"), result("call_1", "of x"))
    assert [part["functionResponse"]["response"]["output"] for part in parts] == ["of x", "of y"]


def test_a_result_names_its_function_itself_if_its_call_is_not_there():
    named = {**result("call_1"), "name": "lookup"}
    assert parts_of(QUESTION, named)[-1]["functionResponse"]["name"] == "lookup"


PNG = image("data:image/png;base64,QUJD")
WAV = audio("wav")
PDF = file(file_id=URI)
NOTE = file(file_data="QUJD", filename="a.txt")


@pytest.mark.parametrize(
    ("model", "inside", "beside"),
    [
        (
            "gemini-2.5-flash",
            None,
            [inline("image/png", "QUJD"), inline("audio/wav", "QUJD"), referenced("application/pdf", URI)],
        ),
        (
            "gemini-3-pro",
            [inline("image/png", "QUJD")],
            [inline("audio/wav", "QUJD"), referenced("application/pdf", URI)],
        ),
    ],
)
def test_files_in_a_result_stand_in_it_where_they_can(model, inside, beside):
    content = [{"type": "text", "text": "see"}, PNG, WAV, PDF, NOTE]
    files = {URI: FileFacts("application/pdf", "a.pdf")}
    response, *rest = parts_of(
        QUESTION, calling(("fc1", "lookup", {})), result("fc1", content), model=model, files=files
    )
    output = 'see\n<file name="a.txt">\nABC\n</file>'
    expected = {"id": "fc1", "name": "lookup", "response": {"output": output}}
    assert response["functionResponse"] == expected | ({"parts": inside} if inside else {})
    assert rest == beside


@pytest.mark.parametrize("arguments", ["[1]", "{", "7"])
def test_arguments_that_are_no_object_are_refused(arguments):
    call = calling(("call_1", "lookup", {}))
    call["tool_calls"][0]["function"]["arguments"] = arguments
    with pytest.raises(Rejected) as refused:
        translated(QUESTION, call)
    assert refused.value.param == "messages[1].tool_calls[0].function.arguments"


SIGNED = tool_calls.with_extra("fc1", "gemini", "c2ln")


@pytest.mark.parametrize(
    ("model", "first_id", "signatures"),
    [
        ("gemini-3-pro", SIGNED, ["c2ln", None]),
        ("gemini-3-pro", "call_1", [FOREIGN_SIGNATURE, None]),
        ("gemini-3-pro", tool_calls.with_extra("toolu_1", "anthropic", ["thinking"]), [FOREIGN_SIGNATURE, None]),
        ("gemini-flash-latest", "call_1", [FOREIGN_SIGNATURE, None]),
        ("gemini-2.5-flash", SIGNED, ["c2ln", None]),
        ("gemini-2.5-flash", "call_1", [None, None]),
    ],
)
def test_signatures_come_back_and_gemini_3_gets_a_word_for_those_that_do_not_exist(model, first_id, signatures):
    parts = parts_of(QUESTION, calling((first_id, "lookup", {}), ("fc2", "lookup", {})), model=model)
    assert [part.get("thoughtSignature") for part in parts] == signatures
    assert "~" not in json.dumps(parts)


def test_tools_are_declared_with_their_schemas():
    bare = {"type": "function", "function": {"name": "bare"}}
    assert translated(tools=[LOOKUP, bare])["tools"] == [
        {
            "functionDeclarations": [
                {"name": "lookup", "description": "Looks up.", "parametersJsonSchema": {"type": "object"}},
                {"name": "bare"},
            ]
        }
    ]


@pytest.mark.parametrize(
    ("choice", "calling_config"),
    [
        (None, {"mode": "AUTO"}),
        ("auto", {"mode": "AUTO"}),
        ("required", {"mode": "ANY"}),
        ("none", {"mode": "NONE"}),
        (
            {"type": "function", "function": {"name": "lookup"}},
            {"mode": "ANY", "allowedFunctionNames": ["lookup"]},
        ),
    ],
)
def test_tool_choice(choice, calling_config):
    body = translated(tools=[LOOKUP], tool_choice=choice)
    assert body["toolConfig"] == {"functionCallingConfig": calling_config}


def test_a_strict_tool_has_its_schema_kept_to():
    strict = {"type": "function", "function": {"name": "lookup", "strict": True}}
    assert translated(tools=[LOOKUP, strict])["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}


def test_a_choice_among_no_tools():
    assert "toolConfig" not in translated(tool_choice="none")
    with pytest.raises(Rejected) as refused:
        translated(tool_choice="required")
    assert refused.value.param == "tool_choice"


# --- parameters -------------------------------------------------------------------------------------------------

JSON = {"responseMimeType": "application/json"}


DETAILS = ["auto", "high"]


def by_schema(**schema):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", **schema}}}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"temperature": 1.5, "top_p": 0.5}, {"temperature": 1.5, "topP": 0.5}),
        ({"max_tokens": 7}, {"maxOutputTokens": 7}),
        ({"max_completion_tokens": 8, "max_tokens": 7}, {"maxOutputTokens": 8}),
        ({"stop": "end"}, {"stopSequences": ["end"]}),
        ({"stop": ["a", "b"]}, {"stopSequences": ["a", "b"]}),
        ({"n": 2, "seed": 0}, {"candidateCount": 2, "seed": 0}),
        ({"presence_penalty": 1, "frequency_penalty": -1}, {"presencePenalty": 1, "frequencyPenalty": -1}),
        ({"logprobs": True}, {"responseLogprobs": True}),
        ({"logprobs": True, "top_logprobs": 3}, {"responseLogprobs": True, "logprobs": 3}),
        ({"logprobs": False}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, JSON),
        (by_schema(schema={"type": "object"}), {**JSON, "responseJsonSchema": {"type": "object"}}),
        (by_schema(description="d", strict=True), {**JSON, "responseJsonSchema": {"description": "d"}}),
        ({"service_tier": "auto", "parallel_tool_calls": True, "store": False}, None),
    ],
)
def test_parameters(parameters, expected):
    assert config(**parameters) == expected


def thinking(**budget_or_level):
    return {"thinkingConfig": budget_or_level}


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("gemini-3-pro", "minimal", thinking(thinkingLevel="MINIMAL", includeThoughts=True)),
        ("gemini-3-pro", "low", thinking(thinkingLevel="LOW", includeThoughts=True)),
        ("gemini-3.1-flash", "medium", thinking(thinkingLevel="MEDIUM", includeThoughts=True)),
        ("models/gemini-3-pro", "high", thinking(thinkingLevel="HIGH", includeThoughts=True)),
        ("gemini-4-hydrogen", "xhigh", thinking(thinkingLevel="XHIGH", includeThoughts=True)),
        ("gemini-pro-latest", "max", thinking(thinkingLevel="XHIGH", includeThoughts=True)),
        ("gemini-2.5-flash", "none", thinking(thinkingBudget=0)),
        ("gemini-2.5-flash", "minimal", thinking(thinkingBudget=1024, includeThoughts=True)),
        ("gemini-2.5-flash", "low", thinking(thinkingBudget=1024, includeThoughts=True)),
        ("gemini-2.5-pro", "medium", thinking(thinkingBudget=8192, includeThoughts=True)),
        ("gemini-2.5-pro", "high", thinking(thinkingBudget=24576, includeThoughts=True)),
        ("gemini-2.5-flash-lite", "xhigh", thinking(thinkingBudget=24576, includeThoughts=True)),
        ("gemini-2.5-flash", "max", thinking(thinkingBudget=24576, includeThoughts=True)),
        ("gemini-2.0-flash", "none", None),
        ("gemma-3-27b-it", "none", None),
    ],
)
def test_reasoning_effort(model, effort, expected):
    assert config(model=model, reasoning_effort=effort) == expected


@pytest.mark.parametrize(
    ("model", "effort"),
    [("gemini-3-pro", "none"), ("gemini-2.5-pro", "none"), ("gemini-2.0-flash", "low"), ("gemma-3-27b-it", "high")],
)
def test_an_effort_that_a_model_does_not_have_is_refused_or_dropped(model, effort):
    with pytest.raises(Unsupported) as refused:
        config(model=model, reasoning_effort=effort)
    assert refused.value.param == "reasoning_effort"
    chat = chat_of(model=model, reasoning_effort=effort, drop_params=True)
    assert "generationConfig" not in translate(chat)
    assert chat.parameters.dropped == ["reasoning_effort"]


@pytest.mark.parametrize(("tier", "sent"), [("default", "standard"), ("flex", "flex"), ("priority", "priority")])
def test_service_tier(tier, sent):
    assert translated(service_tier=tier)["serviceTier"] == sent


@pytest.mark.parametrize(
    "parameter",
    [
        {"parallel_tool_calls": False},
        {"user": "u-1"},
        {"safety_identifier": "u-1"},
        {"service_tier": "scale"},
        {"logit_bias": {"50256": -100}},
        {"metadata": {"a": "b"}},
        {"verbosity": "low"},
        {"modalities": ["text", "audio"]},
        {"store": True},
    ],
)
def test_what_gemini_does_not_have_is_refused_or_dropped_with_notice(parameter):
    [name] = parameter
    with pytest.raises(Unsupported) as refused:
        translated(**parameter)
    assert refused.value.param == name
    chat = chat_of(**parameter, drop_params=True)
    assert translate(chat) == translated()
    assert chat.parameters.dropped == [name]


def test_how_closely_an_image_is_looked_at_is_left_out_with_notice():
    parts = [{"type": "image_url", "image_url": {"url": "https://x.org/a.png", "detail": detail}} for detail in DETAILS]
    chat = chat_of(user(*parts))
    translate(chat)
    assert chat.parameters.dropped == ["messages[0].content[1].image_url.detail"]


def test_top_logprobs_need_logprobs():
    with pytest.raises(Rejected) as refused:
        translated(top_logprobs=0)
    assert refused.value.param == "top_logprobs"
