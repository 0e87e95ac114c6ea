"""A file's bytes: made from a seed while they are sent and hashed on the way, so that nobody keeps them."""

import hashlib
import io
import math
from random import Random

MAX_BYTES = 64_000_000
EMPTY_SHARE, TEXT_SHARE = 0.02, 0.3


class Content(io.RawIOBase):
    """Random bytes that pass for a PDF, which travels by reference, or hexadecimal text, which some take only inline.

    `sha256` is true once everything was read.
    """

    def __init__(self, seed: str, size_bytes: int, *, is_text: bool) -> None:
        self.size_bytes, self.is_text = size_bytes, is_text
        self._seed = seed
        self.seek(0)

    @classmethod
    def drawn(cls, random: Random) -> "Content":
        """A size from 0 to MAX_BYTES, its logarithm uniform: most files are small."""
        size_bytes = 0 if random.random() < EMPTY_SHARE else round(math.exp(random.uniform(0, math.log(MAX_BYTES))))
        return cls(f"{random.random()}", size_bytes, is_text=random.random() < TEXT_SHARE)

    @property
    def mime_type(self) -> str:
        """What the client says that it is."""
        return "text/plain" if self.is_text else "application/pdf"

    @property
    def suffix(self) -> str:
        """The end of a fitting filename."""
        return ".txt" if self.is_text else ".pdf"

    @property
    def sha256(self) -> str:
        """The hexadecimal digest of what was read."""
        return self._digest.hexdigest()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """httpx goes to the end to learn the size, and back to the start: nothing between is asked for."""
        self._position = self.size_bytes if whence == io.SEEK_END else offset
        self._random, self._digest = Random(self._seed), hashlib.sha256()
        return self._position

    def readinto(self, buffer: bytearray) -> int:
        count = min(len(buffer), self.size_bytes - self._position)
        made = self._random.randbytes(count)
        buffer[:count] = made.hex().encode()[:count] if self.is_text else made
        self._digest.update(buffer[:count])
        self._position += count
        return count
