"""Checks that the log is whole and that its sums are true. Reports, and repairs nothing."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.job import Batch, Job
from services.ingest import repository
from services.ingest.append import POSITION_BITS
from services.ingest.tables import (
    events,
    log_changes,
    log_heads,
    quota_receipts,
    rejected_events,
    verdict_hours,
)
from services.ingest.verdicts import Verdict

log = logging.getLogger(__name__)

_POSITIONS = 20_000
# Older ones were looked at before, and each event is counted in the sums.
_LOOKED_BACK = 1_000_000


class LogNotWhole(Exception):
    """Events, changes or counts are missing, or there are too many."""


def check_log_job() -> Job:
    """Looks for gaps among the latest positions, and compares the log with the sums of verdicts.

    Fails at the first difference, each time that it is called again.
    """
    return Job(
        name="check-log",
        description="Checks that the log has no gaps, and as many events as were accepted.",
        period=timedelta(days=1),
        run_batch=_check_next,
    )


async def _check_next(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
    """Check some positions of a shard; the cursor names the next. The sums come first."""
    heads = dict(await repository.list_heads(transaction))
    if not cursor:
        await _check_sums(transaction)
        shard, after = min(heads, default=0), -1
    else:
        shard, after = map(int, cursor.split())
    if shard not in heads:
        await _check_kept(transaction)
        return Batch(row_count=0, done=True)
    head = heads[shard]
    if after < 0:
        after = max(0, head - _LOOKED_BACK)
    end = min(head, after + _POSITIONS)
    base = shard << POSITION_BITS
    found = await transaction.scalar(
        select(func.count())
        .select_from(events)
        .where(events.c.id > base + after, events.c.id <= base + end)
    )
    if found != end - after:
        _report("positions", shard=shard, expected=end - after, found=int(found or 0))
    if end < head:
        return Batch(row_count=0, done=False, cursor=f"{shard} {end}")
    later = [one for one in sorted(heads) if one > shard]
    # After the last shard comes one that isn't there.
    return Batch(row_count=0, done=False, cursor=f"{later[0] if later else shard + 1} -1")


async def _check_sums(transaction: AsyncConnection) -> None:
    """All that was accepted stands in the log, and each change has its number."""
    # Locked, so that nobody appends between the two sums.
    positions = 0
    for shard, position, change_number in await transaction.execute(
        select(log_heads.c.shard, log_heads.c.position, log_heads.c.change_number).with_for_update()
    ):
        positions += position
        changes = await transaction.scalar(
            select(func.count()).select_from(log_changes).where(log_changes.c.shard == shard)
        )
        if changes != change_number:
            _report("changes", shard=shard, expected=change_number, found=int(changes or 0))
    accepted = await transaction.scalar(
        select(func.sum(verdict_hours.c.event_count)).where(
            verdict_hours.c.verdict == Verdict.ACCEPTED
        )
    )
    if int(accepted or 0) != positions:
        _report("accepted events", shard=-1, expected=positions, found=int(accepted or 0))


async def _check_kept(transaction: AsyncConnection) -> None:
    """Of what was rejected, or beyond the quota, no more is kept than was counted."""
    column = verdict_hours.c
    for verdict, table in ((Verdict.REJECTED, rejected_events), (Verdict.QUOTA, quota_receipts)):
        kept = (
            select(table.c.store_uid, func.count().label("kept"))
            .group_by(table.c.store_uid)
            .subquery()
        )
        counted = (
            select(column.store_uid, func.sum(column.event_count).label("counted"))
            .where(column.verdict == verdict)
            .group_by(column.store_uid)
            .subquery()
        )
        # In one statement: a replay changes both at once.
        both = select(kept.c.kept, func.coalesce(counted.c.counted, 0)).select_from(
            kept.outerjoin(counted, kept.c.store_uid == counted.c.store_uid)
        )
        for found, expected in await transaction.execute(both):
            if found > expected:
                what = f"{verdict.name.lower()} events"
                _report(what, shard=-1, expected=int(expected), found=found)
    strange = await transaction.scalar(
        select(func.count())
        .select_from(verdict_hours)
        .where(column.verdict.not_in(list(Verdict)) | (column.event_count < 0))
    )
    if strange:
        _report("sums of verdicts", shard=-1, expected=0, found=int(strange))


def _report(what: str, *, shard: int, expected: int, found: int) -> None:
    log.error(
        "log is not whole",
        extra={"what": what, "shard": shard, "expected": expected, "found": found},
    )
    raise LogNotWhole(what)
