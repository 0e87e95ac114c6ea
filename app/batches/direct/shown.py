"""A provider's batch as OpenAI's Batch object."""

from __future__ import annotations

import time
from typing import Any

from app.batches.direct.address import Naming
from app.files.direct.results import Results
from app.formats.batch_lines import CHAT_ENDPOINT
from app.providers.protocol import ENDED, ProviderBatch

MOMENTS = ("in_progress", "expires", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


def shown(batch: ProviderBatch, naming: Naming, input_file_id: str | None = None) -> dict[str, Any]:
    """The Batch object; `input_file_id` is the one that the caller has given, where that is known."""
    output_file_id, error_file_id = _results(batch, naming)
    moments: dict[str, int | None] = dict.fromkeys(f"{name}_at" for name in MOMENTS)
    moments |= {"in_progress_at": batch.in_progress_at, "expires_at": batch.expires_at}
    if batch.status in ENDED:
        moments[f"{batch.status}_at"] = batch.ended_at
    errors = [{"code": one.code, "line": one.line, "message": one.message, "param": one.param} for one in batch.errors]
    return {
        "id": naming.batch(batch.id),
        "object": "batch",
        "endpoint": batch.endpoint or CHAT_ENDPOINT,
        "input_file_id": input_file_id or naming.file(batch.input_file_id) or "",
        "completion_window": "24h",
        "status": batch.status,
        "errors": {"object": "list", "data": errors} if errors else None,
        "output_file_id": output_file_id,
        "error_file_id": error_file_id,
        "created_at": int(time.time()) if batch.created_at is None else batch.created_at,
        **moments,
        "request_counts": {
            "total": batch.total or 0,
            "completed": batch.completed or 0,
            "failed": batch.failed or 0,
        },
        "metadata": dict(batch.metadata) or None,
        "filemux": {"provider": naming.account.provider_name, "account": naming.account.name},
    }


def _results(batch: ProviderBatch, naming: Naming) -> tuple[str | None, str | None]:
    """The ids of the output and of the error file: the provider's own where it has files of OpenAI's lines."""
    if naming.account.provider.capabilities.speaks_openai:
        return naming.file(batch.output_file_id), naming.file(batch.error_file_id)
    if batch.status not in ENDED:
        return None, None
    output = Results(naming.account, batch.id, failed=False).id if batch.completed != 0 else None
    errors = Results(naming.account, batch.id, failed=True).id if batch.failed != 0 else None
    return naming.file(output), naming.file(errors)
