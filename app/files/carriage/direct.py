"""Direct files in chats: a sealed id is good for the one account that it says, and no replica is made elsewhere."""

from __future__ import annotations

import mimetypes

from app.errors import ProviderError
from app.files.direct.address import DirectFile
from app.formats.openai import FileFacts


async def facts_of(file: DirectFile) -> FileFacts | None:
    """What its provider knows of a file; None where that does not tell its type."""
    try:
        found = await file.account.provider.retrieve_file(file.provider_file_id)
    except ProviderError:
        # The chat will tell why.
        return None
    mime_type = mimetypes.guess_type(found.filename or "")[0]
    return FileFacts(mime_type, found.filename or "") if mime_type else None
