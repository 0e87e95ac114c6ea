"""The only way to the database: `Reader` cannot write, `Writer` is one transaction.

Neither is held while a provider is awaited. An unreachable or unmigrated database is the caller's 503, and nobody waits
for one that is known to be out of reach.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import asyncpg
import structlog
from sqlalchemy import URL, Executable, RowMapping, event, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.errors import BadRequest, Overloaded
from app.yaml_file import SettingsError

log = structlog.get_logger("filemux.db")

POOL_CONNECTIONS = 10
POOL_WAIT_SECONDS = 5.0
STATEMENT_SECONDS = 30.0
CLOSE_SECONDS = 2.0
# A database that is out of reach is looked for this often.
LOOK_SECONDS = 1.0
UNDEFINED_TABLE = "42P01"
# What LiteLLM's URLs say to Prisma alone (https://www.prisma.io/docs/orm/overview/databases/postgresql).
PRISMAS_OWN = (
    "schema",
    "connection_limit",
    "connect_timeout",
    "pool_timeout",
    "socket_timeout",
    "pgbouncer",
    "statement_cache_size",
    "sslaccept",
)
# NUL, in a text and in JSON: the only such character that gets past a UTF-8 decoder.
NO_SUCH_CHARACTER = ("22021", "22P05")
# A standby takes no writes, a deadlock or another transaction is in the way, or resources are used up.
NOT_NOW = ("25006", "40P01", "40001", "53")

Row = RowMapping
Rows = Sequence[Row]


class Reader:
    """Statements that change nothing; each its own snapshot."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def all(self, statement: Executable, values: Mapping[str, Any] | None = None) -> Rows:
        """Every row."""
        return (await self._connection.execute(statement, values)).mappings().all()

    async def first(self, statement: Executable, values: Mapping[str, Any] | None = None) -> RowMapping | None:
        """The first row, if there is one."""
        return (await self._connection.execute(statement, values)).mappings().first()

    async def table(self, statement: str, limit: int) -> tuple[list[str], list[list[Any]]]:
        """Column names and rows of an operator's own SQL, sent as it is."""
        result = await self._connection.exec_driver_sql(statement)
        return list(result.keys()), [list(row) for row in result.fetchmany(limit)]


class Writer(Reader):
    """One transaction: committed when its block ends, rolled back when it raises."""

    async def execute(
        self, statement: Executable, values: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> int:
        """Run a statement; returns the number of rows it touched."""
        return (await self._connection.execute(statement, values)).rowcount

    async def run(self, statement: Executable, values: Mapping[str, Any]) -> Rows:
        """The rows that a statement which changes something returns."""
        result = await self._connection.execute(statement, values)
        return result.mappings().all() if result.returns_rows else ()

    async def notify(self, channel: str, payload: str) -> None:
        """Tell every process once this transaction has committed."""
        await self._connection.execute(
            text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload}
        )


