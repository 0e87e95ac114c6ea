"""A file's life, two chats and a batch through whichever anthropic SDK is importable; what happened, as JSON on stdout.

A program of its own, for one process has room for one version of the SDK.
"""

import json
import sys

import anthropic
import httpx


def _attempt(verb, *arguments, **more):
    """The class and type of the error that a call ends in."""
    try:
        verb(*arguments, **more)
    except anthropic.APIStatusError as error:
        return [type(error).__name__, error.body["error"]["type"]]


def _message(client, file_id, said):
    document = {"type": "document", "source": {"type": "file", "file_id": file_id}}
    return {
        "model": "claude-haiku-4-5",
        "max_tokens": 2048,
        "messages": [{"role": "user", "content": [document, {"type": "text", "text": said}]}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [{"name": "lookup", "input_schema": {"type": "object"}}],
    }


def _continued(request, answer):
    call = answer.content[-1]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "42"}
    said = [
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in answer.content]},
        {"role": "user", "content": [result]},
    ]
    return request | {"messages": request["messages"] + said}


def _batch(client, url, said):
    """The statuses of a batch's life, and its one result."""
    message = {"model": "claude-haiku-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": said}]}
    batches = client.messages.batches
    created = batches.create(requests=[{"custom_id": "a", "params": message}])
    httpx.post(url.replace("/anthropic", "/_sandbox/clock"), json={"advance_seconds": 2}).raise_for_status()
    [result] = batches.results(created.id)
    statuses = [created.processing_status, batches.retrieve(created.id).processing_status]
    return [*statuses, result.custom_id, result.result.message.content[0].text, batches.delete(created.id).type]


def main(url):
    """Travel, and tell."""
    client = anthropic.Anthropic(base_url=url, api_key="one", max_retries=0)
    files = client.beta.files
    uploaded = [files.upload(file=(f"{name}.pdf", name.encode(), "application/pdf")) for name in "abc"]
    request = _message(client, uploaded[0].id, "call:lookup")
    with client.beta.messages.stream(**request) as stream:
        called = stream.get_final_message()
    answer = client.beta.messages.create(**_continued(request, called))
    told = {
        "version": anthropic.__version__,
        "same": files.retrieve_metadata(uploaded[0].id) == uploaded[0],
        "listed": [file.filename for file in files.list(limit=2)],
        "first_page": sorted(files.list(limit=2).model_dump(exclude={"data"})),
        "download": _attempt(files.download, uploaded[0].id),
        "called": [called.stop_reason, called.content[-1].input],
        "answer": answer.content[-1].text,
        "batch": _batch(client, url, "hi"),
        "deleted": [files.delete(file.id).type for file in uploaded],
        "missing": _attempt(files.retrieve_metadata, uploaded[0].id),
        "models": [model.id for model in client.models.list(limit=3)],
        "unauthorized": _attempt(client.with_options(api_key="bad").models.list),
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
