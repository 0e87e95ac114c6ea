"""OpenAI's lists: `after` and `limit` in, `has_more` out (wire.md §8.2)."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from starlette.datastructures import QueryParams
from starlette.responses import Response

from app.sandbox.openai_answers import answer, bad_request


class _Item(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=_Item)


def require_known(query: QueryParams, parameters: frozenset[str]) -> None:
    """Refuse what a list does not know."""
    if unknown := sorted(query.keys() - parameters):
        raise bad_request(f"Unknown parameter: '{unknown[0]}'.", unknown[0], "unknown_parameter")


def limit_of(query: QueryParams, default: int, maximum: int) -> int:
    """Return how many items a page may have."""
    limit = integer(query.get("limit", str(default)))
    if limit is None or not 1 <= limit <= maximum:
        raise bad_request(f"'limit' must be from 1 to {maximum}.", "limit", "invalid_value")
    return limit


def after(items: Sequence[Item], query: QueryParams) -> Sequence[Item]:
    """Return the items behind the cursor."""
    if "after" not in query:
        return items
    for position, item in enumerate(items):
        if item.id == query["after"]:
            return items[position + 1 :]
    # OpenAI's answer to an unknown cursor is unverified (wire.md §8.2); refusing it shows who lost one.
    raise bad_request(f"No such object: {query['after']}", "after")


def page_answer(items: Sequence[Item], limit: int, shown: Callable[[Item], dict[str, Any]]) -> Response:
    """Return the first items as one page."""
    page = items[:limit]
    return answer(
        {
            "object": "list",
            "data": [shown(item) for item in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": len(items) > limit,
        }
    )


def integer(text: str) -> int | None:
    """Return the whole number that a parameter holds, if it does."""
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else None
