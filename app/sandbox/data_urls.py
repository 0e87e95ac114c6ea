"""Bytes that come inline with a request, as base64: validators that decode them, once."""

import base64
import binascii
import re
from typing import Any

_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w-]+=[^;,]+)*;base64,")


def decode_base64(value: Any) -> Any:
    """Return the bytes of a base64 string; leave what is not a string to the type check."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("the data is not valid base64") from error


def decode_data_url(value: Any) -> Any:
    """Return the bytes of a base64 data URL; leave what is not a string to the type check."""
    if not isinstance(value, str):
        return value
    head = _DATA_URL.match(value)
    if head is None:
        raise ValueError("expected a base64-encoded data URL such as 'data:application/pdf;base64,…'")
    return decode_base64(value[head.end() :])


def decode_image_url(value: Any) -> Any:
    """Return the bytes of an image's data URL, or its http(s) address as it is."""
    if isinstance(value, str) and value.startswith("data:image/"):
        return decode_data_url(value)
    if isinstance(value, str) and not value.startswith(("https://", "http://")):
        raise ValueError("expected an http(s) URL or a base64-encoded data URL with an image MIME type")
    return value
