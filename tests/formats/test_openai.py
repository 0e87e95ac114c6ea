"""OpenAI's request as it is read: what is taken, where it says that something is wrong, and what becomes of every
parameter."""

import json

import pytest

from app.errors import Rejected, Unsupported
from app.formats.openai import NEUTRAL, Chat, FileFacts, TextPart

QUESTION = {"role": "user", "content": "why?"}
PART = "messages[0].content[0]"


def read(body, *, drop_params=False):
    """A request as a format gets it; its body as JSON, or as bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Chat.read(content, provider="claude", provider_model="m", files={}, drop_params=drop_params)


def chat_of(*messages, drop_params=False, **parameters):
    return read({"model": "m", "messages": list(messages) or [QUESTION], **parameters}, drop_params=drop_params)


def refused(body):
    with pytest.raises(Rejected) as failed:
        read(body)
    return failed.value


def user(*parts):
    return {"role": "user", "content": list(parts)}


def file(**source):
    return {"type": "file", "file": source}


def image(**options):
    return {"type": "image_url", "image_url": {"url": "https://x.org/a.png", **options}}


def calling(*calls):
    made = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}} for call_id, name in calls
    ]
    return {"role": "assistant", "tool_calls": made}


# --- what is read -----------------------------------------------------------------------------------------------


def test_a_text_is_a_part():
    assert chat_of(QUESTION).messages[0].content == (TextPart(type="text", text="why?"),)


def test_a_null_is_a_key_that_is_not_there():
    echoed = {"role": "assistant", "content": None, "refusal": None, "tool_calls": None, "function_call": None}
    chat = chat_of(QUESTION, {**echoed, "audio": None}, tools=None, stop=None, verbosity=None)
    assert chat.messages[1].content == chat.messages[1].tool_calls == ()
    assert chat.request.model_fields_set == {"model", "messages"}


def test_what_the_sdk_puts_into_its_objects_may_come_back():
    function = {"name": "f", "arguments": "{}", "parsed_arguments": {}}
    call = {"id": "t1", "type": "function", "function": function, "index": 0}
    said = {"role": "assistant", "content": "so", "annotations": [], "parsed": {}, "reasoning_content": "hm"}
    [_, message] = chat_of(QUESTION, {**said, "tool_calls": [call]}).messages
    assert (message.content[0].text, message.tool_calls[0].id) == ("so", "t1")


@pytest.mark.parametrize(("stop", "expected"), [("a", ("a",)), (["a", "b"], ("a", "b")), ([], ())])
def test_one_stop_sequence_or_several(stop, expected):
    assert chat_of(stop=stop).request.stop == expected


@pytest.mark.parametrize("source", ["file_id", "file_data", "file_url"])
def test_a_file_has_one_source(source):
    others = dict.fromkeys({"file_id", "file_data", "file_url"} - {source})
    [part] = (
        chat_of(user(file(**{source: "x"}, **others, filename="a.pdf", format="application/pdf"))).messages[0].content
    )
    assert getattr(part.file, source) == "x"


# --- what is wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (7, "messages[0]"),
        ({}, "messages[0]"),
        ({"role": "function", "name": "f", "content": "x"}, "messages[0]"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": 7}, "messages[0].content"),
        ({**QUESTION, "mood": "good"}, "messages[0].mood"),
        (user(7), PART),
        (user({"type": "video"}), PART),
        (user({"type": "text"}), f"{PART}.text"),
        (user({"type": "text", "text": "x", "bold": True}), f"{PART}.bold"),
        (user({"type": "text", "text": "x"}, {"type": "text", "text": 7}), "messages[0].content[1].text"),
        (user({"type": "image_url", "image_url": "https://x.org/a.png"}), f"{PART}.image_url"),
        (user({"type": "image_url", "image_url": {}}), f"{PART}.image_url.url"),
        (user({"type": "input_audio", "input_audio": {"data": "", "format": "ogg"}}), f"{PART}.input_audio.format"),
        (user({"type": "file"}), f"{PART}.file"),
        (user(file()), f"{PART}.file"),
        (user(file(filename="a.pdf")), f"{PART}.file"),
        (user(file(file_id="a", file_data="b")), f"{PART}.file"),
        (user(file(file_id="a", file_url="b")), f"{PART}.file"),
        (user(file(file_id="a", bytes=5)), f"{PART}.file.bytes"),
        ({"role": "system", "content": [image()]}, f"{PART}.type"),
        ({"role": "tool", "content": "42"}, "messages[0].tool_call_id"),
        ({"role": "assistant", "tool_calls": [{"id": "t1"}]}, "messages[0].tool_calls[0].function"),
        (
            {"role": "assistant", "tool_calls": [{"id": "t1", "function": {"arguments": ""}}]},
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "t1", "type": "custom", "function": {"name": "f"}}]},
            "messages[0].tool_calls[0].type",
        ),
    ],
)
def test_the_error_says_where_in_the_messages(message, param):
    error = refused({"model": "m", "messages": [message]})
    assert (error.param, error.code) == (param, "invalid_value")
    assert error.message.startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"model": None}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True, "include_cost": True}}, "stream_options.include_cost"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"stop": 7}, "stop"),
        ({"stop": ["a", 7]}, "stop[1]"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"n": 129}, "n"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "text", "json_schema": {"name": "x"}}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": []}}},
            "response_format.json_schema.schema",
        ),
        ({"reasoning_effort": "lots"}, "reasoning_effort"),
        ({"metadata": {"a": 1}}, "metadata.a"),
    ],
)
def test_the_error_names_the_parameter(parameters, param):
    error = refused({"model": "m", "messages": [QUESTION], **parameters})
    assert (error.param, error.code) == (param, "invalid_value")
    assert error.message.startswith(f"{param}: ")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"model": "\\ud800"}', b"[" * 1000])
def test_what_is_no_json_is_refused_as_such(body):
    error = refused(body)
    assert (error.param, error.code) == (None, "invalid_json")


@pytest.mark.parametrize("body", [b"[]", b"7", b"null"])
def test_what_is_no_object_is_refused_without_a_place(body):
    error = refused(body)
    assert (error.param, error.message) == (None, "Input should be an object")


# --- what the formats ask ---------------------------------------------------------------------------------------


def test_the_files_of_a_conversation():
    result = {"role": "tool", "tool_call_id": "t1", "content": [file(file_id="c")]}
    messages = user(file(file_id="a"), file(file_data="QUJD")), QUESTION, calling(("t1", "f")), result
    assert chat_of(*messages, user(file(file_id="a"))).file_ids() == ["a", "c", "a"]


def test_the_functions_that_were_called():
    chat = chat_of(QUESTION, calling(("t1", "f"), ("t2", "g")), calling(("t3", "f")))
    assert chat.function_names() == {"t1": "f", "t2": "g", "t3": "f"}


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_participants_have_no_names_elsewhere(role):
    messages = QUESTION, {"role": role, "content": "hi", "name": "ann"}
    with pytest.raises(Unsupported) as failed:
        chat_of(*messages).refuse_names()
    assert failed.value.param == "messages[1].name"
    chat = chat_of(*messages, drop_params=True)
    chat.refuse_names()
    assert chat.parameters.dropped == ["messages[1].name"]


def test_a_tools_name_is_known_by_its_call():
    chat = chat_of(QUESTION, calling(("t1", "f")), {"role": "tool", "tool_call_id": "t1", "name": "f", "content": "42"})
    chat.refuse_names()
    assert chat.parameters.dropped == []


def test_details_of_images_are_left_out():
    chat = chat_of(user(image(), image(detail="auto"), image(detail="low")), user(image(detail="high")))
    chat.leave_out_details()
    assert chat.parameters.dropped == [
        f"messages[{index}].content[{place}].image_url.detail" for index, place in ((0, 2), (1, 0))
    ]


@pytest.mark.parametrize(("arguments", "parsed"), [("", {}), ("{}", {}), ('{"a": [1]}', {"a": [1]})])
def test_arguments_are_an_object(arguments, parsed):
    call = calling(("t1", "f"))
    call["tool_calls"][0]["function"]["arguments"] = arguments
    assert chat_of(QUESTION, call).messages[1].tool_calls[0].function.parsed("here") == parsed


@pytest.mark.parametrize("arguments", ["[]", "7", "null", "{", '"a"', '{"a": NaN}'])
def test_arguments_that_are_no_object_are_refused_where_they_stand(arguments):
    call = calling(("t1", "f"))
    call["tool_calls"][0]["function"]["arguments"] = arguments
    with pytest.raises(Rejected) as failed:
        chat_of(QUESTION, call).messages[1].tool_calls[0].function.parsed("here")
    assert failed.value.param == "here.function.arguments"


# --- parameters -------------------------------------------------------------------------------------------------


def test_what_is_taken_is_not_refused():
    parameters = chat_of(temperature=0.5, seed=7).parameters
    assert (parameters.take("temperature"), parameters.take("seed"), parameters.take("top_p")) == (0.5, 7, None)
    parameters.finish()
    assert parameters.dropped == []


def test_what_the_gateway_itself_reads_is_no_parameter():
    chat_of(stream=True, stream_options={"include_usage": True}).parameters.finish()


@pytest.mark.parametrize("drop", [False, True])
def test_what_is_left_out_is_said_and_only_if_it_was_given(drop):
    parameters = chat_of(temperature=0.5, drop_params=drop).parameters
    parameters.leave_out("temperature")
    parameters.leave_out("top_p")
    parameters.finish()
    assert parameters.dropped == ["temperature"]


def test_what_is_refused_is_named_with_the_reason_and_the_way_out():
    with pytest.raises(Unsupported) as failed:
        chat_of().parameters.refuse("service_tier", "there is no such tier")
    assert (failed.value.param, failed.value.code) == ("service_tier", "unsupported_parameter")
    assert failed.value.message.startswith(
        "service_tier: there is no such tier. Leave it out, or set drop_params: true"
    )
    parameters = chat_of(drop_params=True).parameters
    parameters.refuse("service_tier", "there is no such tier")
    assert parameters.dropped == ["service_tier"]


def test_what_nobody_took_is_refused_by_name_the_first_in_the_alphabet():
    given = {"verbosity": "low", "seed": 7, "max_tokens": 5}
    with pytest.raises(Unsupported) as failed:
        chat_of(**given).parameters.finish()
    assert (failed.value.param, failed.value.message[:40]) == ("max_tokens", "max_tokens: claude has no such parameter")
    parameters = chat_of(**given, drop_params=True).parameters
    parameters.take("max_tokens")
    parameters.finish()
    assert parameters.dropped == ["seed", "verbosity"]


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_value_that_asks_for_nothing_is_never_refused(name):
    parameters = chat_of(**{name: NEUTRAL[name]}).parameters
    parameters.finish()
    assert parameters.dropped == []


@pytest.mark.parametrize(
    "parameter",
    [
        {"n": 2},
        {"logprobs": True},
        {"presence_penalty": 0.1},
        {"logit_bias": {"1": 1}},
        {"parallel_tool_calls": False},
        {"modalities": ["audio"]},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        {"service_tier": "flex"},
        {"metadata": {"a": "b"}},
        {"seed": 0},
        {"copy": False},
    ],
)
def test_any_other_value_is_refused(parameter):
    with pytest.raises(Unsupported) as failed:
        chat_of(**parameter).parameters.finish()
    assert [failed.value.param] == [*parameter]


def test_a_request_is_read_with_what_is_known_of_its_files():
    facts = {"file_1": FileFacts("application/pdf", "a.pdf")}
    body = json.dumps({"model": "m", "messages": [user(file(file_id="file_1"))]}).encode()
    chat = Chat.read(body, provider="claude", provider_model="claude-x", files=facts, drop_params=True)
    assert (chat.provider_model, chat.files, chat.file_ids()) == ("claude-x", facts, ["file_1"])
