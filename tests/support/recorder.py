"""A provider that keeps every request to the byte, and can be told how to answer: for what the sandbox cannot show."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = b'{"id": "chatcmpl-1",  "object":"chat.completion", "odd" : 12345678901234567890, "choices": []}'
EVENT = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":0,"model":"m","choices":[]}\n\n'
ERROR_EVENT = b'data: {"error": {"message":"the model fell over", "type":"server_error"}}\n\n'


@dataclass(frozen=True)
class Recorded:
    path: str
    headers: dict
    body: bytes


class Recorder:
    """`url` is its API base. `chats` are the chats as they came; `hung_up` is set when a caller leaves."""

    def __init__(self, url):
        self.url = url
        self.reset()

    def reset(self):
        self.chats = []
        self.arrived = threading.Event()
        self.hung_up = threading.Event()
        self.answer_chat = whole


def whole(handler, _recorder):
    """Answer at once."""
    handler.send(ANSWER, "application/json")


def silence(handler, recorder):
    """Say nothing until the caller leaves."""
    if handler.connection.recv(1) == b"":
        recorder.hung_up.set()


def endless(handler, recorder):
    """Send one event and then nothing until the caller leaves."""
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.end_headers()
    handler.wfile.write(EVENT)
    silence(handler, recorder)


def failing_later(handler, _recorder):
    """Send one event and then an error, as OpenAI does inside a stream."""
    handler.send(EVENT + ERROR_EVENT, "text/event-stream")


@contextmanager
def recording():
    """A running Recorder."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path.endswith("/files"):
                self.send(b'{"id": "file-of-the-recorder", "object": "file"}', "application/json")
                return
            recorder.chats.append(Recorded(self.path, dict(self.headers), body))
            recorder.arrived.set()
            self.close_connection = True
            recorder.answer_chat(self, recorder)

        def do_DELETE(self):
            self.send(b'{"deleted": true}', "application/json")

        def send(self, content, content_type):
            self.send_response(200)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        recorder = Recorder(f"http://127.0.0.1:{server.server_port}/v1")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()
