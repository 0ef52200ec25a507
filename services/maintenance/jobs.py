"""Maintenance's own jobs."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.analyse_tables import analyse_tables_job
from common.cron.job import Batch, Job
from common.cron.trim_runs import trim_runs_job
from common.db import delete_some
from common.purged_stores import clear_purged_stores_job
from services.maintenance import repository
from services.maintenance.tables import metadata, subject_keys

if TYPE_CHECKING:
    from shoptrail.keys.v1.keys_pb2_grpc import KeysAsyncStub

log = logging.getLogger(__name__)

ARCHIVE_DAYS = 7
"""For how many days the archive of an export is kept."""

_LATE = timedelta(days=1)
_BATCH_ROWS = 100
_BATCH_KEYS = 500


class CasesLate(Exception):
    """People wait for an answer."""


def maintenance_jobs(keys: KeysAsyncStub) -> list[Job]:
    """All jobs that Maintenance runs. `keys` says which stores were purged."""
    return [
        clear_purged_stores_job(keys, _clear_store),
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


async def _clear_store(
    transaction: AsyncConnection, store_uid: str, *, cursor: str, now: datetime
) -> Batch:
    """Destroys the keys of the store's people, without which no backup tells of them."""
    of_store = subject_keys.c.store_uid == store_uid
    count = await delete_some(transaction, subject_keys, of_store, limit=_BATCH_KEYS)
    return Batch(count, done=count < _BATCH_KEYS, cursor="keys")


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
