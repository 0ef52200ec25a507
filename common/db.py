"""What every service's tables and connections have in common, on MySQL and on SQLite."""

from __future__ import annotations

import asyncio
import logging
import socket
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Dialect,
    Integer,
    LargeBinary,
    Table,
    TypeDecorator,
    delete,
    event,
    make_url,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import InvalidatePoolError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.types import TypeEngine

from common.log import describe_failure
from common.tracing import trace_statements, tracing
from common.uid import format_uid, parse_uid

log = logging.getLogger(__name__)

TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}
"""For every table: a schema's own default may be another character set."""

VERBS = "verbs"
"""In a table's `info`: what the service may do with its rows, where that is not everything."""

APPEND_ONLY: dict[str, Any] = {"info": {VERBS: ("SELECT", "INSERT")}}
"""For tables whose rows the service adds, and can't change or remove even if it is taken over."""

_MYSQL_SESSION = (
    # A paused writer must not hold its locks for long: the server hangs up on it.
    "SET SESSION wait_timeout = 10, innodb_lock_wait_timeout = 2, time_zone = '+00:00'"
)
_MYSQL_MAXIMUM_AGE_SECONDS = 8  # Below `wait_timeout`, so that no idle connection meets it.
# One that was in use a moment ago is not asked whether it still works: under load that would be
# a round trip for each transaction.
_MYSQL_TRUSTED_SECONDS = 1.0
_RETURNED_AT = "returned_at"
_FAREWELL_SECONDS = 2.0
# A silent peer is asked after 5 s whether it is there, three times, and given up after 20 s.
_KEEP_ALIVE = {
    "TCP_KEEPIDLE": 5,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 20_000,
}
_READ_ONLY = "shoptrail_read_only"


