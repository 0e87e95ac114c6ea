"""Chat completion requests, as Hypothesis builds them over the whole shape that the gateway takes.

Every text, name, file and schema of a request is unlike its others, so that a test can tell what became of each.
"""

import base64
import itertools
import json
from dataclasses import dataclass, field

from hypothesis import strategies as st

from app.formats.openai import Chat, FileFacts

# No lone surrogates, which are not valid JSON; no NUL, which no vendor takes.
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words
arguments = st.dictionaries(words, scalars | st.lists(scalars, max_size=2), max_size=3)
# What a file that is named by id may be, and what may come as data.
FILE_TYPES = {
    "application/pdf": "pdf",
    "text/plain": "txt",
    "text/csv": "csv",
    "text/markdown": "md",
    "image/png": "png",
    "image/jpeg": "jpg",
    "audio/wav": "wav",
    "video/mp4": "mp4",
    "application/zip": "zip",
}
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")
CHOICES = ("none", "auto", "required")

# Every parameter of `Request`, and some that only OpenAI has, with values that it takes.
PARAMETERS = {
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "max_tokens": st.integers(1, 10_000),
    "max_completion_tokens": st.integers(1, 10_000),
    "stop": words | st.lists(words, min_size=1, max_size=4),
    "n": st.integers(1, 4),
    "seed": st.integers(-(2**31), 2**31 - 1),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "logprobs": st.booleans(),
    "top_logprobs": st.integers(0, 20),
    "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh", "max"]),
    "user": words.map("user {}".format),
    "safety_identifier": words.map("id {}".format),
    "service_tier": st.sampled_from(["auto", "default", "flex", "priority", "scale"]),
    "parallel_tool_calls": st.booleans(),
    "stream": st.booleans(),
    "store": st.booleans(),
    "metadata": st.dictionaries(words, words, max_size=1),
    "logit_bias": st.dictionaries(st.just("50256"), st.integers(-100, 100)),
    "verbosity": st.sampled_from(["low", "high"]),
    "prompt_cache_key": words.map("key {}".format),
    "modalities": st.sampled_from([["text"], ["text", "audio"]]),
}


@dataclass
class Asked:
    """A request's JSON; the files that its ids stand for; and everything that the model must get to see: texts as
    they stand in it, and files as their id, address, or data."""

    body: dict
    files: dict = field(default_factory=dict)
    texts: list = field(default_factory=list)
    media: list = field(default_factory=list)

    def chat(self, provider, provider_model, *, drop_params=False):
        """The request as a format reads it."""
        body = json.dumps({"model": provider_model, **self.body}).encode()
        return Chat.read(
            body, provider=provider, provider_model=provider_model, files=self.files, drop_params=drop_params
        )


