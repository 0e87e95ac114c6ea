"""What commands print: tables for people, JSON for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Column, Table

# A pipe has no width: whoever reads it wants whole cells.
PIPE_COLUMNS = 10_000


def show_objects(objects: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print objects of one shape."""
    columns = [name for name in (objects[0] if objects else {}) if name != "object"]
    show(columns, [[one[name] for name in columns] for one in objects], as_json)


def show_object(one: dict[str, Any], as_json: bool) -> None:
    """Print a single object; its JSON is the object itself."""
    if as_json:
        click.echo(json.dumps({name: value for name, value in one.items() if name != "object"}, default=str, indent=2))
    else:
        show_objects([one], as_json)


def show(columns: Sequence[str], rows: Iterable[Sequence[Any]], as_json: bool) -> None:
    """Print rows."""
    if as_json:
        click.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=str, indent=2))
        return
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        table.add_row(*map(_cell, row))
    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    Console(width=width).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
