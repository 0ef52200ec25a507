"""Serves `shoptrail.maintenance.v1.Maintenance` for one service's own jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from redis.asyncio import Redis

from common.context import Call, get_call
from common.cron import ledger
from common.cron.job import Job
from common.cron.runner import JobFailed, JobRunner, Patience, Stopping, count_failures_of
from common.cron.timetable import Timetable
from common.cron.trim_runs import CATCH_UP
from common.db import Database, database_now
from common.errors import DependencyUnavailable, InternalError, InvalidRequest, NotFound
from common.interceptors.wrap import Context
from common.metrics import read_gauges
from common.page_token import PageTokens, read_page_size
from shoptrail.maintenance.v1 import job_pb2, maintenance_pb2, maintenance_pb2_grpc

SERVICE = maintenance_pb2.DESCRIPTOR.services_by_name["Maintenance"].full_name

_CLOCK_TOLERANCE = timedelta(minutes=1)
# Kept back of the call's time, to close the run and answer.
_RESERVE_SECONDS = 0.5
_MEASURED_EVERY_SECONDS = 15.0
_LATEST_MINUTE = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) // 60


class CronServicer(maintenance_pb2_grpc.MaintenanceServicer):
    """Checks a request, then hands it to the runner or the ledger."""

    def __init__(
        self,
        service: str,
        *,
        database: Database,
        redis: Redis,
        jobs: Sequence[Job],
        page_tokens: PageTokens,
        patience: Patience | None = None,
    ) -> None:
        self._database = database
        self._jobs = {job.name: job for job in sorted(jobs, key=lambda job: job.name)}
        self._page_tokens = page_tokens
        self._runner = JobRunner(
            service, database=database, redis=redis, patience=patience or Patience()
        )
        for name in self._jobs:
            count_failures_of(name)
        self._timetable = Timetable(list(self._jobs.values()), database=database)

    def stop(self) -> None:
        """Let the batch that is under way be the last, since the process is about to end.

        Whoever calls next goes on from there, on another replica, without waiting
        for the lease to run out.
        """
        self._runner.stop()

    def measured(self) -> AbstractAsyncContextManager[None]:
        """Keep the metrics of last success and overdue true for the block."""
        return self._timetable.measured(every_seconds=_MEASURED_EVERY_SECONDS)

    async def RunCron(
        self, request: maintenance_pb2.RunCronRequest, context: Context
    ) -> maintenance_pb2.RunCronResponse:
        job = self._find_job(request.job)
        async with self._database.read() as snapshot:
            now = await database_now(snapshot)
        scheduled_time = _read_scheduled_time(request, job, now)
        call = get_call()
        remaining = call.remaining_seconds() or 0.0
        try:
            outcome, run = await self._runner.run(
                job,
                scheduled_time,
                caller=_describe_caller(call),
                until=time.monotonic() + remaining - _RESERVE_SECONDS,
            )
        except JobFailed:
            raise InternalError from None  # The runner has logged it.
        except Stopping:
            raise DependencyUnavailable from None
        return maintenance_pb2.RunCronResponse(
            outcome=maintenance_pb2.RunCronOutcome.Value(f"RUN_CRON_OUTCOME_{outcome.name}"),
            run=_as_message(run) if run else None,
        )

    async def ListJobs(
        self, request: maintenance_pb2.ListJobsRequest, context: Context
    ) -> maintenance_pb2.ListJobsResponse:
        response = maintenance_pb2.ListJobsResponse()
        async with self._database.read() as snapshot:
            entries = await self._timetable.read(snapshot)
        for entry in entries:
            message = response.jobs.add(
                name=entry.job.name,
                description=entry.job.description,
                next_scheduled_time=_as_timestamp(entry.next_scheduled_time),
                last_run=_as_message(entry.last_run) if entry.last_run else None,
                overdue=entry.overdue,
            )
            message.period.FromTimedelta(entry.job.period)
        return response

    async def ListRuns(
        self, request: maintenance_pb2.ListRunsRequest, context: Context
    ) -> maintenance_pb2.ListRunsResponse:
        if request.job:
            self._find_job(request.job)
        page_size = read_page_size(request.page_size, default=50, largest=500)
        place = self._page_tokens.open(request)
        before = (datetime.fromisoformat(place[0]), int(place[1])) if place else None
        async with self._database.read() as snapshot:
            runs = await ledger.list_runs(
                snapshot, job=request.job, before=before, limit=page_size + 1
            )
        response = maintenance_pb2.ListRunsResponse(
            runs=[_as_message(run) for run in runs[:page_size]]
        )
        if len(runs) > page_size:
            last = runs[page_size - 1]
            response.next_page_token = self._page_tokens.seal(
                request, [last.scheduled_time.isoformat(), last.id]
            )
        return response

    async def ListGauges(
        self, request: maintenance_pb2.ListGaugesRequest, context: Context
    ) -> maintenance_pb2.ListGaugesResponse:
        return maintenance_pb2.ListGaugesResponse(
            gauges=[
                maintenance_pb2.Gauge(
                    name=reading.name,
                    description=reading.description,
                    labels=[
                        maintenance_pb2.GaugeLabel(name=name, value=value)
                        for name, value in sorted(reading.labels.items())
                    ],
                    value=reading.value,
                )
                for reading in read_gauges()
            ]
        )

    def _find_job(self, name: str) -> Job:
        job = self._jobs.get(name)
        if job is None:
            known = ", ".join(self._jobs)
            raise NotFound(f"There is no such job here. The jobs are: {known}.", {"job": name[:64]})
        return job


def _read_scheduled_time(
    request: maintenance_pb2.RunCronRequest, job: Job, now: datetime
) -> datetime:
    """The scheduled time that is asked for; raises `InvalidRequest` if the job has none such."""
    if request.HasField("scheduled_time") and request.HasField("scheduled_minute"):
        raise InvalidRequest({"scheduled_minute": "excludes scheduled_time"})
    if request.HasField("scheduled_minute"):
        field = "scheduled_minute"
        if not 0 <= request.scheduled_minute <= _LATEST_MINUTE:
            raise InvalidRequest({field: "is not a count of minutes since 1970"})
        time = datetime.fromtimestamp(request.scheduled_minute * 60, tz=UTC)
    elif request.HasField("scheduled_time"):
        field = "scheduled_time"
        try:
            time = request.scheduled_time.ToDatetime(tzinfo=UTC)
        except ValueError:
            raise InvalidRequest({field: "is not a time"}) from None
    else:
        return job.latest_scheduled_time(now)
    if not job.is_scheduled(time):
        seconds = int(job.period.total_seconds())
        raise InvalidRequest({field: f"must be a multiple of {seconds} s since 1970"})
    if time > now + _CLOCK_TOLERANCE:
        raise InvalidRequest({field: "lies in the future"})
    if time < now - CATCH_UP:
        raise InvalidRequest({field: f"lies more than {CATCH_UP.days} days back"})
    return time


def _describe_caller(call: Call) -> str:
    return f"{call.identity} {call.key.uid}" if call.key else call.identity


def _as_message(run: ledger.Run) -> job_pb2.Run:
    return job_pb2.Run(
        uid=run.uid,
        job=run.job,
        scheduled_time=_as_timestamp(run.scheduled_time),
        state=job_pb2.RunState.Value(f"RUN_STATE_{run.state.name}"),
        caller=run.caller,
        attempt_count=run.attempt_count,
        row_count=run.row_count,
        start_time=_as_timestamp(run.start_time),
        end_time=_as_timestamp(run.end_time) if run.end_time else None,
    )


def _as_timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message
