"""Batches as clients make them: lines, an upload, a batch, its end, and what came of each line."""

import json

from tests.support.sandbox import eventually
from tests.support.uploads import upload

ENDPOINT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")


def line(custom_id, model, *content, url=ENDPOINT, **body):
    """One line: a chat with one user message of texts and parts."""
    parts = [{"type": "text", "text": one} if isinstance(one, str) else one for one in content]
    chat = {"model": model, "messages": [{"role": "user", "content": parts}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": chat}


def jsonl(lines):
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


def upload_lines(client, lines, targets=None, **fields):
    """A file of purpose batch for the model names that its lines have, or others."""
    targets = targets or ",".join(dict.fromkeys(one["body"]["model"] for one in lines))
    return upload(client, targets, jsonl(lines), filename="lines.jsonl", purpose="batch", **fields)


def create(client, file, **options):
    return client.batches.create(
        input_file_id=getattr(file, "id", file), endpoint=ENDPOINT, completion_window="24h", **options
    )


def ended(client, batch, sandbox=None, **options):
    """The batch once it is over; its provider's clock, if that is at hand, goes on by a second for each look."""

    def look():
        if sandbox is not None:
            sandbox.advance(1)
        found = client.batches.retrieve(batch.id, **options)
        return found if found.status in ENDED else None

    found = eventually(look, 120)
    assert found, client.batches.retrieve(batch.id, **options).to_dict()
    return found


def lines_of(client, file_id):
    """The lines of an output or error file."""
    return read_lines(client.files.content(file_id).read())


def read_lines(content):
    """custom_id → line; none comes twice."""
    lines = [json.loads(one) for one in content.splitlines()]
    found = {one["custom_id"]: one for one in lines}
    assert len(found) == len(lines)
    return found


def answer_in(found):
    """What the model said in a line of an output file."""
    assert found["error"] is None
    assert found["response"]["status_code"] == 200
    return found["response"]["body"]["choices"][0]["message"]["content"]
