"""What can go wrong: faults, and the list that says which request meets which fault."""

import asyncio
import os
from collections.abc import Iterator
from typing import Annotated, Literal, Self

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
        "create_batch",
        "retrieve_batch",
        "list_batches",
        "cancel_batch",
        "delete_batch",
        "read_batch_output",
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
    # Store another byte than the one that came, and report size and digests of what is stored.
    corrupt: bool = False
    # Kill this process, such as the gateway, with SIGKILL: before anything is done, when so many bytes of the
    # request's body have come, when the work is done and nothing answered, or when the whole answer is sent.
    kill_pid: Annotated[int, Field(gt=1)] | None = None
    kill_at: Literal["start", "before_answer", "after_answer"] | None = None
    kill_after_bytes: Annotated[int, Field(gt=0)] | None = None

    @field_validator("operation")
    @classmethod
    def _known_operation(cls, operation: str) -> str:
        if operation not in OPERATIONS | {ANY}:
            raise ValueError(f"no such operation; there are {', '.join(sorted(OPERATIONS))} and {ANY}")
        return operation

    @field_validator("kill_pid")
    @classmethod
    def _can_be_killed(cls, pid: int | None) -> int | None:
        try:
            if pid is not None:
                os.kill(pid, 0)
        except OSError as error:
            raise ValueError(f"process {pid} cannot be killed: {error.strerror}") from error
        return pid

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.times < 1 and self.times != FOREVER:
            raise ValueError(f"times is at least 1, or {FOREVER} for ever")
        if self.retry_after_seconds is not None and self.status is None:
            raise ValueError("retry_after_seconds needs a status")
        if self.status is not None and self.lose_answer:
            raise ValueError("status and lose_answer exclude each other: one does no work, the other does it")
        if self.corrupt and (self.operation != "upload_file" or self.status is not None):
            raise ValueError("corrupt needs the operation upload_file, and no status")
        harm = (self.status, self.reset_after_bytes, self.bytes_per_second, self.kill_pid)
        if harm == (None,) * 4 and not (self.delay_seconds or self.lose_answer or self.corrupt):
            raise ValueError("a fault needs an effect, such as status or delay_seconds")
        return self

    @model_validator(mode="after")
    def _kills_once(self) -> Self:
        moments = (self.kill_at is not None) + (self.kill_after_bytes is not None)
        if moments != (self.kill_pid is not None):
            raise ValueError("kill_pid goes with either kill_at or kill_after_bytes")
        if moments and (self.lose_answer or self.reset_after_bytes is not None):
            raise ValueError("kill_pid excludes lose_answer and reset_after_bytes: the kill ends the request")
        if self.status is not None and (self.kill_at == "start" or self.kill_after_bytes is not None):
            raise ValueError("a status comes after the kill; kill_at is before_answer or after_answer")
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
        # Set when what a fault holds up now is let go; whoever meets one later waits for the next.
        self.released = asyncio.Event()

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._faults)

    def add(self, fault: Fault) -> None:
        """Let `fault` wait for its requests."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Go back to health."""
        self._faults.clear()

    def release(self) -> None:
        """Let go what faults delay or slow down at this moment."""
        self.released.set()
        self.released = asyncio.Event()

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
