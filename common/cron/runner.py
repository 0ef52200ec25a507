"""Runs a job for a scheduled time once, however often and by however many it is asked to."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from prometheus_client import Counter, Gauge, Histogram
from redis.asyncio import Redis

from common.cron import ledger
from common.cron.job import Job
from common.cron.ledger import Run, State
from common.db import Database, database_now
from common.log import describe_failure
from common.mutex import hold

log = logging.getLogger(__name__)

_CALLS = Counter("cron_calls", "Calls of RunCron, by what they did.", ["job", "outcome"])
_LAST_SUCCESS = Gauge(
    "cron_last_success_timestamp_seconds", "When a run of the job last succeeded.", ["job"]
)
_SECONDS = Histogram("cron_attempt_seconds", "How long attempts at a run worked.", ["job"])


class Outcome(Enum):
    """What a call did, by the names of `RunCronOutcome` in the proto."""

    RAN = auto()
    ALREADY_RAN = auto()
    ALREADY_RUNNING = auto()
    CONTINUES = auto()


class JobFailed(Exception):
    """The job raised an error, which the log describes."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an attempt may be silent before another takes its run over."""

    lease: timedelta = timedelta(seconds=30)
    mutex_seconds: float = 30.0


class JobRunner:
    """Keeps runs of a service's jobs apart, and their effects exactly once.

    The Redis mutex saves others the work. What makes it right is the ledger in
    the service's own database: a scheduled time has one run, and each batch
    commits its effect together with its progress, under a fence that only the
    latest attempt holds.
    """

    def __init__(
        self, service: str, *, database: Database, redis: Redis, patience: Patience
    ) -> None:
        self._service = service
        self._database = database
        self._redis = redis
        self._patience = patience

    async def run(
        self, job: Job, scheduled_time: datetime, *, caller: str, until: float
    ) -> tuple[Outcome, Run | None]:
        """Do the job's work for a scheduled time, until it is done or the time is up.

        `until` is by the monotonic clock. Returns what was done and the run as it
        is now; no run if another holds the mutex for a run of another time. Raises
        `JobFailed` if the job did, and `RedisError` if the mutex can't be asked:
        then nothing was run.
        """
        async with self._database.read() as snapshot:
            known = await ledger.find_run(snapshot, job.name, scheduled_time)
        if known and known.state in (State.SUCCEEDED, State.SUPERSEDED):
            outcome: Outcome = Outcome.ALREADY_RAN
            run: Run | None = known
        else:
            name = f"{self._service}:mutex:{job.name}"
            async with hold(self._redis, name, life_seconds=self._patience.mutex_seconds) as held:
                if held:
                    outcome, run = await self._run_alone(job, scheduled_time, caller, until)
                else:
                    outcome, run = Outcome.ALREADY_RUNNING, known
        _CALLS.labels(job.name, outcome.name).inc()
        return outcome, run

    async def _run_alone(
        self, job: Job, scheduled_time: datetime, caller: str, until: float
    ) -> tuple[Outcome, Run | None]:
        async with self._database.begin() as transaction:
            fence = await ledger.lock_fence(transaction, job.name)
            now = await database_now(transaction)
            known = await ledger.find_run(transaction, job.name, scheduled_time)
            if known and known.state in (State.SUCCEEDED, State.SUPERSEDED):
                return Outcome.ALREADY_RAN, known
            if await ledger.find_run_at_work(transaction, job.name, now):
                return Outcome.ALREADY_RUNNING, known
            run = await ledger.claim_run(
                transaction,
                job=job.name,
                scheduled_time=scheduled_time,
                fence=fence,
                caller=caller,
                now=now,
                lease=self._patience.lease,
            )
        with _SECONDS.labels(job.name).time():
            outcome = await self._work(job, run, until)
        if outcome is Outcome.RAN:
            _LAST_SUCCESS.labels(job.name).set_to_current_time()
        async with self._database.read() as snapshot:
            return outcome, await ledger.find_run(snapshot, job.name, scheduled_time)

    async def _work(self, job: Job, run: Run, until: float) -> Outcome:
        progress = run.progress
        try:
            while time.monotonic() < until:
                async with self._database.begin() as transaction:
                    now = await database_now(transaction)
                    await ledger.check_fence(transaction, run, now=now, lease=self._patience.lease)
                    batch = await job.run_batch(transaction, cursor=progress, now=now)
                    await ledger.record_batch(
                        transaction, run, row_count=batch.row_count, progress=batch.cursor
                    )
                    if batch.done:
                        await ledger.end_run(transaction, run, State.SUCCEEDED, now)
                progress = batch.cursor
                if batch.done:
                    return Outcome.RAN
            async with self._database.begin() as transaction:
                await ledger.release_run(transaction, run, await database_now(transaction))
            return Outcome.CONTINUES
        except ledger.Fenced:
            log.warning("run was taken over", extra={"job": job.name, "run_uid": run.uid})
            return Outcome.ALREADY_RUNNING
        except Exception as error:
            log.error(
                "job failed",
                extra={"job": job.name, "run_uid": run.uid, **describe_failure(error)},
            )
            async with self._database.begin() as transaction:
                await ledger.end_run(
                    transaction, run, State.FAILED, await database_now(transaction)
                )
            raise JobFailed(job.name) from error
