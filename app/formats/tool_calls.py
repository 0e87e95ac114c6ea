"""Tool call ids that carry what a vendor wants back on the next turn: signed thinking, thought signatures.

OpenAI's clients return an id unchanged and nothing else reliably, so it rides there: `<vendor's id>~mux.<base64url of
deflated JSON>`. No server keeps state, and another vendor's part of it is never sent on.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from typing import Any

import orjson

MARK = "~mux."
# Nobody's thinking is longer, and prose deflates to a third; a forged id, or a request of many, must not unpack to
# gigabytes.
MAX_EXTRA_BYTES = 4 * 1024 * 1024
MAX_RATIO = 8


def with_extra(vendor_id: str, provider: str, extra: Any) -> str:
    """An id that carries `extra` (JSON) for the provider; without any, the vendor's own id."""
    if not extra:
        return vendor_id
    content = orjson.dumps({provider: extra})
    packed = zlib.compress(content, 9)
    if len(content) > MAX_RATIO * len(packed):
        # A model that repeats itself: only stored, so that it is not taken for a forged one.
        packed = zlib.compress(content, 0)
    return f"{vendor_id}{MARK}{base64.urlsafe_b64encode(packed).decode().rstrip('=')}"


def without_extra(call_id: str) -> str:
    """The vendor's own id."""
    return call_id.partition(MARK)[0]


def extra_of(call_id: str, provider: str) -> Any:
    """What the id carries for this provider; None when it carries nothing, or nothing that is whole."""
    packed = call_id.partition(MARK)[2]
    if not packed:
        return None
    try:
        deflated = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
        limit = min(MAX_EXTRA_BYTES, MAX_RATIO * len(deflated))
        content = zlib.decompressobj().decompress(deflated, limit)
        return orjson.loads(content).get(provider)
    except (ValueError, zlib.error, AttributeError):
        # No base64, no JSON; nothing deflated; no object.
        return None


def vendor_id(call_id: str, allowed: re.Pattern[str]) -> str:
    """The id as this vendor's pattern allows it: another vendor's, if it does not fit, becomes a digest of itself."""
    own = without_extra(call_id)
    return own if allowed.fullmatch(own) else f"call_{hashlib.sha256(own.encode()).hexdigest()[:32]}"
