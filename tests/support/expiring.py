"""A key whose expiry a test need not wait for long, however slow the machine is."""

import time

import httpx


def key_that_expires_soon(clients):
    """One with which a request was answered before its time had come."""
    for seconds in (2, 10, 60):
        key = clients.new_key(expires_at=int(time.time()) + seconds)
        headers = {"authorization": f"Bearer {key['key']}"}
        if httpx.get(f"{clients.url}/v1/files", headers=headers, timeout=60).status_code == 200:
            return key
        assert time.time() >= key["expires_at"]
    raise AssertionError("no key was good for even a minute")
