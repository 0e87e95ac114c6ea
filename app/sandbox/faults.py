"""What can go wrong: faults, and the list that says which request meets which fault."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

OPERATIONS = frozenset(
    {
        # An upload in several requests: those that carry bytes are upload_file.
        "start_upload",
        "query_upload",
        "cancel_upload",
        "finish_upload",
        "list_uploads",
        "upload_file",
        "retrieve_file",
        "read_file",
        "list_files",
        "delete_file",
        "chat",
        "stream_chat",
        "list_models",
        "retrieve_model",
        "retrieve_bucket",
        "issue_token",
    }
)
ANY = "*"
FOREVER = -1


class Fault(BaseModel):
    """One thing that goes wrong, for the next `times` requests that match."""

    model_config = ConfigDict(extra="forbid", strict=True)

    provider: str = ANY
    operation: str = ANY
    # The digest that /_sandbox/state shows, for keys are never shown.
    account: str | None = None
    times: int = 1

    # Answer with this status, in the provider's own shape, without doing the work.
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    retry_after_seconds: Annotated[int, Field(ge=0)] | None = None
    # Wait before doing anything; given up when the client leaves.
    delay_seconds: Annotated[float, Field(ge=0)] = 0
    # Cut the connection after so many bytes: of the request when it uploads a file, else of the answer's body.
    reset_after_bytes: Annotated[int, Field(ge=0)] | None = None
    # Do the work, then cut the connection instead of answering.
    lose_answer: bool = False
    # Take the request (when it uploads a file) or give the answer no faster than this.
    bytes_per_second: Annotated[int, Field(gt=0)] | None = None

    @field_validator("operation")
    @classmethod
    def _known_operation(cls, operation: str) -> str:
        if operation not in OPERATIONS | {ANY}:
            raise ValueError(f"no such operation; there are {', '.join(sorted(OPERATIONS))} and {ANY}")
        return operation

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.times < 1 and self.times != FOREVER:
            raise ValueError(f"times is at least 1, or {FOREVER} for ever")
        if self.retry_after_seconds is not None and self.status is None:
            raise ValueError("retry_after_seconds needs a status")
        if self.status is not None and self.lose_answer:
            raise ValueError("status and lose_answer exclude each other: one does no work, the other does it")
        harm = (self.status, self.reset_after_bytes, self.bytes_per_second)
        if harm == (None, None, None) and not self.delay_seconds and not self.lose_answer:
            raise ValueError("a fault needs an effect, such as status or delay_seconds")
        return self

    def matches(self, provider: str, operation: str, account: str) -> bool:
        """Tell whether a request meets this fault."""
        return (
            self.provider in (ANY, provider) and self.operation in (ANY, operation) and self.account in (None, account)
        )


class Faults:
    """The faults that wait for their requests."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._faults)

    def add(self, fault: Fault) -> None:
        """Let `fault` wait for its requests."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Go back to health."""
        self._faults.clear()

    def take(self, provider: str, operation: str, account: str) -> Fault | None:
        """Return the fault that a request meets, and count it.

        One request meets one fault: the oldest counted one, else the newest that stands for ever. So a single
        failure can be laid over a line that is slow all the time.
        """
        met = [fault for fault in self._faults if fault.matches(provider, operation, account)]
        counted = next((fault for fault in met if fault.times != FOREVER), None)
        if counted is None:
            return met[-1] if met else None
        counted.times -= 1
        if not counted.times:
            self._faults.remove(counted)
        return counted
