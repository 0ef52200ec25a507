"""Removes what is left of a store that was purged."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from sqlalchemy import ColumnElement, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.job import Batch
from common.db import delete_some
from common.purged_stores import Clear
from services.ingest.append import POSITION_BITS
from services.ingest.overwriting import expire
from services.ingest.subjects import SubjectDigests
from services.ingest.tables import (
    event_people,
    events,
    quota_receipts,
    rejected_events,
    retention_rules,
    store_settings,
    suppressions,
    tracking_plan_versions,
    tracking_plans,
)

# Looked at in one transaction, and overwritten under the lock that appending takes.
_LOOKED_AT, _OVERWRITTEN = 2000, 100
_DELETED = 500
_OF_EVENTS, _OF_TABLES = "events", "tables"


def clear_store(digests: SubjectDigests) -> Clear:
    """Leaves remnants of the store's events, and removes its rejected events, rules and plans.

    What stays is the sums of verdicts, which must balance with the log, and the remnants, which
    tell of nobody: positions of the log have no gaps.
    """

    async def clear(
        transaction: AsyncConnection, store_uid: str, *, cursor: str, now: datetime
    ) -> Batch | None:
        part, _, place = cursor.partition(" ")
        if part != _OF_TABLES:
            count, place = await _overwrite_some(
                transaction, digests, store_uid, after=bytes.fromhex(place), now=now
            )
            if place:
                return Batch(count, done=False, cursor=f"{_OF_EVENTS} {place}")
        for table, condition in _rows_of(store_uid):
            if count := await delete_some(transaction, table, condition, limit=_DELETED):
                return Batch(count, done=False, cursor=_OF_TABLES)
        return Batch(0, done=True)

    return clear


async def _overwrite_some(
    transaction: AsyncConnection,
    digests: SubjectDigests,
    store_uid: str,
    *,
    after: bytes,
    now: datetime,
) -> tuple[int, str]:
    """How many were overwritten, and where to go on; nowhere if all were looked at."""
    column = events.c
    found = await transaction.execute(
        select(column.id, column.message_key, column.user_id, column.anonymous_id)
        .where(column.store_uid == store_uid, column.message_key > after)
        .order_by(column.message_key)
        .limit(_LOOKED_AT)
    )
    place = ""
    by_shard: defaultdict[int, list[int]] = defaultdict(list)
    count = 0
    for event_id, message_key, user_id, anonymous_id in found:
        if count == _OVERWRITTEN:
            break
        place = message_key.hex()
        if user_id or anonymous_id:  # Every event has one of them; what has neither is a remnant.
            by_shard[event_id >> POSITION_BITS].append(event_id)
            count += 1
    for shard, ids in sorted(by_shard.items()):
        await expire(transaction, digests, shard, ids, now=now)
    return count, place


def _rows_of(store_uid: str) -> list[tuple[Table, ColumnElement[bool]]]:
    """Which rows of which tables are the store's, in the order in which they may go."""
    plans = select(tracking_plans.c.id).where(tracking_plans.c.store_uid == store_uid)
    own = (
        *(event_people, rejected_events, quota_receipts),
        *(retention_rules, suppressions, tracking_plans, store_settings),
    )
    return [
        (tracking_plan_versions, tracking_plan_versions.c.plan_id.in_(plans)),
        *((table, table.c.store_uid == store_uid) for table in own),
    ]
