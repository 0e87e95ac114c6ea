"""Google's lists in pages: `pageSize` and `pageToken` in, `nextPageToken` out while there is more."""

import base64
from bisect import bisect_right
from collections.abc import Sequence

from starlette.requests import Request

from app.sandbox.gemini_answers import bad_request


def page(
    request: Request, positions: Sequence[str], *, default_size: int, max_size: int
) -> tuple[slice, dict[str, str]]:
    """Return which of the things at `positions`, which ascend, are on the page, and the token of the next one.

    A token holds the last position and not an offset, so that what is deleted meanwhile shifts nothing.
    """
    query = request.query_params
    for name in query.keys() - {"pageSize", "page_size", "pageToken", "page_token", "key", "alt", "$alt"}:
        raise bad_request(f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.')
    size = _size(query.get("pageSize", query.get("page_size", "0")), max_size) or default_size
    start = bisect_right(positions, _position(query.get("pageToken", query.get("page_token", ""))))
    end = start + size
    more = {"nextPageToken": _token(positions[end - 1])} if end < len(positions) else {}
    return slice(start, end), more


def _size(text: str, max_size: int) -> int:
    # Whether a size over the limit is refused or cut down is unverified (wire.md §4b).
    if not (text.isascii() and text.isdigit() and int(text) <= max_size):
        raise bad_request(f"page_size must be in the range [0, {max_size}]")
    return int(text)


def _token(position: str) -> str:
    return base64.urlsafe_b64encode(position.encode()).decode()


def _position(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token).decode()
    except ValueError as error:
        raise bad_request("page_token is invalid") from error
