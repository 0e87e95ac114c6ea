"""Requests in Anthropic's Messages, row by row as wire.md §3c and §3d have it."""

import json

import pytest

from app.errors import Rejected, Unsupported
from app.formats import tool_calls
from app.formats.anthropic import Dialect, translate
from app.formats.openai import Chat, FileFacts

NEWEST, OLDER = Dialect(samples=False, max_tokens=4096), Dialect(samples=True, max_tokens=4096)
SONNET, SONNET_WITH_BUDGET = "claude-sonnet-5", "claude-sonnet-4-5"
FILE_ID = "file_011"
PART = "messages[0].content[0]"
QUESTION = {"role": "user", "content": "why?"}
LOOKUP = {
    "type": "function",
    "function": {"name": "lookup", "description": "Looks up.", "parameters": {"type": "object"}},
}
LOOKUP_TOOL = {"name": "lookup", "description": "Looks up.", "input_schema": {"type": "object"}}
OPEN_SCHEMA = {"type": "object", "properties": {}}


def chat_of(*messages, model=SONNET, drop_params=False, files=None, **parameters):
    body = json.dumps({"model": model, "messages": list(messages) or [QUESTION], **parameters}).encode()
    return Chat.read(body, provider="anthropic", provider_model=model, files=files or {}, drop_params=drop_params)


def translated(*messages, dialect=NEWEST, **options):
    return translate(chat_of(*messages, **options), dialect)


def user(*parts):
    return {"role": "user", "content": list(parts)}


def text(content):
    return {"type": "text", "text": content}


def image(url, **options):
    return {"type": "image_url", "image_url": {"url": url, **options}}


def file(**source):
    return {"type": "file", "file": source}


AUDIO = {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}}
PNG, PDF = image("data:image/png;base64,QUJD"), file(file_data="QUJD", filename="a.pdf")


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
    assert body["system"] == [text("be brief"), text("and kind")]
    assert body["messages"] == [user(text("why?"))]


def test_what_the_system_says_later_is_said_by_the_user():
    body = translated(QUESTION, {"role": "system", "content": "be brief"})
    assert body == {"model": SONNET, "max_tokens": 4096, "messages": [user(text("why?"), text("be brief"))]}


def test_turns_of_one_role_are_one_turn_and_blank_ones_none():
    said = [
        QUESTION,
        user(text(""), text(" \n")),
        user(text("how?")),
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": [text("so"), {"type": "refusal", "refusal": "no"}], "refusal": " "},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": ""}], "refusal": "never"},
    ]
    assert translated(*said)["messages"] == [
        user(text("why?"), text("how?")),
        {"role": "assistant", "content": [text("so"), text("no"), text("never")]},
    ]


@pytest.mark.parametrize("message", [{"role": "system", "content": "be brief"}, user(text(" "))])
def test_a_conversation_in_which_nobody_speaks_is_refused(message):
    with pytest.raises(Rejected) as refused:
        translated(message)
    assert refused.value.param == "messages"


def source(kind, **fields):
    return {"source": {"type": kind, **fields}}


def inline(mime_type):
    return source("base64", media_type=mime_type, data="QUJD")


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (PNG, {"type": "image", **inline("image/png")}),
        (image("data:image/jpg;base64,QUJD"), {"type": "image", **inline("image/jpeg")}),
        (image("https://x.org/a.webp"), {"type": "image", **source("url", url="https://x.org/a.webp")}),
        (file(file_data="QUJD", filename="a.gif"), {"type": "image", **inline("image/gif")}),
        (PDF, {"type": "document", "title": "a.pdf", **inline("application/pdf")}),
        (file(file_data="data:application/pdf;base64,QUJD"), {"type": "document", **inline("application/pdf")}),
        (file(file_url="https://x.org/a.pdf"), {"type": "document", **source("url", url="https://x.org/a.pdf")}),
        (file(file_url="https://x.org/a.png"), {"type": "image", **source("url", url="https://x.org/a.png")}),
        (
            file(file_data="QUJD", filename="a.txt"),
            {"type": "document", "title": "a.txt", **source("text", media_type="text/plain", data="ABC")},
        ),
        (file(file_data="QUJD", filename="a.csv"), text('<file name="a.csv">\nABC\n</file>')),
        (file(file_data="data:text/html;base64,QUJD"), text('<file name="document.txt">\nABC\n</file>')),
    ],
)
def test_media_travel_as_data_by_address_or_as_text(part, expected):
    assert blocks_of(user(part)) == [expected]


