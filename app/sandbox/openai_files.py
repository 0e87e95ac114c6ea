"""OpenAI's Files API (wire.md §1b), with the rules in which Azure's differs as data."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.sandbox.blobs import read_blocks
from app.sandbox.form import FileTooLarge, Form, FormError, receive_form
from app.sandbox.openai_answers import answer, answer_headers, bad_request, error_response
from app.sandbox.openai_pages import after, integer, limit_of, page_answer, require_known
from app.sandbox.provider import Refusal
from app.sandbox.store import Store, StoredFile

_MIN_EXPIRY_SECONDS, _MAX_EXPIRY_SECONDS = 3600, 30 * 24 * 3600
_MAX_LIST_LIMIT = 10_000
# Uploads of these purposes are never given back (wire.md §0.1, fact 6).
_UNREADABLE_PURPOSES = frozenset({"assistants", "user_data", "vision"})


def mint_file_id(_purpose: str = "") -> str:
    """Return a new file's id; OpenAI's does not tell the purpose."""
    return f"file-{uuid4().hex[:24]}"


@dataclass(frozen=True, kw_only=True)
class FileRules:
    """What one provider of this API accepts and names differently from another."""

    purposes: frozenset[str]
    # The vendors stop at 512 MB; the memory tests and benchmarks, and gateways of larger servers, do not.
    max_file_bytes: int = 8 * 1024**3
    mint_id: Callable[[str], str] = mint_file_id
    # How a form may spell the two fields of expires_after.
    expiry_fields: Sequence[str] = ("expires_after[anchor]", "expires_after[seconds]")
    list_parameters: frozenset[str] = frozenset({"after", "limit", "order", "purpose"})


class OpenAIFiles:
    """The endpoints of the Files API."""

    def __init__(self, provider: str, store: Store, rules: FileRules) -> None:
        self._provider = provider
        self._store = store
        self._rules = rules

    async def upload(self, request: Request, account: str) -> Response:
        """Create a file."""
        max_file_bytes = self._store.max_file_bytes or self._rules.max_file_bytes
        try:
            form = await receive_form(request, self._store.incoming, max_file_bytes)
        except FormError as error:
            raise bad_request(str(error), error.param) from error
        except FileTooLarge as error:
            message = f"File exceeds the maximum size of {max_file_bytes} bytes."
            raise Refusal(error_response(413, message, param="file")) from error
        try:
            file = self._stored(form, account)
        except Refusal:
            if form.file is not None:
                await form.file.discard()
            raise
        self._store.add(file)
        return answer(_file_object(file))

    def _stored(self, form: Form, account: str) -> StoredFile:
        if form.file is None:
            raise bad_request("Missing required parameter: 'file'.", "file", "missing_required_parameter")
        purpose = self._purpose(form.fields)
        now = self._store.clock.now()
        lifetime_seconds = self._lifetime_seconds(form.fields, purpose)
        if unknown := sorted(form.fields.keys() - {"purpose", *self._rules.expiry_fields}):
            raise bad_request(f"Unknown parameter: '{unknown[0]}'.", unknown[0], "unknown_parameter")
        if not form.file.size_bytes:
            raise bad_request("File is empty.", "file")
        return StoredFile(
            provider=self._provider,
            account=account,
            id=self._rules.mint_id(purpose),
            filename=form.filename,
            size_bytes=form.file.size_bytes,
            sha256=form.file.sha256,
            purpose=purpose,
            content_type=form.content_type,
            created_at=now,
            expires_at=None if lifetime_seconds is None else now + lifetime_seconds,
            path=form.file.path,
        )

    def _purpose(self, fields: dict[str, str]) -> str:
        purpose = fields.get("purpose")
        if purpose is None:
            message = "Missing required parameter: 'purpose'."
            raise bad_request(message, "purpose", "missing_required_parameter")
        if purpose not in self._rules.purposes:
            message = f"'{purpose}' is not one of {sorted(self._rules.purposes)} - 'purpose'"
            raise bad_request(message, "purpose", "invalid_value")
        return purpose

    def _lifetime_seconds(self, fields: dict[str, str], purpose: str) -> int | None:
        given = {re.split(r"[.\[\]]", name)[1]: fields[name] for name in self._rules.expiry_fields if name in fields}
        if not given:
            # Batch files live for 30 days unless told otherwise, others for ever (wire.md §1b).
            return _MAX_EXPIRY_SECONDS if purpose == "batch" else None
        if given.get("anchor") != "created_at":
            raise bad_request("'expires_after.anchor' must be 'created_at'.", "expires_after.anchor")
        seconds = integer(given.get("seconds", ""))
        if seconds is None or not _MIN_EXPIRY_SECONDS <= seconds <= _MAX_EXPIRY_SECONDS:
            message = f"'expires_after.seconds' must be from {_MIN_EXPIRY_SECONDS} to {_MAX_EXPIRY_SECONDS}."
            raise bad_request(message, "expires_after.seconds")
        return seconds

    async def list_page(self, request: Request, account: str) -> Response:
        """Answer one page of the account's files."""
        query = request.query_params
        require_known(query, self._rules.list_parameters)
        limit = limit_of(query, _MAX_LIST_LIMIT, _MAX_LIST_LIMIT)
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise bad_request("'order' must be 'asc' or 'desc'.", "order", "invalid_value")
        files = self._store.files_of(self._provider, account)
        if order == "desc":
            files.reverse()
        purpose = query.get("purpose")
        wanted = [file for file in after(files, query) if purpose in (None, file.purpose)]
        return page_answer(wanted, limit, _file_object)

    async def retrieve(self, request: Request, account: str) -> Response:
        """Answer one file's object."""
        return answer(_file_object(self.find(request.path_params["file_id"], account)))

    async def delete(self, request: Request, account: str) -> Response:
        """Delete one file."""
        file = self.find(request.path_params["file_id"], account)
        self._store.remove(file)
        return answer({"id": file.id, "object": "file", "deleted": True})

    async def read(self, request: Request, account: str) -> Response:
        """Answer one file's bytes, if its purpose allows that."""
        file = self.find(request.path_params["file_id"], account)
        if file.purpose in _UNREADABLE_PURPOSES:
            raise bad_request(f"Not allowed to download files of purpose: {file.purpose}")
        headers = {"content-length": str(file.size_bytes), **answer_headers()}
        return StreamingResponse(read_blocks(file.path), headers=headers, media_type=file.content_type)

    def find(self, file_id: str, account: str) -> StoredFile:
        """Return the account's file, or refuse with the 404 of the Files API."""
        file = self._store.find(self._provider, account, file_id)
        if file is None:
            raise Refusal(error_response(404, f"No such File object: {file_id}", param="id"))
        return file


def _file_object(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }
