"""A line to a gateway on which answers get lost."""

import contextlib
import socket
import socketserver
import threading
from urllib.parse import urlsplit


class _Line(socketserver.ThreadingTCPServer):
    """Passes every byte on in both directions, but breaks the first connections when their answer comes."""

    daemon_threads = True

    def __init__(self, url, times):
        super().__init__(("127.0.0.1", 0), _Connection)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.gateway = urlsplit(url).hostname, urlsplit(url).port
        self.to_lose, self.lost = times, 0


class _Connection(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.create_connection(self.server.gateway) as gateway:
            requests = threading.Thread(target=self._pass_requests_on, args=(gateway,))
            requests.start()
            while data := gateway.recv(65_536):
                if self.server.lost < self.server.to_lose:
                    self.server.lost += 1
                    break
                self.request.sendall(data)
            for one in (gateway, self.request):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            requests.join()

    def _pass_requests_on(self, gateway):
        with contextlib.suppress(OSError):
            while data := self.request.recv(65_536):
                gateway.sendall(data)
            gateway.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def losing_answers(url, times):
    """A line to `url` that loses the first answers; `lost` counts them."""
    with _Line(url, times) as line:
        thread = threading.Thread(target=line.serve_forever)
        thread.start()
        try:
            yield line
        finally:
            line.shutdown()
            thread.join()
