"""A provider's file as OpenAI's File object."""

from __future__ import annotations

import time
from typing import Any

from app.deployments import Account
from app.providers.protocol import ProviderFile

# Where neither the provider nor the request tells one.
PURPOSE = "user_data"


def purpose_of(file: ProviderFile) -> str:
    """What the file is for, as far as its provider tells."""
    return file.purpose or PURPOSE


def shown(file: ProviderFile, account: Account, file_id: str) -> dict[str, Any]:
    """The File object, under the id that the caller is to use."""
    return {
        "id": file_id,
        "object": "file",
        "bytes": file.bytes or 0,
        "created_at": int(time.time()) if file.created_at is None else file.created_at,
        "expires_at": file.expires_at,
        "filename": file.filename or file.id.rpartition("/")[2],
        "purpose": purpose_of(file),
        "status": "processed" if file.ready else "uploaded",
        "status_details": None,
        "filemux": {"provider": account.provider_name, "account": account.name},
    }