class Database:
    """A pool of connections to one PostgreSQL database."""

    def __init__(self, url: str) -> None:
        self.url = normalised(url)
        self._engine = create_async_engine(
            self.url,
            pool_size=POOL_CONNECTIONS,
            max_overflow=POOL_CONNECTIONS,
            pool_timeout=POOL_WAIT_SECONDS,
            # An error's text is logged, and what it concerns may be anybody's.
            hide_parameters=True,
            connect_args={
                "server_settings": {"application_name": "filemux"},
                "command_timeout": STATEMENT_SECONDS,
                "timeout": POOL_WAIT_SECONDS,
            },
        )
        self._autocommit: AsyncEngine = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        # None while the database is taken to be there.
        self._search: asyncio.Task[None] | None = None
        self._replace_what_an_outage_may_have_broken()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Reader]:
        """A connection for reading. Raises Overloaded when the database cannot be reached."""
        async with self._connected(self._autocommit) as connection:
            yield Reader(connection)

    async def run(self, statement: Executable, values: Mapping[str, Any]) -> Rows:
        """One statement that changes something, a transaction by itself. Raises Overloaded as `write` does."""
        async with self._connected(self._autocommit) as connection:
            return await Writer(connection).run(statement, values)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Writer]:
        """A transaction. Raises Overloaded when the database cannot be reached."""
        async with self._connected(self._engine) as connection, connection.begin():
            yield Writer(connection)

    def lost(self) -> None:
        """Take the database to be out of reach until it answers, so that one that hangs costs nobody any time."""
        if self._search is None:
            log.warning("the database cannot be reached")
            self._lost_at = time.monotonic()
            self._search = asyncio.create_task(self._found_again())

    async def close(self) -> None:
        """Close every connection."""
        if self._search is not None:
            self._search.cancel()
        # One that hangs does not say goodbye.
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._engine.dispose()

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        with _unreachable_is_overloaded():
            if self._search is not None:
                raise ConnectionError("the database has not been found again yet")
            async with AsyncExitStack() as stack:
                try:
                    connection = await stack.enter_async_context(engine.connect())
                except OSError:
                    self.lost()
                    raise
                except DBAPIError as failure:
                    # It starts or stops, has no connection to spare, or does not know us.
                    raise Overloaded("the database refuses the gateway", retry_after_seconds=1) from failure
                yield connection

    async def _found_again(self) -> None:
        try:
            while True:
                if await _answers(self.url):
                    log.info("the database answers")
                    return
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._search = None

    def _replace_what_an_outage_may_have_broken(self) -> None:
        self._lost_at = float("-inf")

        @event.listens_for(self._engine.sync_engine, "connect")
        def opened(_connection: object, record: Any) -> None:
            record.info["opened_at"] = time.monotonic()

        @event.listens_for(self._engine.sync_engine, "checkout")
        def taken(_connection: object, record: Any, _proxy: object) -> None:
            if record.info["opened_at"] <= self._lost_at:
                raise DisconnectionError  # the pool then opens another


async def connect(url: URL, application_name: str) -> asyncpg.Connection:
    """A connection outside the pool. Raises OSError or asyncpg's errors."""
    # SQLAlchemy's dialect knows how its URLs are meant for asyncpg, a socket's directory in the query included.
    arguments = url.get_dialect()().create_connect_args(url)[1]
    arguments["server_settings"] = {"application_name": application_name}
    return await asyncpg.connect(**arguments, timeout=POOL_WAIT_SECONDS)


async def _answers(url: URL) -> bool:
    try:
        connection = await connect(url, "filemux")
    except asyncpg.PostgresError:
        # It is there and says why it serves nobody; so it will to those who ask.
        return True
    except (OSError, asyncpg.InterfaceError):
        return False
    connection.terminate()
    return True


def normalised(url: str) -> URL:
    """A SQLAlchemy URL for asyncpg from what operators write: `postgres://…?sslmode=require` and the like.

    Raises SettingsError for what is no URL of PostgreSQL; the message does not repeat it, it may hold a password.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingsError("is not a URL such as postgresql://user@host/name", file="DATABASE_URL") from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingsError(f"must begin with postgresql://, not {parsed.drivername}://", file="DATABASE_URL")
    parsed = parsed.set(drivername="postgresql+asyncpg")
    if "sslmode" in parsed.query:
        # libpq's name; asyncpg calls it ssl.
        mode = parsed.query["sslmode"]
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return parsed.difference_update_query(PRISMAS_OWN)


@contextmanager
def _unreachable_is_overloaded() -> Iterator[None]:
    try:
        yield
    except ProgrammingError as failure:
        if getattr(failure.orig, "sqlstate", None) == UNDEFINED_TABLE:
            reason = "the database is not migrated; run `filemux migrate`"
            raise Overloaded(reason, retry_after_seconds=5) from failure
        raise
    except (OperationalError, InterfaceError, PoolTimeoutError, OSError) as failure:
        raise Overloaded("the database cannot be reached", retry_after_seconds=1) from failure
    except DBAPIError as failure:
        sqlstate = getattr(failure.orig, "sqlstate", None) or ""
        if sqlstate in NO_SUCH_CHARACTER:
            raise BadRequest("text must not hold the character NUL", code="invalid_text") from None
        if sqlstate.startswith(NOT_NOW):
            raise Overloaded("the database cannot do this at the moment", retry_after_seconds=1) from failure
        if not failure.connection_invalidated:
            raise
        raise Overloaded("the connection to the database broke", retry_after_seconds=1) from failure
