"""What an upload's outcomes mean: for the rows, and for the caller when the upload failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from app.errors import GatewayError, Missing, ProviderError
from app.files.fanout import Outcome
from app.providers.protocol import ProviderFile

# A target that did not take the file is tried again after this, where the policy lets the others have it.
RETRY = timedelta(seconds=1)


class UploadFailed(GatewayError):
    """Not every target that the policy asks for took the file; each target's outcome is in the message."""

    def __init__(self, message: str, cause: ProviderError, facts: dict[str, Any]) -> None:
        super().__init__(
            message,
            param="target_model_names",
            code="upload_failed",
            retry_after_seconds=cause.retry_after_seconds,
            facts=facts,
        )
        # Status and type are those of the failure that decided; what a provider lacks, such as the bucket, is no 404
        # of the caller's.
        self.status = 502 if isinstance(cause, Missing) else cause.status  # type: ignore[misc]
        self.type = cause.type  # type: ignore[misc]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> UploadFailed:
        """The error that tells what became of each target; a failure that no retry mends decides the status."""
        failures = [outcome.error for outcome in outcomes if outcome.error is not None]
        decisive = next((error for error in failures if not error.retryable), failures[0])
        targets = [
            {
                "model_names": list(outcome.sink.model_names),
                "provider": outcome.sink.account.provider_name,
                "account": outcome.sink.account.name,
                "outcome": _word(outcome),
                "message": outcome.error.message if outcome.error else None,
            }
            for outcome in outcomes
        ]
        lines = [
            f"{', '.join(outcome.sink.model_names)} ({outcome.sink.account.provider_name}): "
            + (outcome.error.message if outcome.error else _word(outcome))
            for outcome in outcomes
        ]
        message = "the file was not stored, because not every target took it. " + "; ".join(lines)
        return cls(message, decisive, {"targets": targets})


def _word(outcome: Outcome) -> str:
    if outcome.error is not None:
        return "failed"
    return "stored, and deleted again" if outcome.file is not None else "cut off"


def replica_values(outcome: Outcome, *, discard: bool = False) -> dict[str, Any]:
    """The columns of a replica's row; with `discard` the file is not wanted any more, so what exists is deleted."""
    file, error = outcome.file, outcome.error
    now = datetime.now(UTC)
    values: dict[str, Any] = {"last_error": error.message if error else None, "due_at": None}
    if file is not None and (discard or error is not None):
        return {**values, "provider_file_id": file.id, "state": "deleting", "due_at": now, "attempts": 0}
    if file is not None:
        return stored_values(file)
    if outcome.may_exist:
        # Only the provider's list can tell; repair looks there.
        return {**values, "state": "pending", "due_at": now, "lost_at": None}
    retried = error is None or error.retryable
    return {**values, "state": "failed", "due_at": now + RETRY if retried and not discard else None}


def stored_values(file: ProviderFile) -> dict[str, Any]:
    """The columns of a replica whose provider holds the file."""
    now = datetime.now(UTC)
    return {
        "provider_file_id": file.id,
        "state": "stored" if file.ready else "processing",
        "stored_at": now,
        "expires_at": None if file.expires_at is None else datetime.fromtimestamp(file.expires_at, UTC),
        "due_at": None if file.ready else now,
        "last_error": None,
    }