class Timestamp(TypeDecorator[datetime]):
    """An instant, always aware and always UTC, to the microsecond."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "mysql":
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive time reached the database")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Uid(TypeDecorator[str]):
    """A public id: text such as `key_…` outside, its 16 bytes in the database.

    Binding a text that is no id of this kind raises `ValueError`.
    """

    impl = LargeBinary
    cache_ok = True

    def __init__(self, prefix: str) -> None:
        super().__init__(16)
        self.prefix = prefix

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "mysql":
            return dialect.type_descriptor(mysql.BINARY(16))
        return dialect.type_descriptor(LargeBinary(16))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else parse_uid(self.prefix, value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else format_uid(self.prefix, value)


def private_key() -> TypeEngine[int]:
    """The type of the private integer key, which SQLite only counts up as INTEGER."""
    return BigInteger().with_variant(Integer(), "sqlite")


def identity_columns(prefix: str) -> list[Column[Any]]:
    """The private key that joins and pages, and the public one that leaves the service."""
    return [
        Column("id", private_key(), primary_key=True, autoincrement=True),
        Column("uid", Uid(prefix), nullable=False, unique=True),
    ]


def lifecycle_columns() -> list[Column[Any]]:
    """When the row was made and changed, when it was deleted, and when it may leave the disk."""
    return [
        Column("create_time", Timestamp(), nullable=False),
        Column("update_time", Timestamp(), nullable=False),
        Column("delete_time", Timestamp(), nullable=True),
        Column("purge_time", Timestamp(), nullable=True),
    ]


class Session:
    """One connection's transactions. Checking it out and in again costs more than they do."""

    def __init__(
        self, connection: AsyncConnection, writers: AbstractAsyncContextManager[Any]
    ) -> None:
        self._connection = connection
        self._writers = writers

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end of the block, rolled back by an exception."""
        async with self._writers, self._connection.begin():
            yield self._connection


class Database:
    """A service's own database: transactions that write, and snapshots to read from."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._snapshots = engine.execution_options(**{_READ_ONLY: True})
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._connection_count = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._all_returned = asyncio.Event()
        self._all_returned.set()
        self._disposed = False
        # SQLite has one writer at a time and lets others poll; waiting here is fair and quick.
        self._writers: AbstractAsyncContextManager[Any] = (
            asyncio.Lock() if self._is_sqlite else nullcontext()
        )

    @property
    def is_sqlite(self) -> bool:
        return self._is_sqlite

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end of the block, rolled back by an exception."""
        async with self.session() as session, session.begin() as transaction:
            yield transaction

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A connection that is kept for the block, for transactions one after the other."""
        async with self._connection(self._engine) as connection:
            yield Session(connection, self._writers)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A snapshot: all its queries see the same state. Nothing may be written."""
        async with self._connection(self._snapshots) as connection:
            if not self._is_sqlite:
                await connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield connection

    async def tidy(self) -> None:
        """Let SQLite's file have nothing of what left for good, if something was said to.

        `secure_delete` overwrites what is deleted where it stands. But wherever SQLite moved rows
        to other pages to make room, it left their bytes behind, which only writing the whole file
        anew removes. Who writes meanwhile waits. Nothing is done on MySQL.
        """
        if not self._is_sqlite:
            return
        async with self._connection(self._engine) as connection, self._writers:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            if not await _ask(driver, "user_version"):
                return
            await driver.execute("VACUUM")
            # The log of writes has old pages too. With readers in the way, there is a next time.
            if not await _ask(driver, "wal_checkpoint(TRUNCATE)"):
                await driver.execute("PRAGMA user_version = 0")

    async def dispose(self) -> None:
        """Close all connections. Comes last: an engine must not outlive its loop.

        Waits up to 2 s for those in use: a server that was stopped doesn't wait until the
        calls that it cancelled have given theirs back.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_returned.wait(), _FAREWELL_SECONDS)
        self._disposed = True
        await self._engine.dispose()

    @asynccontextmanager
    async def _connection(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        self._connection_count += 1
        self._all_returned.clear()
        connecting = asyncio.create_task(_connect(engine))
        try:
            connection = await asyncio.shield(connecting)
        except BaseException:
            # Drivers that are cancelled while they connect leave something open: let them end.
            closing = asyncio.create_task(self._give_up(connecting))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            raise
        try:
            yield connection
        finally:
            closing = asyncio.create_task(self._give_back(connection))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            await asyncio.shield(closing)

    async def _give_up(self, connecting: asyncio.Task[AsyncConnection]) -> None:
        await asyncio.wait([connecting])
        if connecting.cancelled() or connecting.exception() is not None:
            self._count_back()
        else:
            await self._give_back(connecting.result())

    async def _give_back(self, connection: AsyncConnection) -> None:
        try:
            if self._disposed:  # Its pool is gone, and would not close it.
                await connection.invalidate()
            await connection.close()
        finally:
            self._count_back()

    def _count_back(self) -> None:
        self._connection_count -= 1
        if not self._connection_count:
            self._all_returned.set()


async def _connect(engine: AsyncEngine) -> AsyncConnection:
    return await engine.connect()


def open_database(url: str) -> Database:
    """The database at `url`, over connections that fail fast and see what others committed.

    Nothing is connected yet. The URL's driver is aiomysql or aiosqlite. With `?ssl_ca=` and a
    file of authorities, MySQL is spoken to over TLS only, and only if its certificate is right.
    """
    if url.startswith("sqlite"):
        engine = create_async_engine(
            url, hide_parameters=True, pool_size=5, max_overflow=0, pool_reset_on_return=None
        )
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        event.listen(engine.sync_engine, "invalidate", _roll_back_sqlite)
    else:
        engine = open_mysql(
            url,
            isolation_level="READ COMMITTED",
            pool_size=10,
            max_overflow=0,
            pool_timeout=2,
            pool_recycle=_MYSQL_MAXIMUM_AGE_SECONDS,
            # Nothing is left to roll back: whatever ran here was in a block that ended it.
            pool_reset_on_return=None,
            connect_args={"connect_timeout": 2, "init_command": _MYSQL_SESSION},
        )
        # Closing alone leaves open what can't be told so any more, as its other end is gone.
        engine.dialect.do_close = engine.dialect.do_terminate  # type: ignore[method-assign]
        event.listen(engine.sync_engine, "connect", _watch_connection)
        event.listen(engine.sync_engine, "checkin", _note_return)
        event.listen(engine.sync_engine, "checkout", partial(_ask_idle, engine.dialect))
    if tracing():
        trace_statements(engine.sync_engine)
    return Database(engine)


def open_mysql(url: str, *, connect_args: Mapping[str, Any], **options: Any) -> AsyncEngine:
    """An engine for the URL, over TLS if it says `ssl_ca`: the driver wants a context for it."""
    parsed = make_url(url)
    authorities = parsed.query.get("ssl_ca")
    arguments = dict(connect_args)
    if authorities is not None:
        arguments["ssl"] = ssl.create_default_context(cafile=str(authorities))
    engine = create_async_engine(
        parsed.difference_update_query(["ssl_ca"]),
        hide_parameters=True,
        connect_args=arguments,
        **options,
    )
    if authorities is not None:
        event.listen(engine.sync_engine, "connect", _insist_on_tls)
    return engine


async def database_now(transaction: AsyncConnection) -> datetime:
    """The time by the database's clock, the one clock that all replicas share."""
    if transaction.dialect.name == "sqlite":
        found = await transaction.execute(text("SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')"))
        return datetime.fromisoformat(found.scalar_one()).replace(tzinfo=UTC)
    found = await transaction.execute(text("SELECT UTC_TIMESTAMP(6)"))
    now: datetime = found.scalar_one()
    return now.replace(tzinfo=UTC)


def _insist_on_tls(connection: Any, _record: object) -> None:
    # The driver goes on in plain text with a server, or somebody in between, that offers none.
    if connection.driver_connection._writer.get_extra_info("ssl_object") is None:
        connection.driver_connection.close()
        raise ConnectionError("the database offers no TLS")


def _watch_connection(connection: Any, _record: object) -> None:
    """Have the kernel end a connection whose other end is gone without a word.

    The driver waits for answers for ever, and the kernel's own defaults are hours.
    """
    sock = connection.driver_connection._writer.get_extra_info("socket")
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):  # Not every system has all of them.
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _note_return(_connection: object, record: Any) -> None:
    record.info[_RETURNED_AT] = time.monotonic()


