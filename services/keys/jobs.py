"""Keys' scheduled tasks: keys end when they expire, and what was deleted leaves for good."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.job import Batch, Job
from common.cron.trim_runs import trim_runs_job
from services.keys import repository

_KEPT_AFTER_END = timedelta(days=90)
_BATCH_ROWS = 500


def all_jobs() -> list[Job]:
    """The jobs of Keys."""
    return [
        Job(
            name="expire-keys",
            description="Notes of keys whose expire_time has passed that they were revoked then.",
            period=timedelta(minutes=5),
            run_batch=_expire_keys,
        ),
        Job(
            name="purge-deleted",
            description=(
                "Removes stores whose purge_time has passed, with their keys, and keys that "
                f"ended more than {_KEPT_AFTER_END.days} days ago."
            ),
            period=timedelta(hours=1),
            run_batch=_purge_deleted,
        ),
        trim_runs_job(),
    ]


async def _expire_keys(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
    count = await repository.end_expired_keys(transaction, now=now, limit=_BATCH_ROWS)
    return Batch(row_count=count, done=count == 0)


async def _purge_deleted(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
    count = await repository.purge_stores(transaction, now=now, limit=_BATCH_ROWS)
    count += await repository.purge_ended_keys(
        transaction, ended_before=now - _KEPT_AFTER_END, limit=_BATCH_ROWS
    )
    return Batch(row_count=count, done=count == 0)