@pytest.mark.parametrize(
    ("mime_type", "kind", "title"),
    [
        ("application/pdf", "document", {"title": "a"}),
        ("text/plain; charset=utf-8", "document", {"title": "a"}),
        ("image/png", "image", {}),
        ("image/jpeg", "image", {}),
        ("image/gif", "image", {}),
        ("image/webp", "image", {}),
    ],
)
def test_a_stored_file_travels_by_its_id(mime_type, kind, title):
    made = blocks_of(user(file(file_id=FILE_ID)), files={FILE_ID: FileFacts(mime_type, "a")})
    assert made == [{"type": kind, **source("file", file_id=FILE_ID), **title}]


def test_the_type_of_a_file_that_nobody_here_knows_is_what_the_part_says():
    assert blocks_of(user(file(file_id=FILE_ID, format="image/png"))) == [
        {"type": "image", **source("file", file_id=FILE_ID)}
    ]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (user(AUDIO), f"{PART}.input_audio.data"),
        (user(file(file_data="QUJD", filename="a.zip")), f"{PART}.file.file_data"),
        (user(image("data:image/tiff;base64,QUJD")), f"{PART}.image_url.url"),
        (user(file(file_url="https://x.org/a.txt")), f"{PART}.file.file_url"),
        (user(file(file_url="https://x.org/a.csv")), f"{PART}.file.file_url"),
        (user(file(file_url="gs://bucket/a.pdf")), f"{PART}.file.file_url"),
        (user(file(file_id=FILE_ID, format="text/csv")), f"{PART}.file.file_id"),
        (user(file(file_id=FILE_ID)), f"{PART}.file.format"),
        (user(file(file_data="/w==", filename="a.txt")), f"{PART}.file.file_data"),
        (user({"type": "refusal", "refusal": "no"}), PART),
        ({"role": "assistant", "content": [PNG]}, PART),
        ({"role": "user", "name": "ann", "content": "hi"}, "messages[0].name"),
        (result("t1", [AUDIO]), f"{PART}.input_audio.data"),
    ],
)
def test_what_anthropic_does_not_take_is_refused_by_its_place(message, param):
    with pytest.raises((Rejected, Unsupported)) as refused:
        translated(message)
    assert refused.value.param == param


def test_how_closely_an_image_is_looked_at_is_left_out_with_notice():
    chat = chat_of(user(image("https://x.org/a.png", detail="auto"), image("https://x.org/a.png", detail="high")))
    translate(chat, NEWEST)
    assert chat.parameters.dropped == ["messages[0].content[1].image_url.detail"]


# --- tools ------------------------------------------------------------------------------------------------------


def tool_use(call_id, **arguments):
    return {"type": "tool_use", "id": call_id, "name": "lookup", "input": arguments}


def tool_result(call_id, *content):
    return {"type": "tool_result", "tool_use_id": call_id, "content": list(content)}


def test_calls_and_their_results_which_stand_first():
    calls = calling(("t1", "lookup", {"q": "x"}), ("t2", "lookup", {}), content="wait")
    late = {"role": "system", "content": "be brief"}
    body = translated(QUESTION, calls, result("t2"), late, result("t1", ""), QUESTION, tools=[LOOKUP])
    assert body["messages"][1:] == [
        {"role": "assistant", "content": [text("wait"), tool_use("t1", q="x"), tool_use("t2")]},
        user(tool_result("t2", text("42")), tool_result("t1"), text("be brief"), text("why?")),
    ]


def test_files_in_a_result_stand_in_it():
    made = blocks_of(QUESTION, calling(("t1", "lookup", {})), result("t1", [text("see"), PNG]))
    assert made == [tool_result("t1", text("see"), {"type": "image", **inline("image/png")})]


@pytest.mark.parametrize(("call_id", "kept"), [("toolu_1-b", True), ("fc 1", False), ("a.b", False), ("x" * 65, False)])
def test_ids_are_what_anthropic_allows(call_id, kept):
    messages = translated(QUESTION, calling((call_id, "lookup", {})), result(call_id))["messages"]
    use, answered = messages[1]["content"][0], messages[2]["content"][0]
    assert use["id"] == answered["tool_use_id"]
    assert (use["id"] == call_id) is kept
    assert len(use["id"]) <= 64


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
    assert translated(tools=[LOOKUP, bare, untyped])["tools"] == [
        LOOKUP_TOOL,
        {"name": "bare", "input_schema": OPEN_SCHEMA, "strict": True},
        {"name": "untyped", "input_schema": {"type": "object", "properties": {"q": {}}}},
    ]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, {"type": "auto"}),
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "lookup"}}, {"type": "tool", "name": "lookup"}),
    ],
)
def test_tool_choice_and_one_call_at_a_time(choice, sent):
    body = translated(tools=[LOOKUP], tool_choice=choice)
    assert (body["tools"], body["tool_choice"]) == ([LOOKUP_TOOL], sent)
    assert translated(tools=[LOOKUP], tool_choice=choice, parallel_tool_calls=True) == body
    one_at_a_time = translated(tools=[LOOKUP], tool_choice=choice, parallel_tool_calls=False)
    assert one_at_a_time["tool_choice"] == {**sent, "disable_parallel_tool_use": True}


