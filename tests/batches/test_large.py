"""A batch of 10,000 lines on three providers: one output, and a gateway that does not grow with it."""

import re
from pathlib import Path

from tests.support.batches import answer_in, create, ended, line, lines_of, upload_lines
from tests.support.sandbox import eventually

LINES = 10_000
MODEL_NAMES = ("gpt-4o-mini-openai", "claude-sonnet", "gemini-flash")
MAX_GROWTH_BYTES = 64 * 1024 * 1024


def resident_bytes(pid, name):
    """A figure of the process's resident memory: VmRSS now, or VmHWM, its highest (proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024


def test_ten_thousand_lines_in_flat_memory(six, client, sandbox):
    lines = [line(f"request {n}", MODEL_NAMES[n % 3], f"say {n}") for n in range(LINES)]
    # Sets the high-water mark back to the present.
    Path(f"/proc/{six.process.pid}/clear_refs").write_text("5")
    idle_bytes = resident_bytes(six.process.pid, "VmRSS")
    batch = create(client, upload_lines(client, lines))
    assert eventually(lambda: client.batches.retrieve(batch.id).status == "in_progress", 120)
    batch = ended(client, batch, sandbox)
    assert resident_bytes(six.process.pid, "VmHWM") - idle_bytes <= MAX_GROWTH_BYTES
    assert batch.status == "completed", batch.to_dict()
    assert (batch.request_counts.completed, batch.request_counts.failed, batch.error_file_id) == (LINES, 0, None)
    assert {one["provider"] for one in sandbox.state()["batches"]} <= {"openai", "anthropic", "gemini"}
    output = lines_of(client, batch.output_file_id)
    assert {custom_id: answer_in(found) for custom_id, found in output.items()} == {
        f"request {n}": f"say {n}" for n in range(LINES)
    }
