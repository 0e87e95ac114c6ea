"""Chats as clients make them, and what the simulated model says about the files that it was given."""

from tests.support.uploads import sha256

# Provider → the sandbox's model name there.
MODELS = {
    "openai": "gpt-4o-mini-openai",
    "azure": "gpt-4o-azure",
    "anthropic": "claude-sonnet",
    "gemini": "gemini-flash",
    "vertex_ai": "gemini-2.0-flash",
    "bedrock": "nova-lite",
}
MODEL_NAMES = tuple(MODELS.values())


def file_part(file_id):
    return {"type": "file", "file": {"file_id": file_id}}


def text_part(text):
    return {"type": "text", "text": text}


def ask(client, model, *parts, **options):
    """A chat with one user message of these parts."""
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": list(parts)}], **options)


def answer_of(completion):
    return completion.choices[0].message.content


def streamed_answer(stream):
    """The text of a stream, put together."""
    return "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)


def seen(filename, content):
    """The line with which the simulated model proves that it was given a file."""
    return f"[file filename={filename} bytes={len(content)} sha256={sha256(content)}]"
