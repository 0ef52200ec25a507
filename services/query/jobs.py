"""Query's own jobs."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.analyse_tables import analyse_tables_job
from common.cron.job import Batch, Job
from common.cron.trim_runs import trim_runs_job
from common.purged_stores import clear_purged_stores_job, is_purged
from services.query import change_repository, repository, silence
from services.query.clearing import clear_store
from services.query.quarters import quarter_of, time_of
from services.query.repository import Selection
from services.query.tables import metadata
from services.query.tallies import EVENT_TYPES

if TYPE_CHECKING:
    from shoptrail.keys.v1.keys_pb2_grpc import KeysAsyncStub

log = logging.getLogger(__name__)

_AGE = timedelta(days=1)
FORGOTTEN = timedelta(days=1)
"""After which time a replica that has told nothing is taken for gone."""
_HOUR_QUARTERS = 4
_POSITIONS = 20_000
# Older ones were looked at before.
_LOOKED_BACK = 1_000_000
_MOST_ROWS = 500


class CountsDiffer(Exception):
    """The counts of a store are not those of its events."""


class ListingNotWhole(Exception):
    """Events are missing that were read from the log."""


def query_jobs(keys: KeysAsyncStub) -> list[Job]:
    """All jobs that Query runs. `keys` says which stores were purged."""
    return [
        analyse_tables_job(metadata),
        trim_runs_job(),
        clear_purged_stores_job(keys, clear_store),
        check_counts_job(),
        check_listing_job(),
        drop_replaced_figures_job(),
        forget_copies_job(),
        note_silent_events_job(),
    ]


def check_counts_job() -> Job:
    """Recounts each store's events of the same hour of the day before.

    Repairs nothing: it stops at the first store whose counts are wrong, and fails
    each time that it is called again.
    """
    return Job(
        name="check-counts",
        description="Compares the counts of an hour of yesterday with the events listed.",
        period=timedelta(hours=1),
        run_batch=_check_next_store,
    )


def check_listing_job() -> Job:
    """Looks for gaps among the latest positions of the log that the listing is said to have.

    Fails at the first gap, each time that it is called again.
    """
    return Job(
        name="check-listing",
        description="Checks that the listing has every event of the log that was read.",
        period=timedelta(days=1),
        run_batch=_check_next_positions,
    )


def forget_copies_job() -> Job:
    """Forgets replicas' columns that have told nothing for a day: nobody need wait for them."""
    return Job(
        name="forget-column-copies",
        description="Forgets columns of replicas that have been away for more than a day.",
        period=timedelta(hours=1),
        run_batch=_forget_copies,
    )


def drop_replaced_figures_job() -> Job:
    """Removes figures that were made anew and don't answer any more."""
    return Job(
        name="drop-replaced-figures",
        description="Removes figures that were rebuilt.",
        period=timedelta(hours=1),
        run_batch=_drop_some_figures,
    )


def note_silent_events_job() -> Job:
    """Notes which events have fallen silent, a store in each batch."""
    return Job(
        name="note-silent-events",
        description="Notes events that used to happen and don't any more.",
        period=timedelta(minutes=15),
        run_batch=_note_next_store,
    )


async def _note_next_store(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
    store_uid = await repository.find_next_store(transaction, cursor or None)
    if store_uid is None:
        return Batch(row_count=0, done=True)
    live = await repository.find_live_generation(transaction)
    row_count = await silence.note_silent_events(transaction, live, store_uid, now=now)
    return Batch(row_count=row_count, done=False, cursor=store_uid)


async def _drop_some_figures(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
    row_count = await repository.drop_replaced_figures(transaction, limit=_MOST_ROWS)
    return Batch(row_count=row_count, done=row_count == 0)


async def _forget_copies(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
    count = await change_repository.forget_copies(transaction, seen_before=now - FORGOTTEN)
    return Batch(row_count=count, done=True)


async def _check_next_positions(
    transaction: AsyncConnection, *, cursor: str, now: datetime
) -> Batch:
    """Check some positions of a shard; the cursor names the next."""
    live = await repository.find_live_generation(transaction)
    read = {one.shard: one.position for one in await repository.list_cursors(transaction, live)}
    shard, after = map(int, cursor.split()) if cursor else (min(read, default=0), -1)
    if shard not in read:
        return Batch(row_count=0, done=True)
    if after < 0:
        after = max(0, read[shard] - _LOOKED_BACK)
    end = min(read[shard], after + _POSITIONS)
    found = await change_repository.count_listed(transaction, shard, after=after, end=end)
    if found != end - after:
        log.error(
            "listing is not whole",
            extra={"shard": shard, "after": after, "expected": end - after, "found": found},
        )
        raise ListingNotWhole(str(shard))
    if end < read[shard]:
        return Batch(row_count=0, done=False, cursor=f"{shard} {end}")
    later = [one for one in sorted(read) if one > shard]
    return Batch(row_count=0, done=not later, cursor=f"{later[0]} -1" if later else "")


async def _check_next_store(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
    """Check the store after the cursor, which names the hour too: `now` may pass into the next."""
    quarter, _, checked = cursor.partition(" ")
    first = int(quarter) if quarter else quarter_of(now - _AGE) // _HOUR_QUARTERS * _HOUR_QUARTERS
    store_uid = await repository.find_next_store(transaction, checked or None)
    if store_uid is None:
        return Batch(row_count=0, done=True)
    if await is_purged(transaction, store_uid):
        # It has remnants in the listing, and no figures.
        return Batch(row_count=0, done=False, cursor=f"{first} {store_uid}")
    selection = Selection(
        generation=await repository.find_live_generation(transaction),
        store_uid=store_uid,
        first_quarter=first,
        end_quarter=first + _HOUR_QUARTERS,
        measures=EVENT_TYPES,
    )
    differences = await repository.count_differences(transaction, selection)
    if differences:
        log.error(
            "counts differ from events",
            extra={
                "store_uid": store_uid,
                "hour": time_of(first).isoformat(),
                "name_count": differences,
            },
        )
        raise CountsDiffer(store_uid)
    return Batch(row_count=0, done=False, cursor=f"{first} {store_uid}")
