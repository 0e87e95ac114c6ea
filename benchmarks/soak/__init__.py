"""Whatever crashes, nothing is lost and nothing is orphaned: `python -m benchmarks.soak`, or `make soak`.

__main__   the command: everything starts, the clients work while things break, all is healed, drained and judged
fleet      the processes: PostgreSQL, the sandbox, moto's S3, and two gateways that can be killed
trouble    what breaks: provider faults, SIGKILLs, restarts of PostgreSQL
content    a file's bytes, made while they are sent
clients    what a client does, with the official SDK
ledger     what clients were told, and what broke a promise
verdict    after the last fault: wait until nothing is due, then compare clients, rows, providers and kept bytes
tally      operations, times and errors; the table and the JSON
"""
