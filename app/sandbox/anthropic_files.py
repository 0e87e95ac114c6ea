"""Anthropic's Files API (wire.md §3b), in its present shape and in the beta's."""

import mimetypes
import re
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.anthropic_errors import answer, bad_request, refusal
from app.sandbox.anthropic_pages import integer, limit_of, page_by_id, require_known
from app.sandbox.form import FileTooLarge, Form, FormError, receive_form
from app.sandbox.provider import Refusal
from app.sandbox.store import Store, StoredFile

_MAX_FILE_BYTES = 500 * 1024**2
_MIN_EXPIRY_SECONDS, _MAX_EXPIRY_SECONDS = 3600, 90 * 24 * 3600
_MAX_IDS = 100
_BETA = "files-api-2025-04-14"
# The id of the last file of the page before.
_CURSOR = re.compile(r"page_(01[0-9a-f]{22})")


class AnthropicFiles:
    """The endpoints of the Files API."""

    def __init__(self, provider: str, store: Store) -> None:
        self._provider = provider
        self._store = store
        # The store forgets a file that expires, but Anthropic tells it from one that never was.
        self._expiries: dict[tuple[str, str], int] = {}

    async def upload(self, request: Request, account: str) -> Response:
        """Create a file."""
        max_file_bytes = self._store.max_file_bytes or _MAX_FILE_BYTES
        try:
            form = await receive_form(request, self._store.incoming, max_file_bytes)
        except FormError as error:
            raise bad_request(str(error)) from error
        except FileTooLarge as error:
            raise refusal(413, f"File exceeds the maximum size of {max_file_bytes} bytes.") from error
        try:
            file = self._stored(form, account)
        except Refusal:
            if form.file is not None:
                await form.file.discard()
            raise
        self._store.add(file)
        if file.expires_at is not None:
            self._expiries[account, file.id] = file.expires_at
        return answer(_metadata(file, beta=_is_beta(request)))

    def _stored(self, form: Form, account: str) -> StoredFile:
        if form.file is None:
            raise bad_request("file: Field required")
        if unknown := sorted(form.fields.keys() - {"expires_in_seconds"}):
            raise bad_request(f"{unknown[0]}: Extra inputs are not permitted")
        lifetime_seconds = _lifetime_seconds(form.fields)
        if not form.file.size_bytes:
            raise bad_request("file: File must not be empty")
        now = self._store.clock.now()
        return StoredFile(
            provider=self._provider,
            account=account,
            # Ids rise with time, so that a page's cursor outlives the file it was made from.
            id=f"file_01{time.time_ns():016x}{uuid4().hex[:6]}",
            filename=_filename(form),
            size_bytes=form.file.size_bytes,
            sha256=form.file.sha256,
            purpose="",
            content_type=form.content_type,
            created_at=now,
            expires_at=None if lifetime_seconds is None else now + lifetime_seconds,
            path=form.file.path,
        )

    async def list_page(self, request: Request, account: str) -> Response:
        """Answer one page of the account's files, newest first."""
        query = request.query_params
        files = self._store.files_of(self._provider, account)[::-1]
        if _is_beta(request):
            require_known(query, ("limit", "before_id", "after_id", "scope_id"))
            return answer(page_by_id([_metadata(file, beta=True) for file in files], query))
        require_known(query, ("limit", "page", "ids[]", "scope_id"))
        page, following = _those(files, query) if "ids[]" in query else _page(files, query)
        return answer({"data": [_metadata(file, beta=False) for file in page], "next_page": following})

    async def retrieve(self, request: Request, account: str) -> Response:
        """Answer one file's metadata."""
        return answer(_metadata(self.find(request.path_params["file_id"], account), beta=_is_beta(request)))

    async def delete(self, request: Request, account: str) -> Response:
        """Delete one file."""
        file = self.find(request.path_params["file_id"], account)
        self._store.remove(file)
        self._expiries.pop((account, file.id), None)
        return answer({"id": file.id, "type": "file_deleted"})

    async def read(self, request: Request, account: str) -> Response:
        """Refuse: only what a tool has made is given back, and no tool runs here."""
        file = self.find(request.path_params["file_id"], account)
        raise bad_request(f"File is not downloadable: {file.id}", code="file_not_downloadable")

    def find(self, file_id: str, account: str) -> StoredFile:
        """Return the account's file, or refuse with the 404 that says whether it has expired."""
        file = self._store.find(self._provider, account, file_id)
        if file is not None:
            return file
        expires_at = self._expiries.get((account, file_id))
        if expires_at is not None and expires_at <= self._store.clock.now():
            raise refusal(404, f"File has expired: {file_id}", code="file_expired")
        raise refusal(404, f"File not found: {file_id}")


def _is_beta(request: Request) -> bool:
    """Tell whether the old shapes are wanted: the header selects them (wire.md §3a).

    `?beta=true` alone does not: the SDK sends it from 1.2.0 on without the header, and reads the present shapes.
    """
    return _BETA in {beta.strip() for beta in request.headers.get("anthropic-beta", "").split(",")}


def _lifetime_seconds(fields: dict[str, str]) -> int | None:
    if "expires_in_seconds" not in fields:
        return None
    seconds = integer(fields["expires_in_seconds"])
    if seconds is None or not _MIN_EXPIRY_SECONDS <= seconds <= _MAX_EXPIRY_SECONDS:
        message = f"expires_in_seconds: Input should be from {_MIN_EXPIRY_SECONDS} to {_MAX_EXPIRY_SECONDS}"
        raise bad_request(message)
    return seconds


def _filename(form: Form) -> str:
    last = re.split(r"[/\\]", form.filename)[-1]
    return last or f"unnamed{mimetypes.guess_extension(form.content_type) or ''}"


def _those(files: list[StoredFile], query: QueryParams) -> tuple[list[StoredFile], None]:
    """Return the files that `ids` names, without a word about those that are not there."""
    ids = {*query.getlist("ids[]")}
    if len(ids) > _MAX_IDS or "page" in query or "limit" in query:
        raise bad_request(f"ids: at most {_MAX_IDS} entries, and neither `page` nor `limit` beside them")
    return [file for file in files if file.id in ids], None


def _page(files: list[StoredFile], query: QueryParams) -> tuple[list[StoredFile], str | None]:
    """Return the page that the cursor stands for, and the cursor of the next one."""
    limit = limit_of(query)
    if "page" in query:
        cursor = _CURSOR.fullmatch(query["page"])
        if cursor is None:
            raise bad_request("page: Invalid page cursor")
        files = [file for file in files if file.id < f"file_{cursor[1]}"]
    page = files[:limit]
    return page, page[-1].id.replace("file_", "page_") if len(files) > limit else None


def _metadata(file: StoredFile, *, beta: bool) -> dict[str, Any]:
    return {
        "id": file.id,
        "type": "file",
        "filename": file.filename,
        "mime_type": file.content_type,
        "size_bytes": file.size_bytes,
        "created_at": rfc3339(file.created_at),
        "downloadable": False,
        "expires_at": None if file.expires_at is None else rfc3339(file.expires_at),
        **({"scope": None} if beta else {}),
    }


def rfc3339(seconds: int) -> str:
    """Return a time as the API writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
