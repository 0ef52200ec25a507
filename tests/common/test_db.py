"""A service's database, and what is left of its connections."""

from __future__ import annotations

import asyncio
import gc
import warnings

from sqlalchemy import text

from common.db import Database
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
