"""filemux: one upload, every model. The map of this house:

main       composition root; routes: every URL; edge: request ids, the error envelope, one log line
access     who calls: keys, teams, roles
files      a file's life: upload (multipart, spool, fanout), read, delete, expire, references in payloads
chat       completions that mention files, for whichever model they go to
batches    files of chats and other requests: split by deployment, run, one output
formats    pure translation between OpenAI's chats and the providers' own
providers  one file per provider behind one Protocol; registry; wrappers that retry and observe
db         tables, sessions, claims under a lease, NOTIFY-kept caches, the embedded PostgreSQL
sandbox    simulated providers for tests and demos; imports nothing of the gateway
Imports run downwards only (tests/test_architecture.py); docs/architecture.md walks through a request.
"""
