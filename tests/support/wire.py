"""HTTP by hand, for clients that stop in the middle or send what no library would."""

import contextlib
import socket
import time
from urllib.parse import urlsplit

from app.hangup import PATIENCE_SECONDS
from tests.support.sandbox import eventually


class Line:
    """A TCP connection to a gateway; closed on leaving the block, which a server sees as a client that left."""

    def __init__(self, url):
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=60)
        self._host = parts.netloc

    def send_head(self, verb, path, key, **headers):
        """Send a request's head; `content_length=5` becomes `content-length: 5`."""
        lines = [f"{verb} {path} HTTP/1.1", f"host: {self._host}", f"authorization: Bearer {key}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n")

    def send(self, content):
        self._socket.sendall(content)

    def send_chunk(self, content):
        """Send one chunk of a body in chunked transfer encoding."""
        self.send(b"%x\r\n%s\r\n" % (len(content), content))

    def receive_until(self, wanted):
        """Everything received up to and including the wanted bytes, or up to the server's end."""
        received = bytearray()
        while wanted not in received and (data := self._socket.recv(65_536)):
            received += data
        return bytes(received)

    def hang_up(self):
        """Leave a request that is being worked on, and return once the server has noticed: it then closes its side
        too."""
        # A gateway does not look out for that before.
        ready_at = time.monotonic() + 2 * PATIENCE_SECONDS
        assert eventually(lambda: time.monotonic() > ready_at)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(65_536):
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._socket.close()
