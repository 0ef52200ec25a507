"""Maintenance's own jobs."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.analyse_tables import analyse_tables_job
from common.cron.job import Batch, Job
from common.cron.trim_runs import trim_runs_job
from services.maintenance import repository
from services.maintenance.tables import metadata

log = logging.getLogger(__name__)

ARCHIVE_DAYS = 7
"""For how many days the archive of an export is kept."""

_LATE = timedelta(days=1)
_BATCH_ROWS = 100


class CasesLate(Exception):
    """People wait for an answer."""


def maintenance_jobs() -> list[Job]:
    """All jobs that Maintenance runs."""
    return [
        Job(
            name="close-archives",
            description="Removes archives of exports that are older than 7 days.",
            period=timedelta(hours=1),
            run_batch=_close_archives,
        ),
        Job(
            name="check-privacy-cases",
            description="Fails while a privacy case is open for more than a day.",
            period=timedelta(hours=1),
            run_batch=_check_cases,
        ),
        analyse_tables_job(metadata),
        trim_runs_job(),
    ]


async def _close_archives(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
    count = await repository.close_old_archives(
        transaction, before=now - timedelta(days=ARCHIVE_DAYS), limit=_BATCH_ROWS
    )
    return Batch(row_count=count, done=count < _BATCH_ROWS)


async def _check_cases(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
    late = await repository.count_late_cases(transaction, created_before=now - _LATE)
    if late:
        log.error("privacy cases are late", extra={"case_count": late})
        raise CasesLate(str(late))
    return Batch(row_count=0, done=True)
