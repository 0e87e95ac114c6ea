"""How a line of a batch is matched with its result: by its part and its number. Pure."""

from __future__ import annotations

import zlib

import orjson


def key_of(part_id: str, number: int) -> str:
    """What a provider knows a line by: at most 39 characters that each of them takes."""
    return f"{part_id}-{number}"


def number_of(part_id: str, key: str) -> int | None:
    """The line that a key stands for; None when it is not of this part."""
    part, _, number = key.partition("-")
    return int(number) if part == part_id and number.isdecimal() else None


class CustomIds:
    """The custom_id of each line by its number, as a part keeps them: packed while they come, for they may be many."""

    def __init__(self) -> None:
        self._packing = zlib.compressobj(level=1)
        self._packed = bytearray()
        self._lines = 0

    def __len__(self) -> int:
        return self._lines

    def add(self, number: int, custom_id: str) -> None:
        """One more line's."""
        self._packed += self._packing.compress(orjson.dumps((number, custom_id)) + b"\n")
        self._lines += 1

    def packed(self) -> bytes:
        """All of them; this ends it."""
        return bytes(self._packed + self._packing.flush())


def unpacked(content: bytes) -> dict[int, str]:
    """The same, read back."""
    return dict(map(orjson.loads, zlib.decompress(content).splitlines()))
