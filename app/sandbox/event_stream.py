"""application/vnd.amazon.eventstream: the binary frames in which Bedrock streams (wire.md §6d)."""

import struct
import zlib

import orjson

MEDIA_TYPE = "application/vnd.amazon.eventstream"
_STRING = 7
_LENGTHS = struct.Struct(">II")
_CRC = struct.Struct(">I")


def event_frame(name: str, payload: dict[str, object]) -> bytes:
    """Return the frame of an event."""
    return _frame({":message-type": "event", ":event-type": name}, payload)


def exception_frame(name: str, message: str) -> bytes:
    """Return the frame of an exception, which is the last one of a stream."""
    return _frame({":message-type": "exception", ":exception-type": name}, {"message": message})


def _frame(headers: dict[str, str], payload: dict[str, object]) -> bytes:
    head = b"".join(map(_header, (*headers.items(), (":content-type", "application/json"))))
    body = orjson.dumps(payload)
    # Both lengths and the two checksums count, too.
    lengths = _LENGTHS.pack(_LENGTHS.size + 2 * _CRC.size + len(head) + len(body), len(head))
    prelude = lengths + _CRC.pack(zlib.crc32(lengths))
    message = prelude + head + body
    return message + _CRC.pack(zlib.crc32(message))


def _header(item: tuple[str, str]) -> bytes:
    name, value = (text.encode() for text in item)
    return struct.pack(f">B{len(name)}sBH{len(value)}s", len(name), name, _STRING, len(value), value)
