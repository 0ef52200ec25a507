"""What leaves Ingest by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, select, text, update

from common.db import Database
from services.ingest.checking import LogNotWhole
from services.ingest.jobs import ingest_jobs
from services.ingest.subjects import SubjectDigests
from services.ingest.tables import events, verdict_hours
from services.ingest.verdicts import Verdict
from shoptrail.ingest.v1 import ingest_pb2 as pb
from shoptrail.ingest.v1 import tracking_plan_pb2
from tests.conftest import NOBODY
from tests.services.ingest.conftest import (
    ALL,
    NOW,
    STORE,
    Stub,
    batch,
    refusal_of,
    submission,
    viewed,
)


async def run(database: Database, name: str, *, now: datetime) -> int:
    """All batches of a job; returns how many rows it changed."""
    (job,) = (job for job in ingest_jobs(SubjectDigests(bytes(32)), NOBODY) if job.name == name)
    count, cursor = 0, ""
    while True:
        async with database.begin() as transaction:
            done = await job.run_batch(transaction, cursor=cursor, now=now)
        count, cursor = count + done.row_count, done.cursor
        if done.done:
            return count


async def test_rejected_events_leave_when_their_stores_days_are_over(
    ingest: Stub, database: Database
) -> None:
    put = pb.PutStoreSettingsRequest(store_uid=STORE, rejected_days=2)
    await ingest.PutStoreSettings(put, timeout=5, metadata=ALL)
    old = submission(*[b"{}"] * 700)
    old.receive_time.FromDatetime(NOW - timedelta(days=2, seconds=1))
    other = batch(b"{}", store_uid="sto_00000000000000000000000001")
    other.submissions[0].receive_time.FromDatetime(NOW - timedelta(days=29))
    for request in (pb.AppendRequest(submissions=[old]), batch(b"{}"), other):
        await ingest.Append(request, timeout=5)

    first = await run(database, "trim-rejected-events", now=NOW)
    again = await run(database, "trim-rejected-events", now=NOW)
    days_later = await run(database, "trim-rejected-events", now=NOW + timedelta(days=1, hours=1))

    assert (first, again, days_later) == (700, 0, 1)


async def test_receipts_of_what_was_beyond_the_quota_leave_in_the_same_way(
    ingest: Stub, database: Database
) -> None:
    put = pb.PutStoreSettingsRequest(store_uid=STORE, rejected_days=2, daily_quota=1)
    await ingest.PutStoreSettings(put, timeout=5, metadata=ALL)
    await ingest.Append(batch(viewed("m1"), viewed("m2"), viewed("m2"), b"{}"), timeout=5)

    early = await run(database, "trim-quota-receipts", now=NOW + timedelta(days=2))
    due = await run(database, "trim-quota-receipts", now=NOW + timedelta(days=2, seconds=1))

    assert (early, due) == (0, 2)


async def test_a_deleted_plan_is_purged_with_its_versions_when_its_time_has_come(
    ingest: Stub, database: Database
) -> None:
    request = pb.PutTrackingPlanRequest(
        store_uid=STORE, event_name="Paid", mode=tracking_plan_pb2.PLAN_MODE_OFF, schema="{}"
    )
    plan = (await ingest.PutTrackingPlan(request, timeout=5, metadata=ALL)).plan
    delete = pb.DeleteTrackingPlanRequest(store_uid=STORE, plan_uid=plan.uid)
    deleted = (await ingest.DeleteTrackingPlan(delete, timeout=5, metadata=ALL)).plan
    purge_time = deleted.purge_time.ToDatetime(tzinfo=UTC)

    early = await run(database, "purge-tracking-plans", now=purge_time)
    due = await run(database, "purge-tracking-plans", now=purge_time + timedelta(seconds=1))

    get = pb.GetTrackingPlanRequest(store_uid=STORE, plan_uid=plan.uid)
    refusal = await refusal_of(ingest.GetTrackingPlan(get, timeout=5, metadata=ALL))
    assert (early, due) == (0, 1)
    assert "no such plan" in str(refusal.details())


async def test_a_whole_log_is_found_to_be_whole_and_a_gap_is_reported(
    ingest: Stub, database: Database
) -> None:
    await ingest.Append(batch(*(viewed(f"m{number}") for number in range(30))), timeout=5)
    assert await run(database, "check-log", now=NOW) == 0

    async with database.begin() as transaction:
        middle = (await transaction.execute(select(events.c.id).order_by(events.c.id))).scalars()
        await transaction.execute(delete(events).where(events.c.id == list(middle)[10]))
    with pytest.raises(LogNotWhole, match="positions"):
        await run(database, "check-log", now=NOW)


async def test_a_sum_that_is_not_that_of_the_log_is_reported(
    ingest: Stub, database: Database
) -> None:
    await ingest.Append(batch(viewed("m1"), viewed("m2")), timeout=5)
    async with database.begin() as transaction:
        await transaction.execute(update(verdict_hours).values(event_count=3))

    with pytest.raises(LogNotWhole, match="accepted"):
        await run(database, "check-log", now=NOW)


async def test_more_rejected_events_than_were_counted_are_reported(
    ingest: Stub, database: Database
) -> None:
    await ingest.Append(batch(b"{}", b"[]", viewed("m1")), timeout=5)
    assert await run(database, "check-log", now=NOW) == 0
    async with database.begin() as transaction:
        await transaction.execute(
            update(verdict_hours)
            .where(verdict_hours.c.verdict == Verdict.REJECTED)
            .values(event_count=1)
        )

    with pytest.raises(LogNotWhole, match="rejected events"):
        await run(database, "check-log", now=NOW)


async def test_a_sum_of_no_known_verdict_is_reported(ingest: Stub, database: Database) -> None:
    await ingest.Append(batch(viewed("m1"), viewed("m1")), timeout=5)
    async with database.begin() as transaction:
        await transaction.execute(
            update(verdict_hours)
            .where(verdict_hours.c.verdict == Verdict.DUPLICATE)
            .values(verdict=9)
        )

    with pytest.raises(LogNotWhole, match="sums of verdicts"):
        await run(database, "check-log", now=NOW)


async def test_every_table_is_analysed(ingest: Stub, database: Database) -> None:
    await ingest.Append(batch(*(viewed(f"m{number}") for number in range(30))), timeout=5)

    assert await run(database, "analyse-tables", now=NOW) == 0

    if database.is_sqlite:
        async with database.read() as snapshot:
            known = (
                await snapshot.execute(text("SELECT DISTINCT tbl FROM sqlite_stat1"))
            ).scalars()
            assert {"events", "log_heads", "verdict_hours"} <= set(known)
