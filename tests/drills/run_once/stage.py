"""Real servers and replicas to break, callers that never give up, and a count of what was done."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import grpc
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from common.client import open_channel
from common.cron.ledger import State
from common.cron.servicer import SERVICE
from common.cron.tables import cron_runs
from common.db import Database
from common.tls import Certificates
from deploy.local import ports
from deploy.local.certificates import CertificateFiles
from deploy.local.mariadb import MariadbServer
from deploy.local.processes import on_leash
from deploy.local.redis import RedisServer
from shoptrail.maintenance.v1 import maintenance_pb2 as pb
from shoptrail.maintenance.v1 import maintenance_pb2_grpc
from tests.drills.run_once.replica import JOB, effects

RAN = pb.RUN_CRON_OUTCOME_RAN
ALREADY_RAN = pb.RUN_CRON_OUTCOME_ALREADY_RAN
ALREADY_RUNNING = pb.RUN_CRON_OUTCOME_ALREADY_RUNNING

_CHECKOUT = Path(__file__).parents[3]
# What a scheduler would see as "not now": it calls again.
_PASSING = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)


@dataclass(frozen=True, slots=True)
class Work:
    """How the replicas' job goes."""

    batch_count: int
    batch_seconds: float
    lease_seconds: float
    guard: str = "ledger"


@dataclass(slots=True)
class Replica:
    """A process that serves, and a channel to it."""

    process: asyncio.subprocess.Process
    jobs: maintenance_pb2_grpc.MaintenanceAsyncStub
    call_count: int = 0

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self.process.send_signal(number)

    async def run(
        self, scheduled_time: datetime | None, *, timeout: float = 60
    ) -> pb.RunCronResponse:
        """Call it once, as cron."""
        self.call_count += 1
        request = pb.RunCronRequest(job=JOB)
        if scheduled_time is not None:
            request.scheduled_time.FromDatetime(scheduled_time)
        return await self.jobs.RunCron(request, timeout=timeout)

    async def run_until_done(self, scheduled_time: datetime) -> pb.RunCronResponse:
        """Call it until the scheduled time has run, whatever it answers meanwhile."""
        while True:
            try:
                answer = await self.run(scheduled_time)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _PASSING:
                    raise
            else:
                if answer.outcome in (RAN, ALREADY_RAN):
                    return answer
            await asyncio.sleep(0.05)  # A scheduler's pause between two calls.


@dataclass(frozen=True, slots=True)
class Count:
    """What was done for some scheduled times."""

    slot_count: int
    once_count: int
    """Of how many all batches were done, and each of them once."""
    attempt_counts: Mapping[datetime, int]


@dataclass(frozen=True, slots=True)
class Stage:
    """The servers that the replicas share."""

    mariadb: MariadbServer
    redis: RedisServer
    other_redis: RedisServer
    database: Database
    files: CertificateFiles
    certificates: Certificates
    log: Path

    @asynccontextmanager
    async def replica(
        self,
        work: Work,
        *,
        redis: RedisServer | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Replica]:
        """A process that serves for the block, unless a drill ends it earlier."""
        with ports.reserved(1) as (port,):
            with self.log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *on_leash(sys.executable, "-m", "tests.drills.run_once.replica"),
                    cwd=_CHECKOUT,
                    env={
                        **os.environ,
                        **(environment or {}),
                        "DRILL_LISTEN_ADDRESS": f"127.0.0.1:{port}",
                        "DRILL_METRICS_ADDRESS": "127.0.0.1:0",
                        "DRILL_DATABASE_URL": self.mariadb.url("maintenance"),
                        "DRILL_REDIS_URL": (redis or self.redis).url("maintenance"),
                        "DRILL_PAGE_TOKEN_KEY": "00" * 32,
                        "DRILL_TLS_CERTIFICATE": str(self.files.certificate),
                        "DRILL_TLS_KEY": str(self.files.key),
                        "DRILL_TLS_AUTHORITY": str(self.files.authority),
                        "DRILL_DRAIN_SECONDS": "0",
                        "DRILL_GRACE_SECONDS": "2",
                        "DRILL_LOG_LEVEL": "warning",
                        "DRILL_GUARD": work.guard,
                        "DRILL_LEASE_SECONDS": str(work.lease_seconds),
                        "DRILL_BATCH_COUNT": str(work.batch_count),
                        "DRILL_BATCH_SECONDS": str(work.batch_seconds),
                    },
                    stderr=log,
                )
            try:
                async with open_channel(
                    f"127.0.0.1:{port}", SERVICE, "localhost", self.certificates
                ) as channel:
                    jobs = maintenance_pb2_grpc.MaintenanceStub(channel)
                    await jobs.ListJobs(pb.ListJobsRequest(), timeout=30, wait_for_ready=True)
                    yield Replica(process, jobs)
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()

    @asynccontextmanager
    async def replicas(self, count: int, work: Work) -> AsyncIterator[Sequence[Replica]]:
        """Some of them, all alike."""
        async with AsyncExitStack() as stack:
            yield await asyncio.gather(
                *(stack.enter_async_context(self.replica(work)) for _ in range(count))
            )

    async def effect_count(self, scheduled_time: datetime) -> int:
        """How many batches of a scheduled time are committed."""
        statement = select(func.count()).where(effects.c.scheduled_time == scheduled_time)
        async with self.database.read() as snapshot:
            return await snapshot.scalar(statement) or 0

    async def wait_for_effects(self, scheduled_time: datetime, count: int) -> None:
        """Return once that many batches are committed."""
        async with asyncio.timeout(30):
            while await self.effect_count(scheduled_time) < count:
                pass

    async def holds_its_row(self, scheduled_time: datetime) -> bool:
        """Whether a transaction of the run is open now."""
        statement = (
            select(cron_runs.c.id)
            .where(cron_runs.c.scheduled_time == scheduled_time)
            .with_for_update(nowait=True)
        )
        try:
            async with self.database.begin() as transaction:
                await transaction.execute(statement)
        except OperationalError:
            return True
        return False

    async def count(self, scheduled_times: Sequence[datetime], work: Work) -> Count:
        """What was done for these scheduled times."""
        done = (
            select(
                effects.c.scheduled_time,
                func.count().label("row_count"),
                func.count(effects.c.number.distinct()).label("batch_count"),
            )
            .where(effects.c.scheduled_time.in_(scheduled_times))
            .group_by(effects.c.scheduled_time)
        )
        succeeded = select(cron_runs.c.scheduled_time, cron_runs.c.attempt_count).where(
            cron_runs.c.scheduled_time.in_(scheduled_times), cron_runs.c.state == State.SUCCEEDED
        )
        async with self.database.read() as snapshot:
            rows = (await snapshot.execute(done)).all()
            runs = (await snapshot.execute(succeeded)).all()
        once = [row for row in rows if row.row_count == row.batch_count == work.batch_count]
        return Count(
            slot_count=len(scheduled_times),
            once_count=len(once),
            attempt_counts={run.scheduled_time: run.attempt_count for run in runs},
        )

    async def clear(self) -> None:
        """Forget all runs and what they did."""
        async with self.database.begin() as transaction:
            await transaction.execute(effects.delete())
            await transaction.execute(cron_runs.delete())


@dataclass(slots=True)
class Stopwatch:
    """Seconds since it was made."""

    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """The time since the start."""
        return time.monotonic() - self.started
