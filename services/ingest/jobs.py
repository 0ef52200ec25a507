"""Ingest's own jobs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.analyse_tables import analyse_tables_job
from common.cron.job import Batch, Job, RunBatch
from common.cron.trim_runs import trim_runs_job
from common.purged_stores import clear_purged_stores_job
from services.ingest.checking import check_log_job
from services.ingest.clearing import clear_store
from services.ingest.erasing_again import erase_again
from services.ingest.people_index import index_people
from services.ingest.rejection_repository import trim
from services.ingest.retention import expire_events
from services.ingest.rule_book import DEFAULT_SETTINGS
from services.ingest.rules_repository import purge_plans
from services.ingest.subject_repository import purge_lifted
from services.ingest.subjects import SubjectDigests
from services.ingest.suppressions import LIFTED_KEPT_DAYS
from services.ingest.tables import metadata, quota_receipts, rejected_events

if TYPE_CHECKING:
    from shoptrail.keys.v1.keys_pb2_grpc import KeysAsyncStub

_BATCH_ROWS = 500


def ingest_jobs(digests: SubjectDigests, keys: KeysAsyncStub) -> list[Job]:
    """All jobs that Ingest runs. `keys` says which stores were purged."""
    return [
        Job(
            name="trim-rejected-events",
            description="Removes rejected events that are older than their store's rejected_days.",
            period=timedelta(hours=1),
            run_batch=_trim(rejected_events),
        ),
        Job(
            name="trim-quota-receipts",
            description="Removes receipts of events beyond the quota, after as many days.",
            period=timedelta(hours=1),
            run_batch=_trim(quota_receipts),
        ),
        Job(
            name="purge-tracking-plans",
            description="Removes deleted tracking plans whose purge_time has passed.",
            period=timedelta(hours=1),
            run_batch=_purge_tracking_plans,
        ),
        Job(
            name="index-people",
            description="Lets new events be found by the people that they are about.",
            period=timedelta(minutes=1),
            run_batch=index_people(digests),
        ),
        Job(
            name="erase-again",
            description="Erases who was erased before, should a restored backup have them.",
            period=timedelta(days=1),
            run_batch=erase_again(digests),
        ),
        Job(
            name="expire-events",
            description="Leaves remnants of events that their stores keep no longer.",
            period=timedelta(hours=1),
            run_batch=expire_events(digests),
        ),
        Job(
            name="purge-lifted-suppressions",
            description="Removes suppressions that were lifted more than 7 days ago.",
            period=timedelta(hours=1),
            run_batch=_purge_lifted_suppressions,
        ),
        clear_purged_stores_job(keys, clear_store(digests)),
        check_log_job(),
        analyse_tables_job(metadata),
        trim_runs_job(),
    ]


def _trim(table: Table) -> RunBatch:
    async def run_batch(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
        count, place = await trim(
            transaction,
            table,
            after_id=int(cursor or 0),
            default_days=DEFAULT_SETTINGS.rejected_days,
            now=now,
            limit=_BATCH_ROWS,
        )
        return Batch(row_count=count, done=place is None, cursor=str(place or ""))

    return run_batch


async def _purge_tracking_plans(
    transaction: AsyncConnection, *, cursor: str, now: datetime
) -> Batch:
    count = await purge_plans(transaction, due_before=now, limit=_BATCH_ROWS)
    return Batch(row_count=count, done=count < _BATCH_ROWS)


async def _purge_lifted_suppressions(
    transaction: AsyncConnection, *, cursor: str, now: datetime
) -> Batch:
    before = now - timedelta(days=LIFTED_KEPT_DAYS)
    count = await purge_lifted(transaction, before=before, limit=_BATCH_ROWS)
    return Batch(row_count=count, done=count < _BATCH_ROWS)
