"""A provider that only costs what HTTP costs: uploads are counted and dropped, answers are made beforehand.

`/BYTES_PER_SECOND/v1/…` takes the body of an upload at that speed on each connection; `/v1/…` as it comes. Chats are
answered in the format that their path belongs to: OpenAI's, Anthropic's, Gemini's or Bedrock's.
"""

import asyncio
import contextlib
import json
import re
from functools import partial

import httptools
import uvloop

EVENTS = 30
EVENT_SECONDS = 0.02
# Enough for a chat's `stream` and for what stands before a file's bytes in a form.
HEAD_BYTES = 4096
BYTES_PER_SECOND = re.compile(rb"/(\d+)/v1/")


def _answer(content: dict) -> bytes:
    body = json.dumps(content).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _event(content: str) -> bytes:
    event = f"data: {content}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(event), event)


def _delta(word: str) -> str:
    choice = {"index": 0, "delta": {"content": word}, "logprobs": None, "finish_reason": None}
    chunk = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini-2024-07-18"}
    return json.dumps({**chunk, "system_fingerprint": "fp_fake", "choices": [choice]})


MESSAGE = {"role": "assistant", "content": "The file is a contract of three pages. " * 6, "refusal": None}
USAGE = {"prompt_tokens": 1042, "completion_tokens": 54, "total_tokens": 1096}
COMPLETION = _answer(
    {
        "id": "chatcmpl-BxQ3fakefakefakefakefakefake",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": MESSAGE, "logprobs": None, "finish_reason": "stop"}],
        "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}},
        "service_tier": "default",
        "system_fingerprint": "fp_fake",
    }
)
WORDS = MESSAGE["content"]
MESSAGES = _answer(
    {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": WORDS}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1042, "output_tokens": 54},
    }
)
GENERATED = _answer(
    {
        "candidates": [{"content": {"role": "model", "parts": [{"text": WORDS}]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 1042, "candidatesTokenCount": 54, "totalTokenCount": 1096},
        "modelVersion": "gemini-2.0-flash",
        "responseId": "fake",
    }
)
CONVERSE = _answer(
    {
        "output": {"message": {"role": "assistant", "content": [{"text": WORDS}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 1042, "outputTokens": 54, "totalTokens": 1096},
        "metrics": {"latencyMs": 1},
    }
)
CHATS = {
    b"/chat/completions": COMPLETION,
    b"/messages": MESSAGES,
    b":generateContent": GENERATED,
    b"/converse": CONVERSE,
}
MODELS = _answer({"object": "list", "data": []})
DELETED = _answer({"id": "file-fake", "object": "file", "deleted": True})
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DELTA = _event(_delta("word "))
STREAM_END = _event("[DONE]") + b"0\r\n\r\n"


class Connection(asyncio.Protocol):
    """One connection; requests on it follow each other."""

    def connection_made(self, transport):
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()

    def data_received(self, data):
        self._parser.feed_data(data)
        if self._rate and not self._complete and self._due() > self._loop.time():
            self._transport.pause_reading()
            self._loop.call_at(self._due(), self._resume)

    def _due(self) -> float:
        return self._started + self._received / self._rate

    def _resume(self):
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # --- what the parser calls ----------------------------------------------------------------------------------

    def on_url(self, url):
        self._path, self._head, self._received, self._complete = url, b"", 0, False
        limit = BYTES_PER_SECOND.match(url)
        self._rate = int(limit[1]) if limit else None
        self._started = self._loop.time()

    def on_body(self, chunk):
        self._received += len(chunk)
        if len(self._head) < HEAD_BYTES:
            self._head += chunk[:HEAD_BYTES]

    def on_message_complete(self):
        self._complete = True
        chat = next((answer for path, answer in CHATS.items() if self._path.endswith(path)), None)
        if chat is COMPLETION and b'"stream":true' in self._head:
            self._transport.write(STREAM_HEAD)
            self._stream(self._loop.time(), 1)
        elif chat:
            self._transport.write(chat)
        elif self._path.endswith(b"/files"):
            answer = _answer(self._file())
            write = partial(self._transport.write, answer)
            self._loop.call_at(self._due(), write) if self._rate else write()
        else:
            self._transport.write(DELETED if self._parser.get_method() == b"DELETE" else MODELS)

    # --- answers ------------------------------------------------------------------------------------------------

    def _stream(self, started: float, number: int):
        """Send one event each EVENT_SECONDS after the start, however late the last one was."""
        if self._transport.is_closing():
            return
        if number <= EVENTS:
            self._loop.call_at(started + number * EVENT_SECONDS, self._send_event, started, number)
        else:
            self._transport.write(STREAM_END)

    def _send_event(self, started: float, number: int):
        self._transport.write(DELTA)
        self._stream(started, number + 1)

    def _file(self) -> dict:
        """The file object; its size is the body's without the frame, the file being the last part."""
        head = self._head
        begin = head.index(b"\r\n\r\n", head.index(b'name="file"')) + 4
        closing = len(b"\r\n" + head[: head.index(b"\r\n")] + b"--\r\n")
        size = self._received - begin - closing
        return {"id": "file-fake", "object": "file", "bytes": size, "created_at": 1, "purpose": "user_data"}


async def main():
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
