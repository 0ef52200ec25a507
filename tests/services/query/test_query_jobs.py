from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from sqlalchemy import delete, update

from common.cron.tables import cron_runs
from common.db import database_now
from common.uid import new_uid
from services.query.change_repository import Copy, put_copy
from services.query.tables import recorded_events, tallies
from shoptrail.maintenance.v1.job_pb2 import RunState
from shoptrail.maintenance.v1.maintenance_pb2 import (
    ListJobsRequest,
    RunCronOutcome,
    RunCronRequest,
)
from tests.services.query.fake_ingest import happened
from tests.services.query.scene import Scene


def an_hour_of_yesterday() -> datetime:
    """A time in the hour that is checked now."""
    now = datetime.now(UTC)
    return now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=23, minutes=30)


async def project_some(scene: Scene) -> None:
    time = an_hour_of_yesterday()
    await scene.project(
        happened(scene.store_uid, at=time),
        happened(scene.store_uid, at=time),
        happened(scene.store_uid, "Order Completed", at=time + timedelta(minutes=20)),
        happened(scene.store_uid, at=time - timedelta(days=40)),
        happened(new_uid("sto"), at=time),
    )


async def test_query_has_its_jobs(scene: Scene) -> None:
    jobs = (await scene.cron.ListJobs(ListJobsRequest(), timeout=5)).jobs

    assert [job.name for job in jobs] == [
        "analyse-tables",
        "check-counts",
        "check-listing",
        "clear-purged-stores",
        "drop-replaced-figures",
        "forget-column-copies",
        "note-silent-events",
        "trim-runs",
    ]


async def test_counts_that_are_right_pass_the_check(scene: Scene) -> None:
    await project_some(scene)

    response = await scene.cron.RunCron(RunCronRequest(job="check-counts"), timeout=10)

    assert response.outcome == RunCronOutcome.RUN_CRON_OUTCOME_RAN
    assert response.run.state == RunState.RUN_STATE_SUCCEEDED


@pytest.mark.parametrize("fault", ["count too many", "count lost", "event lost"])
async def test_counts_that_are_wrong_fail_the_check_and_are_left_as_they_are(
    scene: Scene, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    await project_some(scene)
    statement = {
        "count too many": update(tallies)
        .where(tallies.c.store_uid == scene.store_uid, tallies.c.tally == 2)
        .values(tally=3),
        "count lost": delete(tallies).where(tallies.c.name == "Order Completed"),
        "event lost": delete(recorded_events).where(recorded_events.c.id == 2),
    }[fault]
    async with scene.database.begin() as transaction:
        assert (await transaction.execute(statement)).rowcount == 1

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await scene.cron.RunCron(RunCronRequest(job="check-counts"), timeout=10)

    assert failure.value.code() is grpc.StatusCode.INTERNAL
    [line] = [record for record in caplog.records if record.msg == "counts differ from events"]
    assert line.__dict__["store_uid"] == scene.store_uid
    assert line.__dict__["name_count"] == 1


async def test_an_event_that_is_not_listed_fails_the_check_of_the_listing(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await project_some(scene)
    whole = await scene.cron.RunCron(RunCronRequest(job="check-listing"), timeout=10)
    assert whole.run.state == RunState.RUN_STATE_SUCCEEDED
    async with scene.database.begin() as transaction:
        gone = await transaction.execute(delete(recorded_events).where(recorded_events.c.id == 2))
        assert gone.rowcount == 1
        await transaction.execute(delete(cron_runs))

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await scene.cron.RunCron(RunCronRequest(job="check-listing"), timeout=10)

    assert failure.value.code() is grpc.StatusCode.INTERNAL
    [line] = [record for record in caplog.records if record.msg == "listing is not whole"]
    assert (line.__dict__["expected"], line.__dict__["found"]) == (5, 4)


async def test_columns_of_a_replica_that_is_gone_are_forgotten(scene: Scene) -> None:
    async with scene.database.begin() as transaction:
        now = await database_now(transaction)
        for hours in (1, 25):
            copy = Copy(new_uid("copy"), shard=0, change_number=0)
            await put_copy(transaction, copy, now - timedelta(hours=hours))

    answer = await scene.cron.RunCron(RunCronRequest(job="forget-column-copies"), timeout=10)

    assert answer.run.row_count == 1