def _ask_idle(dialect: Dialect, connection: Any, record: Any, _proxy: object) -> None:
    """Ask a connection that was idle whether it still works; if it doesn't, all go."""
    returned_at = record.info.get(_RETURNED_AT)
    if returned_at is None or time.monotonic() - returned_at < _MYSQL_TRUSTED_SECONDS:
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # Else the driver begins transactions by itself, too late.
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "busy_timeout = 5000",
        # What is deleted is overwritten, and doesn't stay in the file until its place is used.
        "secure_delete = ON",
        # In KiB. The 2 MiB of the default are less than what a page of the log changes: pages
        # would go to the log of writes and come back, several times within a transaction.
        "cache_size = -32768",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _roll_back_sqlite(connection: Any, _record: object, _error: BaseException | None) -> None:
    # Who is cancelled leaves a cursor behind, and with it a connection that closes only once
    # that is garbage: until then its transaction would lock all others out.
    with suppress(ValueError):  # It is closed already.
        connection.run_async(lambda driver: asyncio.shield(driver.rollback()))


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later would fail where another wrote meanwhile.
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


async def _ask(driver: Any, pragma: str) -> int:
    async with driver.execute(f"PRAGMA {pragma}") as cursor:
        return int((await cursor.fetchone())[0])


async def note_untidy(transaction: AsyncConnection) -> None:
    """Say that something leaves the database for good, which `Database.tidy` then sees to."""
    if transaction.dialect.name == "sqlite":
        await transaction.exec_driver_sql("PRAGMA user_version = 1")


@asynccontextmanager
async def kept_tidy(database: Database, *, every_seconds: float = 3600.0) -> AsyncIterator[None]:
    """Tidy when the block begins, as a crash may have left something, now and then, and at its end.

    A failure, such as of a disk without room for a second file, is logged and made up for later.
    """

    async def tidy() -> None:
        try:
            await database.tidy()
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            log.warning("database not tidied", extra=describe_failure(error))

    async def keep_tidying() -> None:
        while True:
            await asyncio.sleep(every_seconds)
            await tidy()

    await tidy()
    tidying = asyncio.create_task(keep_tidying())
    try:
        yield
    finally:
        tidying.cancel()
        await asyncio.wait([tidying])
        await tidy()


async def delete_some(
    transaction: AsyncConnection, table: Table, condition: ColumnElement[bool], *, limit: int
) -> int:
    """Remove at most so many of the rows; returns how many."""
    statement = delete(table).where(condition)
    if transaction.dialect.name == "sqlite":  # It is built without LIMIT for DELETE.
        keys = list(table.primary_key.columns)
        some = select(*keys).where(condition).limit(limit)
        statement = delete(table).where(tuple_(*keys).in_(some))
    else:
        statement = statement.with_dialect_options(mysql_limit=limit)
    return (await transaction.execute(statement)).rowcount