@pytest.mark.parametrize("parallel", [None, False])
def test_no_tool_is_to_be_called(parallel):
    body = translated(tools=[LOOKUP], tool_choice="none", parallel_tool_calls=parallel)
    assert (body["tools"], body["tool_choice"]) == ([LOOKUP_TOOL], {"type": "none"})


def test_a_choice_among_no_tools():
    assert translated(tool_choice="none") == translated(tool_choice="auto") == translated(tools=[]) == translated()
    with pytest.raises(Rejected) as refused:
        translated(tool_choice="required")
    assert refused.value.param == "tool_choice"


def test_with_calls_in_the_history_but_no_tools_those_that_it_called_are_declared_and_forbidden():
    calls = calling(("t1", "lookup", {}), ("t2", "lookup", {}), ("t3", "find", {}))
    body = translated(QUESTION, calls, result("t1"), result("t2"), result("t3"))
    assert body["tools"] == [{"name": name, "input_schema": OPEN_SCHEMA} for name in ("lookup", "find")]
    assert body["tool_choice"] == {"type": "none"}


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "QUJD"}


def carrying(call_id, *blocks):
    return tool_calls.with_extra(call_id, "anthropic", list(blocks))


def test_signed_thinking_comes_back_before_what_was_said():
    ids = carrying("t1", THOUGHT, HIDDEN), carrying("t2", HIDDEN)
    calls = calling(*((call_id, "lookup", {}) for call_id in ids), content="wait")
    _, said, results = translated(QUESTION, calls, *map(result, ids))["messages"]
    assert said["content"] == [THOUGHT, HIDDEN, text("wait"), tool_use("t1"), HIDDEN, tool_use("t2")]
    assert [block["tool_use_id"] for block in results["content"]] == ["t1", "t2"]


@pytest.mark.parametrize(
    "forged",
    [
        [{"type": "document", **source("file", file_id="file_of_another_team")}],
        [{"type": "tool_use", "id": "t0", "name": "lookup", "input": {}}],
        [{"type": ["thinking"]}],
        ["thinking"],
        {"type": "thinking"},
        7,
    ],
)
def test_nothing_but_thinking_gets_in_by_an_id(forged):
    call_id = tool_calls.with_extra("t1", "anthropic", forged)
    assert blocks_of(QUESTION, calling((call_id, "lookup", {}))) == [tool_use("t1")]


def test_what_another_vendor_signed_stays_away():
    call_id = tool_calls.with_extra("fc1", "gemini", "c2ln")
    assert blocks_of(QUESTION, calling((call_id, "lookup", {}))) == [tool_use("fc1")]


# --- parameters -------------------------------------------------------------------------------------------------

JSON_PLEASE = "Answer with one JSON object and nothing else."


def by_schema(**schema):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", **schema}}}


def json_schema(**schema):
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"max_tokens": 7}, {"max_tokens": 7}),
        ({"max_completion_tokens": 8, "max_tokens": 7}, {"max_tokens": 8}),
        ({"stream": True}, {"stream": True}),
        ({"stop": "end"}, {"stop_sequences": ["end"]}),
        ({"stop": ["a", "", "\nb"]}, {"stop_sequences": ["a", "\nb"]}),
        ({"stop": ""}, {}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"system": [text(JSON_PLEASE)]}),
        (by_schema(schema={"type": "object"}, strict=True), json_schema(type="object")),
        (by_schema(description="d"), json_schema(description="d")),
        (by_schema(description="d", schema={"description": "its own"}), json_schema(description="its own")),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"service_tier": "auto", "parallel_tool_calls": True, "store": False, "metadata": {}}, {}),
        ({"user": "u-1"}, {"metadata": {"user_id": "u-1"}}),
        ({"safety_identifier": "s-1"}, {"metadata": {"user_id": "s-1"}}),
        ({"safety_identifier": "", "user": "u-1"}, {"metadata": {"user_id": "u-1"}}),
    ],
)
def test_parameters(parameters, expected):
    assert translated(**parameters) == {**translated(), **expected}


def test_the_wish_for_json_stands_behind_what_the_system_says():
    system = {"role": "system", "content": "be brief"}
    body = translated(system, QUESTION, response_format={"type": "json_object"})
    assert body["system"] == [text("be brief"), text(JSON_PLEASE)]


