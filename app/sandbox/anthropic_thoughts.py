"""The simulated model's thinking: signed, so that a later turn shows whether it came back unchanged (wire.md §3d)."""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

_KEY = b"filemux sandbox"
_NONCE_BYTES = 12
# The id of a call that a thought led to names that thought. No other id has a `t` there: they go on in hex.
_CALL_ID = re.compile(r"toolu_01t([0-9a-f]{16})[0-9a-f]+")


@dataclass(frozen=True)
class Thought:
    """What the model thought, as far as it shows it, and the seal on it."""

    shown: str
    redacted: bool
    seal: str

    @classmethod
    def new(cls, shown: str, *, redacted: bool = False) -> "Thought":
        """Think once; the same thought has another seal the next time."""
        shown = "" if redacted else shown
        return cls(shown, redacted, _seal(uuid4().bytes[:_NONCE_BYTES], shown))

    def block(self) -> dict[str, Any]:
        """Return the thought as the answer holds it."""
        if self.redacted:
            return {"type": "redacted_thinking", "data": self.seal}
        return {"type": "thinking", "thinking": self.shown, "signature": self.seal}


def is_sealed(seal: str, shown: str) -> bool:
    """Tell whether `seal` is the one on a thought that showed this."""
    try:
        nonce = base64.b64decode(seal, validate=True)[:_NONCE_BYTES]
    except ValueError:  # no base64, or not even ASCII
        return False
    return hmac.compare_digest(seal.encode(), _seal(nonce, shown).encode())


def mint_call_id(thought: Thought | None) -> str:
    """Return a new call's id."""
    named = f"t{_name(thought.seal)}" if thought else ""
    return f"toolu_01{named}{uuid4().hex[:8] if thought else uuid4().hex[:22]}"


def led_to(seal: str, call_id: str) -> bool:
    """Tell whether the thought under `seal` is the one that led to the call."""
    found = _CALL_ID.fullmatch(call_id)
    return found is not None and found[1] == _name(seal)


def was_thought_about(call_id: str) -> bool:
    """Tell whether any thought led to the call."""
    return _CALL_ID.fullmatch(call_id) is not None


def _seal(nonce: bytes, shown: str) -> str:
    return base64.b64encode(nonce + hmac.digest(_KEY, nonce + shown.encode(), "sha256")).decode()


def _name(seal: str) -> str:
    return hashlib.sha256(seal.encode()).hexdigest()[:16]
