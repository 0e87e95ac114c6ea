"""The lines of OpenAI's batches: requests as they come in, results as they go out (wire.md §1e, §2e)."""

from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

import orjson
from pydantic import Field, ValidationError
from starlette.responses import Response

from app.sandbox.batches import RUN_SECONDS, failure_of, seconds_of
from app.sandbox.openai_chat import ChatRequest
from app.sandbox.openai_parts import Strict

# How many errors of a file a batch tells; OpenAI's number is unverified.
_MAX_ERRORS = 100
_BOM = b"\xef\xbb\xbf"


class _Line(Strict):
    custom_id: Annotated[str, Field(min_length=1)]
    method: Literal["POST"]
    url: str
    body: dict[str, Any]


class _BadLine(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that have something in them, each with its number."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


class Inspection:
    """What an input file holds: how long each line takes, with which status it fails (0: not), and what is wrong."""

    def __init__(self, path: Path, endpoint: str, is_model: Callable[[str], bool]) -> None:
        self.seconds, self.failures = array("I"), array("H")
        self.errors: list[dict[str, Any]] = []
        self._endpoint, self._is_model = endpoint, is_model
        self._custom_ids: set[str] = set()
        self._model: str | None = None
        for number, content in lines_of(path):
            try:
                self._take(self._checked(content))
            except _BadLine as bad:
                self.errors.append({"code": bad.code, "message": bad.message, "param": bad.param, "line": number})
                if len(self.errors) == _MAX_ERRORS:
                    break
        if not self.seconds and not self.errors:
            self.errors.append({"code": "empty_file", "message": "The file is empty.", "param": None, "line": None})

    def _checked(self, content: bytes) -> _Line:
        if content.startswith(_BOM):
            raise _BadLine("invalid_json_line", "The file begins with a byte order mark.")
        try:
            line = _Line.model_validate(orjson.loads(content))
        except orjson.JSONDecodeError as error:
            raise _BadLine("invalid_json_line", "This line is not parseable as valid JSON.") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise _BadLine("invalid_request", first["msg"], ".".join(map(str, first["loc"])) or None) from error
        if line.url != self._endpoint:
            message = f"The URL provided for this line does not match the batch's endpoint {self._endpoint}."
            raise _BadLine("url_mismatch", message, "url")
        if line.custom_id in self._custom_ids:
            message = f"The custom_id '{line.custom_id}' is already used by another line."
            raise _BadLine("duplicate_custom_id", message, "custom_id")
        self._custom_ids.add(line.custom_id)
        self._check_model(line.body.get("model"))
        return line

    def _check_model(self, model: Any) -> None:
        if not isinstance(model, str) or not self._is_model(model):
            raise _BadLine("model_not_found", f"The model '{model}' does not exist.", "body.model")
        if self._model is None:
            self._model = model
        if model != self._model:
            # OpenAI's guide says as Azure's that a file has one model.
            message = f"The model '{model}' is not that of the lines before, '{self._model}'."
            raise _BadLine("model_mismatch", message, "body.model")

    def _take(self, line: _Line) -> None:
        try:
            text = ChatRequest.model_validate(line.body).last_user_text
        except ValidationError:
            # A request that is wrong in itself fails alone.
            self.seconds.append(RUN_SECONDS)
            self.failures.append(400)
        else:
            self.seconds.append(seconds_of(text))
            self.failures.append(failure_of(text) or 0)


def answered_line(custom_id: str, response: Response) -> bytes:
    """Return the line of a request that was answered, well or not."""
    told = {
        "status_code": response.status_code,
        "request_id": response.headers["x-request-id"],
        "body": orjson.Fragment(bytes(response.body)),
    }
    return _result_line(custom_id, response=told)


def unanswered_line(custom_id: str, code: str, message: str) -> bytes:
    """Return the line of a request that never ran."""
    return _result_line(custom_id, error={"code": code, "message": message})


def _result_line(
    custom_id: str, *, response: dict[str, Any] | None = None, error: dict[str, str] | None = None
) -> bytes:
    line = {"id": f"batch_req_{uuid4().hex}", "custom_id": custom_id, "response": response, "error": error}
    return orjson.dumps(line) + b"\n"
