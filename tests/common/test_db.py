"""A service's database, and what is left of its connections."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from typing import Any

from sqlalchemy import text

from common.db import Database, open_database
from deploy.local.mariadb import MariadbServer
from tests.conftest import Databases


async def test_a_call_that_was_just_cancelled_leaves_no_connection_behind(
    databases: Databases,
) -> None:
    reached = asyncio.Event()

    async def read(database: Database) -> None:
        async with database.read() as snapshot:
            await snapshot.execute(text("SELECT 1"))
            reached.set()
            await asyncio.Event().wait()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with databases("keys") as database:
            call = asyncio.create_task(read(database))
            await reached.wait()
            call.cancel()
        assert call.done()
        del call, database
        gc.collect()

    assert [str(each.message) for each in caught if each.category is ResourceWarning] == []


async def test_a_database_that_is_gone_without_a_word_is_noticed(
    mariadb_server: MariadbServer,
) -> None:
    database = open_database(mariadb_server.url("keys"))
    async with database.begin() as transaction:
        raw = await transaction.get_raw_connection()
        connection: Any = raw.driver_connection
        sock = connection._writer.get_extra_info("socket")
        options = [
            sock.getsockopt(level, option)
            for level, option in (
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            )
        ]
    await database.dispose()

    assert options == [1, 5, 5, 3, 20_000]
