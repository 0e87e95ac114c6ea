"""What a format's Reader made of an answer, whole or in chunks, in one shape that can be compared."""

from collections import defaultdict

import orjson

from app.formats.answers import Chunks, Head, completion

HEAD = Head(0)


def streamed(reader, events):
    """The chunks that OpenAI's client would be sent for these events, put together; the stream must have ended."""
    chunks = Chunks(HEAD, reader, include_usage=True)
    sent = [chunk for event in events for piece in reader.event(event) for chunk in chunks.of(piece)]
    assert reader.complete
    sent += chunks.end()
    assert sent.pop() == b"data: [DONE]\n\n"
    choices, usage = defaultdict(lambda: {"text": defaultdict(str), "calls": [], "logprobs": []}), None
    for chunk in (orjson.loads(line.removeprefix(b"data: ")) for line in sent):
        usage = chunk["usage"] or usage
        for choice in chunk["choices"]:
            _add(choices[choice["index"]], choice)
    return {"id": chunk["id"], "model": chunk["model"], "choices": dict(choices), "usage": usage}


def _add(choice, chunk):
    delta = chunk["delta"]
    for call in delta.pop("tool_calls", ()):
        if "id" in call:
            assert call["index"] == len(choice["calls"])
            choice["calls"].append({"id": call["id"], **call["function"]})
        else:
            choice["calls"][call["index"]]["arguments"] += call["function"]["arguments"]
    for name, text in delta.items():
        if text and name != "role":
            choice["text"][name] += text
    choice["logprobs"] += (chunk["logprobs"] or {}).get("content", ())
    choice["finish_reason"] = chunk["finish_reason"]


def answered(reader, answer):
    """The chat.completion of an answer that came at once, in the same shape."""
    whole = orjson.loads(completion(HEAD, reader, reader.whole(answer)))
    choices = {}
    for choice in whole["choices"]:
        message = choice["message"]
        calls = [{"id": call["id"], **call["function"]} for call in message.pop("tool_calls", ())]
        choices[choice["index"]] = {
            "text": {name: text for name, text in message.items() if text and name != "role"},
            "calls": calls,
            "logprobs": (choice["logprobs"] or {}).get("content", []),
            "finish_reason": choice["finish_reason"],
        }
    return {"id": whole["id"], "model": whole["model"], "choices": choices, "usage": whole.get("usage")}
