"""Anthropic's lists by id: {"data", "has_more", "first_id", "last_id"}, after_id and before_id (wire.md §3b)."""

import re
from collections.abc import Collection
from typing import Any

from starlette.datastructures import QueryParams

from app.sandbox.anthropic_errors import bad_request

_DEFAULT_LIMIT, _MAX_LIMIT = 20, 1000


def require_known(query: QueryParams, known: Collection[str]) -> None:
    """Refuse a query parameter that the operation does not have; `beta` tells only who is asking."""
    if unknown := sorted(query.keys() - {*known, "beta"}):
        raise bad_request(f"{unknown[0]}: Extra inputs are not permitted")


def limit_of(query: QueryParams) -> int:
    """Return how many items a page holds at most."""
    limit = integer(query.get("limit", str(_DEFAULT_LIMIT)))
    if limit is None or not 1 <= limit <= _MAX_LIMIT:
        raise bad_request(f"limit: Input should be from 1 to {_MAX_LIMIT}")
    return limit


def integer(text: str) -> int | None:
    """Return the number that `text` spells, if it is one."""
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else None


def page_by_id(items: list[dict[str, Any]], query: QueryParams) -> dict[str, Any]:
    """Return the page of `items` that the cursors in `query` select; its order is that of `items`."""
    limit = limit_of(query)
    if "after_id" in query and "before_id" in query:
        raise bad_request("Only one of `before_id` and `after_id` may be given.")
    if "before_id" in query:
        items = items[: _position(items, "before_id", query)]
        page = items[-limit:]
    else:
        items = items[_position(items, "after_id", query) + 1 :] if "after_id" in query else items
        page = items[:limit]
    return {
        "data": page,
        "has_more": len(items) > limit,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _position(items: list[dict[str, Any]], cursor: str, query: QueryParams) -> int:
    for position, item in enumerate(items):
        if item["id"] == query[cursor]:
            return position
    # Anthropic's answer to an unknown cursor is unverified; refusing it shows who lost one.
    raise bad_request(f"{cursor}: not found: {query[cursor]}")
