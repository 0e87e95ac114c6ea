"""Gemini's resumable uploads: a start that gives a session's address, then requests with bytes (wire.md §4b)."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Literal
from uuid import uuid4

import orjson
from pydantic import Field, StringConstraints, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.blobs import Incoming
from app.sandbox.gemini_answers import answer, bad_body, bad_request, plain_failure
from app.sandbox.gemini_contents import Message
from app.sandbox.gemini_files import LIFETIME_SECONDS, GeminiFiles
from app.sandbox.gemini_generate import api_key
from app.sandbox.provider import Refusal
from app.sandbox.store import Store, StoredFile

_MAX_FILE_BYTES = 2 * 1024**3
_GRANULARITY_BYTES = 256 * 1024
_OPERATIONS = {"query": "query_upload", "cancel": "cancel_upload"}
_Name = Annotated[str, StringConstraints(pattern=r"^files/[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]


class _File(Message):
    name: _Name | None = None
    display_name: Annotated[str, Field(max_length=512)] | None = None
    mime_type: str | None = None
    # The SDK sends it; the header is what counts.
    size_bytes: int | None = None


class _Start(Message):
    file: _File = _File()


@dataclass
class _Session:
    """One upload, from its start to its end."""

    key: str
    account: str
    address: str
    filename: str
    content_type: str
    # None when the client does not know yet how long the file is.
    declared_bytes: int | None
    incoming: Incoming
    status: Literal["active", "final", "cancelled"] = "active"
    # Requests that carry bytes follow one another.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_open(self) -> bool:
        """Whether it may still become a file."""
        return self.status == "active"

    async def discard(self) -> None:
        """End without a file."""
        self.status = "cancelled"
        await self.incoming.discard()


class GeminiUploads:
    """The endpoint of uploads: without an `upload_id` it starts one, with it it goes on with that one."""

    def __init__(self, provider: str, store: Store, files: GeminiFiles) -> None:
        self._provider = provider
        self._store = store
        self._files = files
        self._sessions: dict[str, _Session] = store.uploads()

    def key_of(self, upload_id: str) -> str:
        """Return the key that the session was started with: its address needs no other; else something wrong."""
        session = self._sessions.get(upload_id)
        return session.key if session else "unknown session"

    async def operation_name(self, request: Request) -> str:
        """Name what the request is about."""
        if "upload_id" not in request.query_params:
            return "start_upload"
        return _OPERATIONS.get(_command(request), "upload_file")

    async def serve(self, request: Request, account: str) -> Response:
        """Start an upload, or go on with one."""
        upload_id = request.query_params.get("upload_id")
        if upload_id is None:
            return await self._start(request, account)
        session = self._sessions.get(upload_id)
        if session is None:
            raise Refusal(plain_failure(404))
        command = _command(request)
        if command == "query":
            return answer({}, headers=_progress(session))
        async with session.turn:
            if session.status != "active":
                raise _refusal("Upload has already been terminated.", session)
            if command == "cancel":
                await session.discard()
                return answer({}, headers=_progress(session))
            if command not in ("upload", "upload, finalize", "finalize"):
                raise _refusal(f"Invalid X-Goog-Upload-Command: {command}", session)
            try:
                return await self._take(request, session, command)
            except _Failed as failed:
                await session.discard()
                failed.response.headers.update(_progress(session))
                raise

    async def _start(self, request: Request, account: str) -> Response:
        if request.headers.get("x-goog-upload-protocol") != "resumable" or _command(request) != "start":
            raise bad_request(
                "An upload starts with X-Goog-Upload-Protocol: resumable and X-Goog-Upload-Command: start."
            )
        try:
            head = _Start.model_validate(orjson.loads(await request.body() or b"{}")).file
        except ValidationError as error:
            raise bad_body(error) from error
        except orjson.JSONDecodeError as error:
            raise bad_request(f"Invalid JSON payload received. {error}") from error
        name = (head.name or f"files/{uuid4().hex[:12]}").removeprefix("files/")
        if self._files.find(name, account) is not None:
            raise Refusal(plain_failure(409))
        upload_id = uuid4().hex
        declared_bytes = self._declared_bytes(request)
        content_type = head.mime_type or request.headers.get("x-goog-upload-header-content-type")
        top = request.url.path.partition("/upload/")[0]
        self._sessions[upload_id] = session = _Session(
            key=api_key(request) or "",
            account=account,
            address=str(request.url.replace(path=f"{top}/v1beta/files/{name}", query="")),
            filename=head.display_name or "",
            content_type=content_type or "application/octet-stream",
            declared_bytes=declared_bytes,
            incoming=self._store.incoming(),
        )
        # Absolute, and good without the key (wire.md §9).
        url = str(request.url.replace(query=f"upload_id={upload_id}&upload_protocol=resumable"))
        granularity = {"x-goog-upload-chunk-granularity": str(_GRANULARITY_BYTES)}  # not demanded [U]
        return answer({}, headers=_progress(session) | granularity | {"x-goog-upload-url": url})

    def _declared_bytes(self, request: Request) -> int | None:
        text = request.headers.get("x-goog-upload-header-content-length")
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and int(text)):
            raise bad_request(f"Invalid X-Goog-Upload-Header-Content-Length: {text}")
        if int(text) > self._max_file_bytes:
            raise bad_request(f"File size exceeds the limit of {self._max_file_bytes} bytes.")
        return int(text)

    @property
    def _max_file_bytes(self) -> int:
        return self._store.max_file_bytes or _MAX_FILE_BYTES

    async def _take(self, request: Request, session: _Session, command: str) -> Response:
        """Store the bytes of one request; what came before a cut connection stays, as a query tells."""
        incoming = session.incoming
        if command != "finalize":
            if request.headers.get("x-goog-upload-offset") != str(incoming.size_bytes):
                raise _refusal(f"X-Goog-Upload-Offset must be {incoming.size_bytes}.", session)
            limit_bytes = session.declared_bytes or self._max_file_bytes
            async for chunk in request.stream():
                if incoming.size_bytes + len(chunk) > limit_bytes:
                    raise _Failed(f"The upload exceeds {limit_bytes} bytes.")
                await incoming.write(chunk)
        if command == "upload":
            return answer({}, headers=_progress(session))
        return await self._finalize(session)

    async def _finalize(self, session: _Session) -> Response:
        if self._store.find(self._provider, session.account, session.address) is not None:
            raise _Failed("Another upload took the name.")  # which 4xx is unverified
        size_bytes = session.incoming.size_bytes
        if not size_bytes or session.declared_bytes not in (None, size_bytes):
            raise _Failed(f"The upload ends after {size_bytes} bytes of {session.declared_bytes or 'a file'}.")
        await session.incoming.finish()
        file = StoredFile(
            provider=self._provider,
            account=session.account,
            id=session.address,
            filename=session.filename,
            size_bytes=size_bytes,
            sha256=session.incoming.sha256,
            purpose="",
            content_type=session.content_type,
            created_at=self._store.clock.now(),
            expires_at=self._store.clock.now() + LIFETIME_SECONDS,
            path=session.incoming.path,
        )
        self._files.add(file)
        session.status = "final"
        return answer({"file": self._files.shown(file)}, headers=_progress(session))


class _Failed(Refusal):
    """The refusal of an upload that cannot become a file any more."""

    def __init__(self, message: str) -> None:
        super().__init__(bad_request(message).response)


def _command(request: Request) -> str:
    words = request.headers.get("x-goog-upload-command", "").lower().split(",")
    return ", ".join(word.strip() for word in words)


def _progress(session: _Session) -> dict[str, str]:
    received = {"x-goog-upload-size-received": str(session.incoming.size_bytes)}
    return {"x-goog-upload-status": session.status} | received


def _refusal(message: str, session: _Session) -> Refusal:
    """Return a refusal after which the session is as it was."""
    refusal = bad_request(message)
    refusal.response.headers.update(_progress(session))
    return refusal
