"""Where there are figures already, migrations sum them by day as they would have been summed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, Table, delete, select

from services.query.tables import session_days, tally_days
from tests.services.query.scene import Scene
from tests.services.query.test_rebuild import shopping

MIGRATIONS = "services.query.migrations.versions"


async def rows_of(scene: Scene, table: Table) -> list[tuple[Any, ...]]:
    """All rows, but for those that count nothing."""
    number = table.c["tally" if table is tally_days else "session_count"]
    async with scene.database.read() as snapshot:
        found = await snapshot.execute(
            select(table).where(number != 0).order_by(*table.primary_key.columns)
        )
        return [tuple(row) for row in found]


@pytest.mark.parametrize(
    ("revision", "table"),
    [("0045_fill_session_days", session_days), ("0048_fill_tally_days", tally_days)],
)
async def test_days_are_filled(scene: Scene, revision: str, table: Table) -> None:
    async with scene.database.begin() as transaction:
        await transaction.execute(delete(table))
    await scene.project(*shopping(300, seed=7))
    before = await rows_of(scene, table)

    def fill(connection: Connection) -> None:
        with Operations.context(MigrationContext.configure(connection)):
            import_module(f"{MIGRATIONS}.{revision}").upgrade()

    async with scene.database.begin() as transaction:
        await transaction.execute(delete(table))
        await transaction.run_sync(fill)

    assert len(before) > 10
    assert await rows_of(scene, table) == before
