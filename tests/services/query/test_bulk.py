"""What the projector looks up by many keys costs as many steps, however many rows there are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import Table, event
from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import Database, open_database
from common.uid import new_uuid
from services.query import bulk
from services.query.bulk import Key
from services.query.tables import orders, owners, products, representatives, sessions

STORES = sorted(new_uuid() for _ in range(3))
KEYS = [(store, b"%015d-" % number) for store in STORES for number in range(1000)]
ASKED = KEYS[::50]
"""Some of each store's."""


async def add_products(database: Database) -> None:
    rows = [(1, store, key, b"Tea", 0) for store, key in KEYS]
    async with database.begin() as transaction:
        await bulk.put(transaction, products, rows)


async def find(transaction: AsyncConnection, table: Table, key: str) -> list[Key]:
    found = await bulk.find(
        transaction, table, ("store_uid", key), generation=1, key=key, keys=ASKED
    )
    return sorted((bytes(store), bytes(one)) for store, one in found)


async def rows_read(transaction: AsyncConnection, work: Callable[[], Awaitable[object]]) -> int:
    """How many rows of tables and indexes MariaDB touches meanwhile."""

    async def touched() -> int:
        found = await transaction.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'")
        return sum(int(row["Value"]) for row in found.mappings())

    # To ask is counted too: what it costs is what two in a row differ by.
    first, second = await touched(), await touched()
    await work()
    return await touched() - second - (second - first)


async def test_rows_are_found_by_their_keys_and_no_others_are_read(database: Database) -> None:
    await add_products(database)
    async with database.begin() as transaction:
        assert await find(transaction, products, "product_id") == ASKED
        if transaction.dialect.name != "sqlite":
            read = await rows_read(transaction, lambda: find(transaction, products, "product_id"))
            # Each key is a range, which ends with the row after it.
            assert read <= 2 * len(ASKED)


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (sessions, "subject"),
        (owners, "subject"),
        (representatives, "subject"),
        (orders, "order_key"),
        (products, "product_id"),
    ],
)
async def test_sqlite_looks_each_key_up(
    sqlite_template: Callable[[str], Awaitable[Path]], table: Table, key: str
) -> None:
    told = []
    database = open_database(f"sqlite+aiosqlite:///{await sqlite_template('query')}")
    async with database.read() as snapshot:
        event.listen(
            snapshot.sync_connection,
            "before_cursor_execute",
            lambda _connection, _cursor, statement, *_: told.append(statement),
        )
        await find(snapshot, table, key)
        plan = await snapshot.exec_driver_sql(f"EXPLAIN QUERY PLAN {told[-1]}")
        steps = [row[-1] for row in plan if table.name in row[-1]]
    await database.dispose()
    assert len(steps) == 1
    assert f"(generation=? AND store_uid=? AND {key}=?)" in steps[0]
