"""The sandbox: simulated providers on real HTTP, strict enough to stand in for the vendors.

It imports nothing of the gateway, so that it cannot share the gateway's misunderstandings.

main          create_sandbox() and run(): the providers and the switchboard as one ASGI app on one port
server        uvicorn, with connections that can be cut
switchboard   /_sandbox: state, faults, clock
config        the gateway configuration that uses the sandbox

provider      what every simulated provider has in common: accounts, operations, refusals
faults        what can go wrong, and when
exchange      one request on a wire that a fault slows or cuts
store         files and batches by account, uploads under way, request counters, the clock
batches       how far the clock has brought a batch, line by line
blobs         bytes on disk
form          an upload's multipart form
data_urls     bytes that come inline, as base64
model         the simulated model: says which bytes it was given

A provider and its parts (`_files` of openai is openai_files):
openai        Files, Batch, Models, Chat Completions: _files, _batches, _batch_lines, _chat, _parts, _completion,
              _pages, _answers
azure         the same wire with Azure's paths, keys, ids, purposes and errors
anthropic     Files, Models, Messages, Message Batches: _files, _messages, _blocks, _rules, _thoughts, _answer,
              _batches, _pages, _errors
gemini        Files, Models, generateContent, batches: _files, _uploads, _chat, _contents, _rules, _generate,
              _completion, _batches, _pages, _answers
vertex        gemini's generateContent, with files from gcs: _batches
gcs           Cloud Storage: _json, _uploads, _related, _headers, _answers
bedrock       Converse, with files from s3: _request, _blocks, _rules, _thinking, _catalog, _answer, _batches, _auth,
              _errors
event_stream  the binary frames in which bedrock streams
s3            S3: _body, _signature
objects       the bucket that gcs and s3 both are: _xml, _documents, _pages, _parts, _batches

A further provider is one file with a Provider subclass, and its name in main.PROVIDERS.
"""

from pathlib import Path


def sample_path() -> Path:
    """Return the path of the small PDF that ships with the sandbox: one page that says "filemux"."""
    return Path(__file__).with_name("sample.pdf")
