"""Alembic, wherever the migrations lie: in the checkout, or inside the installed wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from app.db.session import Database, normalised

_HERE = Path(__file__).resolve()
_IN_WHEEL = _HERE.parents[1] / "_migrations"
_IN_CHECKOUT = _HERE.parents[2] / "migrations"


def _config(database_url: str | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT))
    if database_url is not None:
        config.attributes["url"] = normalised(database_url)
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Migrate; does nothing when there is nothing to do. Opens an event loop of its own."""
    command.upgrade(_config(database_url), revision)


def downgrade(database_url: str, revision: str) -> None:
    """Migrate back, `-1` for one step."""
    command.downgrade(_config(database_url), revision)


def check(database_url: str) -> None:
    """Raise alembic's CommandError if the tables and the migrations differ."""
    command.check(_config(database_url))


@cache
def older() -> frozenset[str]:
    """The revisions that this code knows and is ahead of."""
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return frozenset(script.revision for script in scripts) - {head()}


@cache
def head() -> str:
    """The newest revision that this code knows."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    assert newest is not None
    return newest


async def current(database: Database) -> str | None:
    """The revision that the database is at, None for an empty one. Raises Overloaded when it is out of reach."""
    async with database.read() as reader:
        if await reader.first(text("SELECT 1 FROM pg_tables WHERE tablename = 'alembic_version'")) is None:
            return None
        row = await reader.first(text("SELECT version_num FROM alembic_version"))
    return None if row is None else str(row["version_num"])
