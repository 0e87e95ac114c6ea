"""The sandbox: simulated providers on real HTTP, strict enough to stand in for the vendors.

It imports nothing of the gateway, so that it cannot share the gateway's misunderstandings.

main         create_sandbox() and run(): the providers and the switchboard as one ASGI app on one port
server       uvicorn, with connections that can be cut
provider     what every simulated provider has in common: accounts, operations, refusals
openai       OpenAI's Files, Models and Chat; openai_chat: its request body; openai_completion: its answer
azure        Azure OpenAI: the same wire with Azure's paths, keys, ids, purposes and errors
model        the simulated model: says which bytes it was given
store        files by account, request counters, the clock; blobs: bytes on disk; form: multipart uploads
faults       what can go wrong, and when; exchange: one request on a wire that a fault slows or cuts
switchboard  /_sandbox: state, faults, clock
config       the gateway configuration that uses the sandbox

A further provider is one file with a Provider subclass, and its name in main.PROVIDERS.
"""

from pathlib import Path


def sample_path() -> Path:
    """Return the path of the small PDF that ships with the sandbox: one page that says "filemux"."""
    return Path(__file__).with_name("sample.pdf")
