"""The job that every service has: its record of runs is kept for a while, not for ever."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.job import Batch, Job
from common.cron.ledger import delete_runs

CATCH_UP = timedelta(days=30)
"""How late a scheduled time may still be run. Its record must be kept for longer than that."""

_KEPT = timedelta(days=90)
_BATCH_ROWS = 1000


def trim_runs_job() -> Job:
    """Removes the records of runs that were scheduled more than 90 days ago."""
    return Job(
        name="trim-runs",
        description="Removes the records of runs that were scheduled more than 90 days ago.",
        period=timedelta(days=1),
        run_batch=_trim,
    )


async def _trim(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
    count = await delete_runs(transaction, scheduled_before=now - _KEPT, limit=_BATCH_ROWS)
    return Batch(row_count=count, done=count < _BATCH_ROWS)
