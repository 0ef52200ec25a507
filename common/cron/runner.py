"""Runs a job for a scheduled time once, however often and by however many it is asked to."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from prometheus_client import Counter, Histogram
from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError

from common.cron import ledger
from common.cron.job import Job
from common.cron.ledger import Run, State
from common.db import Database, database_now
from common.log import describe_failure
from common.mutex import MutexLost, hold

log = logging.getLogger(__name__)

_CALLS = Counter("cron_calls", "Calls of RunCron, by what they did.", ["job", "outcome"])
_FAILURES = Counter("cron_failures", "Attempts that a job's own error ended.", ["job"])
_LONGEST_PAUSE_SECONDS = 0.25
_SECONDS = Histogram("cron_attempt_seconds", "How long attempts at a run worked.", ["job"])


def count_failures_of(job: str) -> None:
    """Say that the job has not failed yet: what grows from nothing can't be seen to grow."""
    _FAILURES.labels(job)


class Outcome(Enum):
    """What a call did, by the names of `RunCronOutcome` in the proto."""

    RAN = auto()
    ALREADY_RAN = auto()
    ALREADY_RUNNING = auto()
    CONTINUES = auto()


class JobFailed(Exception):
    """The job raised an error, which the log describes."""


class Stopping(Exception):
    """This process is about to end and begins nothing more."""


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
        self._stopping = False

    def stop(self) -> None:
        """Let the batch that is under way be the last."""
        self._stopping = True

    async def run(
        self, job: Job, scheduled_time: datetime, *, caller: str, until: float
    ) -> tuple[Outcome, Run | None]:
        """Do the job's work for a scheduled time, until it is done or the time is up.

        `until` is by the monotonic clock. Returns what was done and the run as it
        is now; no run if another holds the mutex for a run of another time. Raises
        `JobFailed` if the job did, `RedisError` if the mutex can't be asked and
        `Stopping` after `stop`: then nothing was run.
        """
        if self._stopping:
            raise Stopping
        async with self._database.read() as snapshot:
            known = await ledger.find_run(snapshot, job.name, scheduled_time)
        if known and known.state in (State.SUCCEEDED, State.SUPERSEDED):
            outcome: Outcome = Outcome.ALREADY_RAN
            run: Run | None = known
        else:
            name = f"{self._service}:mutex:{job.name}"
            life_seconds = self._patience.mutex_seconds
            try:
                async with hold(self._redis, name, life_seconds=life_seconds) as held:
                    if held:
                        outcome, run = await self._run_alone(job, scheduled_time, caller, until)
                    else:
                        outcome, run = Outcome.ALREADY_RUNNING, known
            except MutexLost:
                # It only saves work. What was committed counts, and the rest is done by the
                # next call, which another may have made already.
                log.warning("mutex was lost", extra={"job": job.name})
                async with self._database.read() as snapshot:
                    run = await ledger.find_run(snapshot, job.name, scheduled_time)
                outcome = Outcome.CONTINUES
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
        async with self._database.read() as snapshot:
            return outcome, await ledger.find_run(snapshot, job.name, scheduled_time)

    async def _work(self, job: Job, run: Run, until: float) -> Outcome:
        progress = run.progress
        try:
            while (began := time.monotonic()) < until and not self._stopping:
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
                # Half of the time is theirs whom the process serves meanwhile.
                await asyncio.sleep(min(time.monotonic() - began, _LONGEST_PAUSE_SECONDS))
            await self._release(run)
            return Outcome.CONTINUES
        except ledger.Fenced:
            log.warning("run was taken over", extra={"job": job.name, "run_uid": run.uid})
            return Outcome.ALREADY_RUNNING
        except asyncio.CancelledError:
            # The caller has gone, or the mutex: nobody need wait for the lease to run out.
            await asyncio.shield(self._let_go(run))
            raise
        except Exception as error:
            _FAILURES.labels(job.name).inc()
            log.error(
                "job failed",
                extra={"job": job.name, "run_uid": run.uid, **describe_failure(error)},
            )
            try:
                async with self._database.begin() as transaction:
                    await ledger.end_run(
                        transaction, run, State.FAILED, await database_now(transaction)
                    )
            except ledger.Fenced:
                return Outcome.ALREADY_RUNNING  # It is another's, and not ours to close.
            if isinstance(error, SQLAlchemyError):
                raise  # Whether it may be tried again is told by what the database said.
            raise JobFailed(job.name) from error

    async def _release(self, run: Run) -> None:
        async with self._database.begin() as transaction:
            await ledger.release_run(transaction, run, await database_now(transaction))

    async def _let_go(self, run: Run) -> None:
        """Release the run if that can be done; if not, its lease runs out by itself."""
        with suppress(ledger.Fenced, SQLAlchemyError, OSError):
            await self._release(run)
