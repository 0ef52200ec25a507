"""A job that every service has: the database learns anew what its tables hold."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.job import Batch, Job

# SQLite else reads indexes whole.
_SQLITE_LIMIT = "PRAGMA analysis_limit = 1000"


def analyse_tables_job(metadata: MetaData) -> Job:
    """Has the database look at a sample of each table, by which it decides how to look rows up.

    What has changed much since, as a table that was emptied by retention, else is read by the
    wrong index. Nothing is rebuilt or locked.
    """
    names = sorted(metadata.tables)

    async def run_batch(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
        return await _analyse_next(transaction, names, after=cursor)

    return Job(
        name="analyse-tables",
        description="Has the database learn anew how many different values its tables have.",
        period=timedelta(days=1),
        run_batch=run_batch,
    )


async def _analyse_next(
    transaction: AsyncConnection, names: Collection[str], *, after: str
) -> Batch:
    name = min((name for name in names if name > after), default=None)
    if name is None:
        return Batch(row_count=0, done=True)
    if transaction.dialect.name == "sqlite":
        await transaction.exec_driver_sql(_SQLITE_LIMIT)
        await transaction.exec_driver_sql(f'ANALYZE "{name}"')
    else:
        # It commits what the transaction did so far, which is to lengthen the run's lease.
        await transaction.exec_driver_sql(f"ANALYZE NO_WRITE_TO_BINLOG TABLE `{name}`")
    return Batch(row_count=0, done=False, cursor=name)
