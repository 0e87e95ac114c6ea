"""The documentation as data: its code blocks and its tables."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def blocks(page, language):
    """The contents of a page's code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def tables(page, heading):
    """The tables below a heading, up to the next one: each a list of rows, each row a list of cells, header first."""
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", page.read_text(), re.DOTALL | re.MULTILINE)
    found = re.findall(r"(?:^\|.*\n)+", section[1], re.MULTILINE)
    return [[_cells(row) for row in table.splitlines() if not re.fullmatch(r"[|\-: ]+", row)] for table in found]


def _cells(row):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
