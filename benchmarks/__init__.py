"""How fast filemux is beside a direct call to the same provider: `python -m benchmarks [NAME …] [--quick]`.

__main__       the command: runs what is named, prints one table, writes it to results/ with the machine beside it
fake_provider  an OpenAI-shaped server that is never the limit
processes      starts it and the real `filemux serve`; reads their CPU and memory
client         the load: wrk, a streaming upload, paced SSE streams
report         a row, its targets (design §9), the table, the JSON
profile        where a worker's time goes
chat providers sse upload memory rate batches start    one file each; `rows(bench)` measures
batch_lines    a batch's lines and results, and how fast one core translates them
soak           not how fast but how safe: `python -m benchmarks.soak`
"""
