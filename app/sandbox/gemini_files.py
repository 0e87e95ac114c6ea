"""Gemini's Files API but for the upload: names, states, pages, and what it never gives back (wire.md §4b)."""

import base64
import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.sandbox.blobs import read_blocks
from app.sandbox.gemini_answers import answer, bad_request, forbidden
from app.sandbox.gemini_contents import FileData
from app.sandbox.gemini_pages import page
from app.sandbox.model import Attachment
from app.sandbox.store import Store, StoredFile

LIFETIME_SECONDS = 48 * 3600
# Of the files that a batch has made: the only ones whose bytes are given back.
_GENERATED = "generated"
# Sound and films are processed for so long, or until they were asked about so often.
_PROCESSING_SECONDS, _PROCESSING_POLLS = 2, 2
_DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE = 10, 100  # [U]
# A file's address is good under every version of the API, whichever created it (wire.md §4a).
_FILE_PATH = re.compile(r".*/(?:v1|v1beta|v1alpha|v1main)/files/([^/:]+)")


class GeminiFiles:
    """The files of all accounts, and the endpoints that are about them."""

    def __init__(self, provider: str, store: Store) -> None:
        self._provider = provider
        self._store = store
        # A file's address holds the host that it was uploaded to; its name is what it is looked up by.
        self._addresses: dict[tuple[str, str], str] = {}
        self._polls: Counter[Path] = Counter()

    def add(self, file: StoredFile) -> None:
        """Make `file` visible to its account."""
        self._addresses[file.account, _name(file)] = file.id
        self._store.add(file)

    def generate(self, account: str, address: str, lines: Iterable[bytes], now: int) -> None:
        """Make a file of these lines."""
        file = self._store.make_file(
            lines,
            provider=self._provider,
            account=account,
            id=address,
            filename="",
            purpose=_GENERATED,
            content_type="application/jsonl",
            created_at=now,
            expires_at=now + LIFETIME_SECONDS,
        )
        self._addresses[account, _name(file)] = address

    def find(self, name: str, account: str) -> StoredFile | None:
        """Return the account's file of this name, if there is one."""
        return self._store.find(self._provider, account, self._addresses.get((account, name), ""))

    def attachment(self, data: FileData, account: str) -> Attachment | None:
        """Return the file that a part of a chat refers to; None is an address outside, which is not fetched."""
        address = urlsplit(data.file_uri)
        path = _FILE_PATH.fullmatch(address.path)
        if address.scheme not in ("http", "https"):
            raise bad_request(f"Invalid or unsupported file uri: {data.file_uri}")
        if path is None:
            return None
        file = self.require(path[1], account)
        if self._state(file) != "ACTIVE":
            message = f"The File {path[1]} is not in an ACTIVE state and usage is not allowed."
            raise bad_request(message, "FAILED_PRECONDITION")
        return Attachment(file.filename or path[1], file.size_bytes, file.sha256)

    async def list_page(self, request: Request, account: str) -> Response:
        """Answer one page of the account's files, the oldest first [U]."""
        files = sorted(self._store.files_of(self._provider, account), key=_position)
        positions = [*map(_position, files)]
        wanted, more = page(request, positions, default_size=_DEFAULT_PAGE_SIZE, max_size=_MAX_PAGE_SIZE)
        shown = [self.shown(file) for file in files[wanted]]
        return answer({"files": shown} | more if shown else {})  # proto3 leaves an empty list out

    async def retrieve(self, request: Request, account: str) -> Response:
        """Answer one file's object."""
        file = self.require(request.path_params["file_id"], account)
        shown = self.shown(file)
        if shown["state"] == "PROCESSING":
            self._polls[file.path] += 1
        return answer(shown)

    async def delete(self, request: Request, account: str) -> Response:
        """Delete one file."""
        self._store.remove(self.require(request.path_params["file_id"], account))
        return answer({})

    async def read(self, request: Request, account: str) -> Response:
        """Answer the bytes of a file that a batch has made; refuse for every other."""
        file = self.require(request.path_params["file_id"], account)
        if file.purpose != _GENERATED:
            raise bad_request(f"File {_name(file)} was uploaded; only generated files can be downloaded.")
        if request.query_params.get("alt") != "media":
            raise bad_request("A file's bytes are asked for with alt=media.")
        headers = {"content-length": str(file.size_bytes)}
        return StreamingResponse(read_blocks(file.path), headers=headers, media_type=file.content_type)

    def shown(self, file: StoredFile) -> dict[str, Any]:
        """Return a file as the API shows it."""
        state = self._state(file)
        shown = {
            "name": f"files/{_name(file)}",
            "displayName": file.filename,
            "mimeType": file.content_type,
            "sizeBytes": str(file.size_bytes),
            "createTime": timestamp(file.created_at),
            "updateTime": timestamp(file.created_at),
            "expirationTime": timestamp(file.created_at + LIFETIME_SECONDS),
            # base64 of the digest in hex, as the service is known to give it; the SDK only says "base64" [U].
            "sha256Hash": base64.b64encode(file.sha256.encode()).decode(),
            "uri": file.id,
            "state": state,
            "source": "GENERATED" if file.purpose == _GENERATED else "UPLOADED",
        }
        if not file.filename:
            del shown["displayName"]
        failure = {"error": {"code": 13, "message": "The file could not be processed."}}
        return shown | failure if state == "FAILED" else shown

    def require(self, name: str, account: str) -> StoredFile:
        """Return the account's file of this name, or refuse."""
        file = self.find(name, account)
        if file is None:
            raise forbidden(f"You do not have permission to access the File {name} or it may not exist.")
        return file

    def _state(self, file: StoredFile) -> str:
        fails = "fails" in file.filename
        is_slow = fails or file.content_type.startswith(("video/", "audio/"))
        is_young = self._store.clock.now() - file.created_at < _PROCESSING_SECONDS
        if is_slow and is_young and self._polls[file.path] < _PROCESSING_POLLS:
            return "PROCESSING"
        return "FAILED" if fails else "ACTIVE"


def _name(file: StoredFile) -> str:
    return file.id.rpartition("/")[2]


def _position(file: StoredFile) -> str:
    return f"{file.created_at:012} {file.id}"


def timestamp(seconds: int) -> str:
    """Return a time as the API writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