class _Writer:
    """Draws one request."""

    def __init__(self, draw, file_id_of):
        self._draw, self._file_id_of, self._numbers = draw, file_id_of, itertools.count(1)
        self.asked = Asked({})

    def _unique(self, kind):
        return f"{kind}-{next(self._numbers)}"

    def text(self, kind="text"):
        made = f"{self._unique(kind)} {self._draw(words)}"
        self.asked.texts.append(made)
        return made

    def _data(self):
        content = base64.b64encode(self._unique("bytes").encode() + self._draw(st.binary(max_size=8))).decode()
        self.asked.media.append(content)
        return content

    def _address(self, extension):
        address = f"https://example.org/{self._unique('file')}.{extension}"
        self.asked.media.append(address)
        return address

    def text_part(self):
        return {"type": "text", "text": self.text()}

    def image_part(self):
        mime_type = self._draw(st.sampled_from(IMAGE_TYPES))
        url = f"data:{mime_type};base64,{self._data()}" if self._draw(st.booleans()) else self._address("png")
        detail = self._draw(st.just({}) | st.sampled_from(["auto", "low", "high"]).map(lambda one: {"detail": one}))
        return {"type": "image_url", "image_url": {"url": url, **detail}}

    def audio_part(self):
        sound = {"data": self._data(), "format": self._draw(st.sampled_from(["wav", "mp3"]))}
        return {"type": "input_audio", "input_audio": sound}

    def file_part(self):
        mime_type = self._draw(st.sampled_from(sorted(FILE_TYPES)))
        match self._draw(st.sampled_from(["file_id", "file_data", "file_url"])):
            case "file_id":
                return {"type": "file", "file": {"file_id": self._stored_file(mime_type)}}
            case "file_url":
                return {"type": "file", "file": {"file_url": self._address(FILE_TYPES[mime_type])}}
        if mime_type.startswith("text/"):
            content = self.text("file")
            data = f"data:{mime_type};base64,{base64.b64encode(content.encode()).decode()}"
        else:
            data = f"data:{mime_type};base64,{self._data()}"
        return {"type": "file", "file": {"file_data": data, "filename": f"a.{FILE_TYPES[mime_type]}"}}

    def _stored_file(self, mime_type):
        file_id = self._file_id_of(next(self._numbers))
        self.asked.files[file_id] = FileFacts(mime_type, f"stored.{FILE_TYPES[mime_type]}")
        self.asked.media.append(file_id)
        return file_id

    def content(self, *kinds):
        """A message's content: a text, or parts of these kinds."""
        if self._draw(st.booleans()):
            return self.text()
        return [getattr(self, self._draw(st.sampled_from(kinds)))() for _ in range(self._draw(st.integers(1, 3)))]

    def anything(self):
        return self.content("text_part", "image_part", "audio_part", "file_part")

    def named(self, message):
        """Sometimes with a participant's name, which only OpenAI has."""
        return message | ({"name": self._unique("name")} if self._draw(st.integers(0, 9)) == 9 else {})

    def system(self):
        role = self._draw(st.sampled_from(["system", "developer"]))
        return [self.named({"role": role, "content": self.content("text_part")})]

    def user(self):
        return [self.named({"role": "user", "content": self.anything()})]

    def assistant(self):
        message = {"role": "assistant", "content": self.content("text_part", "refusal_part")}
        return [message | ({"refusal": self.text()} if self._draw(st.booleans()) else {})]

    def refusal_part(self):
        return {"type": "refusal", "refusal": self.text()}

    def calls(self):
        """An assistant's turn of tool calls, and their results in any order."""
        calls = [self._call() for _ in range(self._draw(st.integers(1, 3)))]
        turn = {"role": "assistant", "tool_calls": calls}
        if self._draw(st.booleans()):
            turn["content"] = self.text()
        results = [{"role": "tool", "tool_call_id": call["id"], "content": self.anything()} for call in calls]
        return [turn, *self._draw(st.permutations(results))]

    def _call(self):
        function = {"name": self._unique("function"), "arguments": json.dumps(self._draw(arguments))}
        self.asked.texts.append(function["name"])
        call_id = self._draw(st.sampled_from(["call_{}", "toolu_{}", "fc {}"])).format(next(self._numbers))
        return {"id": call_id, "type": "function", "function": function}

    def tools(self):
        """Tools, and perhaps a choice among them."""
        tools = [self._tool() for _ in range(self._draw(st.integers(1, 3)))]
        names = [{"type": "function", "function": {"name": tool["function"]["name"]}} for tool in tools]
        choice = self._draw(st.none() | st.sampled_from(CHOICES) | st.sampled_from(names))
        return {"tools": tools} | ({"tool_choice": choice} if choice is not None else {})

    def _tool(self):
        function = {"name": self._unique("tool")}
        self.asked.texts.append(function["name"])
        if self._draw(st.booleans()):
            function["description"] = self.text("description")
        if self._draw(st.booleans()):
            function["parameters"] = self._schema()
        if self._draw(st.booleans()):
            function["strict"] = self._draw(st.booleans())
        return {"type": "function", "function": function}

    def _schema(self):
        name = self._unique("property")
        self.asked.texts.append(name)
        of_property = self._draw(st.sampled_from([{"type": "string"}, {"type": "integer", "minimum": 1}, {}]))
        return {"type": "object", "properties": {name: of_property}, "additionalProperties": False}

    def response_format(self):
        match self._draw(st.sampled_from(["text", "json_object", "json_schema"])):
            case "json_schema":
                schema = {"name": "answer", "schema": self._schema()}
                if self._draw(st.booleans()):
                    schema["description"] = self.text("description")
                return {"type": "json_schema", "json_schema": schema}
            case kind:
                return {"type": kind}


@st.composite
def requests(draw, file_id_of, parameters=PARAMETERS):
    """An `Asked`: a conversation, tools, and any of the `parameters`; `file_id_of` makes ids as the provider does."""
    writer = _Writer(draw, file_id_of)
    turns = st.sampled_from([writer.user, writer.assistant, writer.calls, writer.system])
    messages = writer.system() if draw(st.booleans()) else []
    for turn in (writer.user, *draw(st.lists(turns, max_size=3))):
        messages += turn()
    writer.asked.body["messages"] = messages
    if draw(st.booleans()):
        writer.asked.body |= writer.tools()
    if draw(st.booleans()):
        writer.asked.body["response_format"] = writer.response_format()
    writer.asked.body |= draw(st.fixed_dictionaries({}, optional=parameters))
    return writer.asked


def leaves(value):
    """Every scalar in a JSON value, and every key."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value
