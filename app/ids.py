"""Mint and recognise filemux's own ids.

Ids are made here and not in the database, so that the schema works on PostgreSQL 15 (which has no uuidv7) and so
that an id exists before the row does. They are time-ordered: sorting by id is sorting by creation.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import datetime

from uuid_utils import uuid7

FILE_PREFIX = "file-mux-"
BATCH_PREFIX = "batch_mux-"
KEY_SECRET_PREFIX = "sk-"  # noqa: S105  what OpenAI's clients expect a key to begin with

_FILE_ID = re.compile(r"file-mux-[0-9a-f]{32}")
# LiteLLM's: base64 of `litellm_proxy:…` or `litellm_proxy;…`.
_IMPORTED_ID = re.compile(r"bGl0ZWxsbV9wcm94eT[0-9A-Za-z_-]{1,4000}={0,2}")
_BATCH_ID = re.compile(r"batch_mux-[0-9a-f]{32}")


def _time_ordered() -> str:
    return uuid7().hex


def new_file_id() -> str:
    """`file-mux-<32 hex>`, time-ordered; 41 characters (one client API refuses ids over 64)."""
    return FILE_PREFIX + _time_ordered()


def file_id_from(imported_id: str, created_at: datetime) -> str:
    """The id of a file that another gateway made: the same whenever it is imported, and as old as the file."""
    digest = hashlib.sha256(imported_id.encode()).hexdigest()
    return f"{FILE_PREFIX}{int(created_at.timestamp() * 1000):012x}{digest[:20]}"


def new_batch_id() -> str:
    """`batch_mux-<32 hex>`, time-ordered."""
    return BATCH_PREFIX + _time_ordered()


def new_part_id() -> str:
    """32 hex digits: a batch's part, or what one is called at its provider."""
    return _time_ordered()


def new_lease() -> str:
    """A word for one claim, which no other has."""
    return secrets.token_hex(16)


def new_replica_id() -> str:
    """32 hex digits, usable as an object or file name at every provider that lets us choose one."""
    return _time_ordered()


def new_team_id() -> str:
    """`team-<32 hex>`."""
    return "team-" + _time_ordered()


def new_key_id() -> str:
    """`key-<32 hex>`: names the key in lists and logs; not the secret."""
    return "key-" + _time_ordered()


def new_audit_id() -> str:
    """32 hex digits, time-ordered."""
    return _time_ordered()


def new_key_secret() -> str:
    """The secret itself, `sk-` and 256 bits; shown once, stored only as SHA-256."""
    return KEY_SECRET_PREFIX + secrets.token_urlsafe(32)


def new_request_id() -> str:
    """`req_<32 hex>` for `x-request-id`."""
    return "req_" + _time_ordered()


def is_file_id(text: str) -> bool:
    """Whether `text` has exactly the form of an id that `new_file_id` makes, or an imported file had before."""
    return _FILE_ID.fullmatch(text) is not None or is_imported_id(text)


def is_imported_id(text: str) -> bool:
    """Whether `text` has the form of LiteLLM's unified file ids."""
    return _IMPORTED_ID.fullmatch(text) is not None


def is_batch_id(text: str) -> bool:
    """Whether `text` has exactly the form of an id that `new_batch_id` makes."""
    return _BATCH_ID.fullmatch(text) is not None