def test_the_newer_name_of_the_user_goes_before_the_older_one_with_notice():
    chat = chat_of(safety_identifier="s-1", user="u-1")
    assert translate(chat, NEWEST)["metadata"] == {"user_id": "s-1"}
    assert chat.parameters.dropped == ["user"]


@pytest.mark.parametrize(
    ("dialect", "given", "sent", "dropped"),
    [
        (NEWEST, {"temperature": 0.5, "top_p": 0.9}, {}, ["temperature", "top_p"]),
        (NEWEST, {"temperature": 0}, {}, ["temperature"]),
        (OLDER, {"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}, []),
        (OLDER, {"temperature": 1.5}, {"temperature": 1}, []),
        (OLDER, {"temperature": 0, "top_p": 0}, {"temperature": 0, "top_p": 0}, []),
    ],
)
def test_sampling_is_left_out_with_notice_where_it_was_removed(dialect, given, sent, dropped):
    chat = chat_of(**given)
    assert translate(chat, dialect) == {**translated(), **sent}
    assert chat.parameters.dropped == dropped


@pytest.mark.parametrize("model", [SONNET, SONNET_WITH_BUDGET])
@pytest.mark.parametrize(
    ("effort", "given", "sent", "dropped"),
    [
        ("low", {"temperature": 0.5, "top_p": 0.9}, {}, ["temperature", "top_p"]),
        ("low", {"temperature": 1.5, "top_p": 0.95}, {"temperature": 1, "top_p": 0.95}, []),
        ("none", {"temperature": 0.5}, {"temperature": 0.5}, []),
    ],
)
def test_sampling_is_left_out_with_notice_where_the_model_thinks(model, effort, given, sent, dropped):
    chat = chat_of(model=model, reasoning_effort=effort, **given)
    assert translate(chat, OLDER) == {**translated(model=model, reasoning_effort=effort), **sent}
    assert chat.parameters.dropped == dropped


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        (SONNET, "minimal", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
        (SONNET, "max", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}),
        (SONNET, "none", {"thinking": {"type": "disabled"}}),
        (SONNET_WITH_BUDGET, "low", {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 5120}),
        (SONNET_WITH_BUDGET, "none", {"thinking": {"type": "disabled"}}),
    ],
)
def test_reasoning_effort(model, effort, expected):
    assert translated(model=model, reasoning_effort=effort) == {**translated(model=model), **expected}


def test_a_budget_stays_below_the_callers_own_limit():
    body = translated(model=SONNET_WITH_BUDGET, reasoning_effort="high", max_tokens=2000)
    assert (body["max_tokens"], body["thinking"]) == (2000, {"type": "enabled", "budget_tokens": 1999})


def test_an_effort_stands_beside_the_format_of_the_answer():
    body = translated(reasoning_effort="low", **by_schema(schema={"type": "object"}))
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "lookup"}}])
def test_a_forced_call_leaves_no_room_for_thinking(choice):
    forced = {"tools": [LOOKUP], "tool_choice": choice}
    assert translated(reasoning_effort="max", **forced) == {**translated(**forced), "output_config": {"effort": "high"}}
    with pytest.raises(Unsupported) as refused:
        translated(model=SONNET_WITH_BUDGET, reasoning_effort="low", **forced)
    assert refused.value.param == "reasoning_effort"
    chat = chat_of(model=SONNET_WITH_BUDGET, reasoning_effort="low", drop_params=True, **forced)
    assert translate(chat, NEWEST) == translated(model=SONNET_WITH_BUDGET, **forced)
    assert chat.parameters.dropped == ["reasoning_effort"]


@pytest.mark.parametrize(
    "parameter",
    [
        {"stop": "\n"},
        {"service_tier": "flex"},
        {"n": 2},
        {"seed": 7},
        {"presence_penalty": 1},
        {"frequency_penalty": 1},
        {"logprobs": True},
        {"top_logprobs": 3},
        {"logit_bias": {"50256": -100}},
        {"metadata": {"a": "b"}},
        {"verbosity": "low"},
        {"modalities": ["text", "audio"]},
        {"store": True},
        {"prompt_cache_key": "k"},
    ],
)
def test_what_anthropic_does_not_have_is_refused_or_dropped_with_notice(parameter):
    [name] = parameter
    with pytest.raises(Unsupported) as refused:
        translated(**parameter)
    assert refused.value.param == name
    chat = chat_of(**parameter, drop_params=True)
    assert translate(chat, NEWEST) == translated()
    assert chat.parameters.dropped == [name]


def test_only_the_blank_stop_sequences_are_dropped():
    chat = chat_of(stop=["\n", "end"], drop_params=True)
    assert translate(chat, NEWEST)["stop_sequences"] == ["end"]
    assert chat.parameters.dropped == ["stop"]
