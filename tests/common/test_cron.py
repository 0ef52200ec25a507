"""A scheduled time is run once: the ledger, the fence and the mutex, through the front door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import REGISTRY, Gauge
from redis.asyncio import Redis
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron import ledger
from common.cron import servicer as cron
from common.cron.job import Batch, Job
from common.cron.runner import Patience
from common.cron.tables import cron_runs
from common.cron.trim_runs import trim_runs_job
from common.db import Database, database_now
from common.mutex import open_redis
from common.page_token import PageTokens
from common.uid import new_uid
from shoptrail.maintenance.v1 import job_pb2, maintenance_pb2, maintenance_pb2_grpc
from tests.conftest import Databases, Serving

HOUR = timedelta(hours=1)
RAN = maintenance_pb2.RUN_CRON_OUTCOME_RAN
ALREADY_RAN = maintenance_pb2.RUN_CRON_OUTCOME_ALREADY_RAN
ALREADY_RUNNING = maintenance_pb2.RUN_CRON_OUTCOME_ALREADY_RUNNING
CONTINUES = maintenance_pb2.RUN_CRON_OUTCOME_CONTINUES


@dataclass(slots=True)
class Work:
    """A job of ten batches, whose course the test sets."""

    batches: list[str] = field(default_factory=list)
    fail_at: int | None = None
    pause_at: int | None = None
    pausing: asyncio.Event = field(default_factory=asyncio.Event)
    resume: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    seconds: float = 0.0

    async def run_batch(self, transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
        number = int(cursor or 0)
        if number == self.pause_at:
            self.pause_at = None
            self.pausing.set()
            await self.resume.wait()
        if number == self.fail_at:
            self.fail_at = None
            raise RuntimeError("planted")
        await asyncio.sleep(self.seconds)
        self.batches.append(cursor)
        self.begun.set()
        return Batch(row_count=3, done=number == 9, cursor=str(number + 1))


@dataclass(frozen=True, slots=True)
class Scene:
    work: Work
    database: Database
    redis: Redis
    servicer: cron.CronServicer
    jobs: maintenance_pb2_grpc.MaintenanceAsyncStub

    async def run(
        self, scheduled_time: datetime | None = None, *, job: str = "work", timeout: float = 10
    ) -> maintenance_pb2.RunCronResponse:
        request = maintenance_pb2.RunCronRequest(job=job)
        if scheduled_time:
            request.scheduled_time.FromDatetime(scheduled_time)
        return await self.jobs.RunCron(request, timeout=timeout)

    async def end_leases(self) -> None:
        """As if the time that a silent holder has had passed."""
        async with self.database.begin() as transaction:
            await transaction.execute(
                update(cron_runs).values(lease_time=datetime(2020, 1, 1, tzinfo=UTC))
            )


@pytest.fixture
async def scene(
    databases: Databases, serving: Serving, redis_urls: Mapping[str, str]
) -> AsyncIterator[Scene]:
    work = Work()
    job = Job(name="work", description="Works.", period=HOUR, run_batch=work.run_batch)
    redis = open_redis(redis_urls["maintenance"])
    async with databases("maintenance") as database, aclosing(redis):
        servicer = cron.CronServicer(
            "maintenance",
            database=database,
            redis=redis,
            jobs=[job, trim_runs_job()],
            page_tokens=PageTokens(bytes(32)),
            patience=Patience(lease=timedelta(seconds=30), mutex_seconds=0.3),
        )
        async with serving(
            [cron.SERVICE],
            lambda server: maintenance_pb2_grpc.add_MaintenanceServicer_to_server(servicer, server),
        ) as connect:
            jobs = maintenance_pb2_grpc.MaintenanceStub(connect("cron"))
            yield Scene(work, database, redis, servicer, jobs)


def this_hour() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


async def test_a_scheduled_time_runs_once_however_often_it_is_called(scene: Scene) -> None:
    first = await scene.run(this_hour())
    again = await scene.run(this_hour())

    assert (first.outcome, again.outcome) == (RAN, ALREADY_RAN)
    assert first.run == again.run
    assert first.run.state == job_pb2.RUN_STATE_SUCCEEDED
    assert (first.run.row_count, first.run.attempt_count, first.run.caller) == (30, 1, "cron")
    assert len(scene.work.batches) == 10


async def test_the_latest_scheduled_time_is_run_where_none_is_named(scene: Scene) -> None:
    answer = await scene.run()

    assert answer.run.scheduled_time.ToDatetime(tzinfo=UTC) == this_hour()


async def test_of_many_callers_at_the_same_time_one_runs_it(scene: Scene) -> None:
    answers = await asyncio.gather(*(scene.run(this_hour()) for _ in range(16)))

    outcomes = [answer.outcome for answer in answers]
    assert outcomes.count(RAN) == 1
    assert set(outcomes) <= {RAN, ALREADY_RAN, ALREADY_RUNNING}
    assert len(scene.work.batches) == 10


async def test_another_scheduled_time_waits_until_the_job_is_free(scene: Scene) -> None:
    scene.work.pause_at = 4
    running = asyncio.create_task(scene.run(this_hour() - HOUR))
    await scene.work.pausing.wait()

    meanwhile = await scene.run(this_hour()) if not _is_sqlite(scene) else None
    scene.work.resume.set()
    await running
    afterwards = await scene.run(this_hour())

    assert meanwhile is None or meanwhile.outcome == ALREADY_RUNNING
    assert afterwards.outcome == RAN


async def test_out_of_time_it_goes_on_with_the_next_call(scene: Scene) -> None:
    scene.work.seconds = 0.1

    first = await scene.run(this_hour(), timeout=1.0)
    second = await scene.run(this_hour())

    assert first.outcome == CONTINUES
    assert first.run.state == job_pb2.RUN_STATE_RUNNING
    assert second.outcome == RAN
    assert (second.run.attempt_count, second.run.row_count) == (2, 30)
    assert scene.work.batches == ["", *(str(number) for number in range(1, 10))]


async def test_a_job_that_fails_is_tried_again_from_where_it_stopped(scene: Scene) -> None:
    scene.work.fail_at = 5

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scene.run(this_hour())
    again = await scene.run(this_hour())

    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "planted" not in str(caught.value.details())
    assert again.outcome == RAN
    assert (again.run.attempt_count, again.run.row_count) == (2, 30)
    assert len(scene.work.batches) == 10


async def test_a_run_whose_holder_is_gone_is_taken_over_and_not_lost(scene: Scene) -> None:
    scene.work.seconds = 0.1
    await scene.run(this_hour(), timeout=1.0)
    async with scene.database.begin() as transaction:
        # The holder went without a word: its lease has not ended.
        await transaction.execute(
            update(cron_runs).values(lease_time=datetime(2200, 1, 1, tzinfo=UTC))
        )

    too_early = await scene.run(this_hour())
    await scene.end_leases()
    taken_over = await scene.run(this_hour())

    assert too_early.outcome == ALREADY_RUNNING
    assert taken_over.outcome == RAN
    assert taken_over.run.row_count == 30
    assert len(scene.work.batches) == 10


async def test_a_holder_that_was_overtaken_cannot_write(scene: Scene) -> None:
    scene.work.seconds = 0.05
    running = asyncio.create_task(scene.run(this_hour()))
    await scene.work.begun.wait()
    async with scene.database.begin() as transaction:
        await transaction.execute(update(cron_runs).values(fence=cron_runs.c.fence + 1))
        before = await transaction.scalar(select(cron_runs.c.row_count))

    overtaken = await running

    assert overtaken.outcome == ALREADY_RUNNING
    async with scene.database.read() as snapshot:
        assert await snapshot.scalar(select(cron_runs.c.row_count)) == before


async def test_a_holder_that_was_silent_cannot_write_beside_a_run_of_an_earlier_time(
    scene: Scene,
) -> None:
    scene.work.seconds = 0.05
    running = asyncio.create_task(scene.run(this_hour()))
    await scene.work.begun.wait()
    async with scene.database.begin() as transaction:
        await ledger.claim_run(
            transaction,
            job="work",
            scheduled_time=this_hour() - HOUR,
            fence=await ledger.lock_fence(transaction, "work"),
            caller="cron",
            now=datetime.now(UTC),
            lease=HOUR,
        )

    overtaken = await running

    assert overtaken.outcome == ALREADY_RUNNING
    assert overtaken.run.state == job_pb2.RUN_STATE_RUNNING


async def test_a_process_that_is_told_to_stop_ends_with_the_batch_and_leaves_the_rest(
    scene: Scene,
) -> None:
    scene.work.pause_at = 4
    running = asyncio.create_task(scene.run(this_hour()))
    await scene.work.pausing.wait()

    scene.servicer.stop()
    scene.work.resume.set()
    stopped = await running
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await scene.run(this_hour())

    assert stopped.outcome == CONTINUES
    assert stopped.run.row_count == 15
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not await scene.redis.exists("maintenance:mutex:work")
    async with scene.database.begin() as transaction:
        now = await database_now(transaction)
        assert await ledger.find_run_at_work(transaction, "work", now) is None


async def test_a_caller_that_goes_away_leaves_a_run_that_the_next_one_goes_on_with(
    scene: Scene,
) -> None:
    scene.work.pause_at = 4
    running = asyncio.create_task(scene.run(this_hour()))
    await scene.work.pausing.wait()
    running.cancel()

    outcome = ALREADY_RUNNING
    async with asyncio.timeout(5):  # Far less than the lease.
        while outcome == ALREADY_RUNNING:
            answer = await scene.run(this_hour())
            outcome = answer.outcome

    assert outcome == RAN
    assert (answer.run.attempt_count, answer.run.row_count) == (2, 30)
    assert len(scene.work.batches) == 10


async def test_a_run_whose_mutex_was_taken_away_stops_and_is_gone_on_with(scene: Scene) -> None:
    scene.work.pause_at = 4
    running = asyncio.create_task(scene.run(this_hour()))
    await scene.work.pausing.wait()

    await scene.redis.set("maintenance:mutex:work", "another's", px=200)
    lost = await running
    async with asyncio.timeout(5):
        while (await scene.run(this_hour())).outcome != RAN:
            pass

    assert lost.outcome == CONTINUES
    assert lost.run.row_count == 12
    assert len(scene.work.batches) == 10


async def test_a_scheduled_time_may_be_told_in_minutes_as_kubernetes_names_its_jobs(
    scene: Scene,
) -> None:
    minute = int(this_hour().timestamp()) // 60
    request = maintenance_pb2.RunCronRequest(job="work", scheduled_minute=minute)

    answer = await scene.jobs.RunCron(request, timeout=5)
    again = await scene.run(this_hour())

    assert (answer.outcome, again.outcome) == (RAN, ALREADY_RAN)


@pytest.mark.parametrize("minute", [-1, 0, 1, 2**31, 2**63 - 1, -(2**63)])
async def test_a_minute_that_the_job_is_not_due_at_is_refused(scene: Scene, minute: int) -> None:
    request = maintenance_pb2.RunCronRequest(job="work", scheduled_minute=minute)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scene.jobs.RunCron(request, timeout=5)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "scheduled_minute" in str(caught.value.details())


async def test_a_time_and_a_minute_together_are_refused(scene: Scene) -> None:
    request = maintenance_pb2.RunCronRequest(job="work", scheduled_minute=0)
    request.scheduled_time.FromDatetime(this_hour())

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scene.jobs.RunCron(request, timeout=5)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_metrics_tell_the_last_success_and_what_is_overdue(scene: Scene) -> None:
    await _measured_as(scene, overdue=0)

    await scene.run(this_hour() - 3 * HOUR)

    await _measured_as(scene, overdue=1)
    last_success = REGISTRY.get_sample_value("cron_last_success_timestamp_seconds", {"job": "work"})
    assert last_success == (this_hour() - 3 * HOUR).timestamp()
    assert REGISTRY.get_sample_value("cron_overdue", {"job": "trim-runs"}) == 0


async def _measured_as(scene: Scene, *, overdue: int) -> None:
    async with scene.servicer.measured(), asyncio.timeout(5):
        while REGISTRY.get_sample_value("cron_overdue", {"job": "work"}) != overdue:
            await scene.jobs.ListJobs(maintenance_pb2.ListJobsRequest(), timeout=5)


async def test_a_later_scheduled_time_does_the_work_of_one_that_was_never_finished(
    scene: Scene,
) -> None:
    scene.work.fail_at = 5
    with pytest.raises(grpc.aio.AioRpcError):
        await scene.run(this_hour() - HOUR)

    later = await scene.run(this_hour())
    earlier = await scene.run(this_hour() - HOUR)

    assert later.outcome == RAN
    assert earlier.outcome == ALREADY_RAN
    assert earlier.run.state == job_pb2.RUN_STATE_SUPERSEDED


@pytest.mark.parametrize(
    "off",
    # Two hours, as the next one is taken in the last minute before it.
    [timedelta(minutes=1), 2 * HOUR, timedelta(days=-31), timedelta(microseconds=1)],
)
async def test_a_time_that_the_job_is_not_due_at_is_refused(scene: Scene, off: timedelta) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scene.run(this_hour() + off)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "scheduled_time" in str(caught.value.details())
    assert scene.work.batches == []


@pytest.mark.parametrize(("seconds", "taken"), [(59, True), (61, False)])
async def test_a_caller_may_be_a_minute_ahead_and_no_more(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, seconds: int, taken: bool
) -> None:
    due = this_hour() + HOUR

    async def before_it(_: AsyncConnection) -> datetime:
        return due - timedelta(seconds=seconds)

    monkeypatch.setattr(cron, "database_now", before_it)
    if taken:
        assert (await scene.run(due)).outcome == RAN
        return
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scene.run(due)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert scene.work.batches == []


async def test_a_job_that_is_unknown_is_not_found_and_the_known_ones_are_named(
    scene: Scene,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scene.run(job="wrok")

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "trim-runs, work" in str(caught.value.details())


async def test_jobs_are_listed_with_their_last_run_and_what_is_due(scene: Scene) -> None:
    await scene.run(this_hour() - HOUR)

    listed = await scene.jobs.ListJobs(maintenance_pb2.ListJobsRequest(), timeout=5)

    trim, work = listed.jobs
    assert (trim.name, work.name) == ("trim-runs", "work")
    assert work.last_run.scheduled_time.ToDatetime(tzinfo=UTC) == this_hour() - HOUR
    assert work.next_scheduled_time.ToDatetime(tzinfo=UTC) == this_hour() + HOUR
    assert not work.overdue
    assert not trim.HasField("last_run")


async def test_a_job_that_nobody_called_for_two_periods_is_overdue(scene: Scene) -> None:
    await scene.run(this_hour() - 3 * HOUR)

    listed = await scene.jobs.ListJobs(maintenance_pb2.ListJobsRequest(), timeout=5)

    assert [job.name for job in listed.jobs if job.overdue] == ["work"]


async def test_gauges_say_what_the_process_measures(scene: Scene) -> None:
    known = Gauge("test_gauge", "Made for this test.", ["shard"])
    known.labels("1").set(2.5)
    known.labels("0").set(7)

    try:
        listed = await scene.jobs.ListGauges(maintenance_pb2.ListGaugesRequest(), timeout=5)
    finally:
        REGISTRY.unregister(known)
    names = [gauge.name for gauge in listed.gauges]
    assert names == sorted(names)
    assert "process_resident_memory_bytes" in names
    ours = [gauge for gauge in listed.gauges if gauge.name == "test_gauge"]
    assert [(gauge.labels[0].name, gauge.labels[0].value, gauge.value) for gauge in ours] == [
        ("shard", "0", 7),
        ("shard", "1", 2.5),
    ]
    assert ours[0].description == "Made for this test."


async def test_runs_are_listed_page_by_page(scene: Scene) -> None:
    for hours in range(5):
        await scene.run(this_hour() - hours * HOUR)
    await scene.run(job="trim-runs")

    times: list[Timestamp] = []
    request = maintenance_pb2.ListRunsRequest(job="work", page_size=2)
    while True:
        page = await scene.jobs.ListRuns(request, timeout=5)
        times += [run.scheduled_time for run in page.runs]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token

    assert [time.ToDatetime(tzinfo=UTC) for time in times] == [
        this_hour() - hours * HOUR for hours in range(5)
    ]


async def test_old_records_are_trimmed_and_late_scheduled_times_still_refused(
    scene: Scene,
) -> None:
    old = this_hour() - timedelta(days=91)
    async with scene.database.begin() as transaction:
        await transaction.execute(
            insert(cron_runs),
            [
                {
                    "uid": new_uid("run"),
                    "job": "work",
                    "scheduled_time": old - number * HOUR,
                    "state": 2,
                    "fence": 1,
                    "lease_time": old,
                    "attempt_count": 1,
                    "row_count": 0,
                    "progress": "",
                    "caller": "cron",
                    "start_time": old,
                    "end_time": old,
                }
                for number in range(2500)
            ],
        )
    recent = await scene.run(this_hour())

    trimmed = await scene.run(job="trim-runs")

    assert trimmed.run.row_count == 2500
    listed = await scene.jobs.ListRuns(maintenance_pb2.ListRunsRequest(job="work"), timeout=5)
    assert [run.uid for run in listed.runs] == [recent.run.uid]


def _is_sqlite(scene: Scene) -> bool:
    return scene.database.is_sqlite
