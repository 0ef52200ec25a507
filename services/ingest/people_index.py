"""Lets events be found by the people and orders that they are about, apart from appending.

An index on the log itself would cost each append. This one follows the log, and is brought
up to its head whenever it is asked.
"""

from __future__ import annotations

import time
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.job import Batch, RunBatch
from common.db import Database
from common.errors import DependencyUnavailable
from services.ingest import repository
from services.ingest import subject_repository as people
from services.ingest.append import POSITION_BITS
from services.ingest.subjects import SubjectDigests

# Few enough that who appends meanwhile hardly waits.
_BATCH_EVENTS = 250


class PeopleIndex:
    """The index of all shards."""

    def __init__(self, database: Database, digests: SubjectDigests) -> None:
        self._database = database
        self._digests = digests

    async def catch_up(self, *, until: float) -> None:
        """Take in all events that were committed before the call.

        Raises `DependencyUnavailable` if that takes longer than `until`, by the monotonic
        clock: what was done by then counts.
        """
        async with self._database.read() as snapshot:
            heads = await repository.list_heads(snapshot)
        for shard, head in heads:
            while True:
                async with self._database.read() as snapshot:
                    position = await people.get_people_position(snapshot, shard)
                if position >= head:
                    break
                if time.monotonic() >= until:
                    raise DependencyUnavailable
                async with self._database.begin() as transaction:
                    await index_batch(transaction, self._digests, shard)


async def index_batch(transaction: AsyncConnection, digests: SubjectDigests, shard: int) -> int:
    """Take in some of a shard's events that are not there yet; returns how many."""
    position = await people.get_people_position(transaction, shard)
    events = await people.list_mentions(transaction, shard, after=position, limit=_BATCH_EVENTS)
    if not events:
        return 0
    reached = events[-1].id & ((1 << POSITION_BITS) - 1)
    if not await people.move_people_position(transaction, shard, old=position, new=reached):
        return 0
    await people.add_people(
        transaction,
        (
            (event.store, digest, event.id)
            for event in events
            for digest in digests.of_event(
                event.store,
                event.type,
                user_id=event.user_id,
                anonymous_id=event.anonymous_id,
                payload=event.payload,
            )
        ),
    )
    return len(events)


def index_people(digests: SubjectDigests) -> RunBatch:
    """Batches of a job that keeps the index near the log's head."""

    async def run_batch(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
        heads = await repository.list_heads(transaction)
        for shard, _ in heads:
            if count := await index_batch(transaction, digests, shard):
                return Batch(row_count=count, done=False)
        return Batch(row_count=0, done=True)

    return run_batch
