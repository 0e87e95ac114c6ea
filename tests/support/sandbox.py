"""The sandbox's switchboard, as tests use it."""

import time

import httpx


class Switchboard:
    """State, faults and clock of a running sandbox."""

    def __init__(self, url):
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=30)

    def close(self):
        self._http.close()

    def reset(self):
        """Forget faults, files, counters and the clock's advance."""
        self._http.delete("/_sandbox/faults").raise_for_status()
        self._http.delete("/_sandbox/state").raise_for_status()

    def fault(self, provider, operation, **fault):
        """Have the next calls fail, such as `fault("openai", "upload_file", status=500, times=-1)`."""
        body = {"provider": provider, "operation": operation, **fault}
        self._http.post("/_sandbox/faults", json=body).raise_for_status()

    def heal(self):
        """Take every fault away."""
        self._http.delete("/_sandbox/faults").raise_for_status()

    def release(self, *operations):
        """Let go what faults delay or slow down at this moment, once operations such as `openai.chat` were called."""
        assert eventually(lambda: all(map(self.calls, operations)))
        self._http.delete("/_sandbox/delays").raise_for_status()

    def advance(self, seconds):
        """Move the providers' clock forward."""
        self._http.post("/_sandbox/clock", json={"advance_seconds": seconds}).raise_for_status()

    def state(self):
        """Everything that the providers hold, and how often they were called."""
        return self._http.get("/_sandbox/state").raise_for_status().json()

    @property
    def files(self):
        """The files at all providers."""
        return self.state()["files"]

    def calls(self, operation):
        """How often an operation such as `openai.chat` was called."""
        return self.state()["requests"].get(operation, 0)


def eventually(probe, seconds=60.0):
    """Poll until the probe is true; its last answer. For what happens in another process."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return answer
