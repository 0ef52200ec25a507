"""A service whose jobs leave rows that can be counted: what the drills start, stop and kill.

    python -m tests.drills.run_once.replica

It is built of production's parts. `DRILL_GUARD=mutex` leaves the ledger out.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Literal

from redis.asyncio import Redis
from sqlalchemy import Column, Integer, MetaData, Table, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.config import ServiceConfig, read_config
from common.cron.job import Batch, Job
from common.cron.ledger import State
from common.cron.runner import Patience
from common.cron.servicer import SERVICE, CronServicer
from common.cron.tables import cron_runs
from common.db import TABLE_OPTIONS, Database, Timestamp, open_database, private_key
from common.interceptors.wrap import Context
from common.log import start_logging
from common.mutex import hold, open_redis
from common.page_token import PageTokens
from common.server import build_server, serve
from shoptrail.maintenance.v1 import maintenance_pb2 as pb
from shoptrail.maintenance.v1 import maintenance_pb2_grpc

JOB = "drill"
PERIOD = timedelta(minutes=1)

# Nothing in it is unique: what is done twice is there twice.
effects = Table(
    "drill_effects",
    MetaData(),
    Column("id", private_key(), primary_key=True, autoincrement=True),
    Column("scheduled_time", Timestamp(), nullable=False),
    Column("number", Integer, nullable=False),
    **TABLE_OPTIONS,
)


class ReplicaConfig(ServiceConfig, env_prefix="DRILL_"):
    """The variables that begin with `DRILL_`."""

    guard: Literal["ledger", "mutex"] = "ledger"
    lease_seconds: float
    batch_count: int
    batch_seconds: float


class Effects:
    """The job: each batch adds one row, and takes its time about it."""

    def __init__(self, batch_count: int, batch_seconds: float) -> None:
        self.batch_count = batch_count
        self._batch_seconds = batch_seconds

    async def run_batch(self, transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
        number = int(cursor or 0)
        at_work = (
            select(cron_runs.c.scheduled_time, literal(number))
            .where(cron_runs.c.job == JOB, cron_runs.c.state == State.RUNNING)
            # This transaction has just lengthened its own lease.
            .order_by(cron_runs.c.lease_time.desc())
            .limit(1)
        )
        await transaction.execute(
            insert(effects).from_select(["scheduled_time", "number"], at_work)
        )
        await asyncio.sleep(self._batch_seconds)
        return Batch(row_count=1, done=number + 1 == self.batch_count, cursor=str(number + 1))

    async def add(
        self, transaction: AsyncConnection, scheduled_time: datetime, number: int
    ) -> None:
        """Add a row as a job without a ledger would."""
        row = {"scheduled_time": scheduled_time, "number": number}
        await transaction.execute(insert(effects).values(**row))
        await asyncio.sleep(self._batch_seconds)


class MutexOnlyServicer(maintenance_pb2_grpc.MaintenanceServicer):
    """What `RunCron` would be if a mutex were enough. The drills must find that it is not."""

    def __init__(
        self, database: Database, redis: Redis, *, work: Effects, mutex_seconds: float
    ) -> None:
        self._database = database
        self._redis = redis
        self._work = work
        self._mutex_seconds = mutex_seconds

    async def RunCron(self, request: pb.RunCronRequest, context: Context) -> pb.RunCronResponse:
        scheduled_time = request.scheduled_time.ToDatetime(tzinfo=UTC)
        name = "maintenance:mutex:drill"
        async with hold(self._redis, name, life_seconds=self._mutex_seconds) as held:
            if not held:
                return pb.RunCronResponse(outcome=pb.RUN_CRON_OUTCOME_ALREADY_RUNNING)
            for number in range(self._work.batch_count):
                async with self._database.begin() as transaction:
                    await self._work.add(transaction, scheduled_time, number)
        return pb.RunCronResponse(outcome=pb.RUN_CRON_OUTCOME_RAN)

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        return pb.ListJobsResponse()

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        return pb.ListRunsResponse()

    async def ListGauges(
        self, request: pb.ListGaugesRequest, context: Context
    ) -> pb.ListGaugesResponse:
        return pb.ListGaugesResponse()


async def main() -> None:
    """Serve until told to stop."""
    config = read_config(ReplicaConfig)
    start_logging("drill", config.log_level)
    async with AsyncExitStack() as stack:
        database = open_database(config.database_url.get_secret_value())
        stack.push_async_callback(database.dispose)
        redis = open_redis(config.redis_url.get_secret_value())
        stack.push_async_callback(redis.aclose)

        server = build_server([SERVICE])
        work = Effects(config.batch_count, config.batch_seconds)
        if config.guard == "mutex":
            unguarded = MutexOnlyServicer(
                database, redis, work=work, mutex_seconds=config.lease_seconds
            )
            maintenance_pb2_grpc.add_MaintenanceServicer_to_server(unguarded, server)
            await serve(server, [SERVICE], config)
            return
        cron = CronServicer(
            "maintenance",
            database=database,
            redis=redis,
            jobs=[Job(JOB, description="Adds rows.", period=PERIOD, run_batch=work.run_batch)],
            page_tokens=PageTokens(config.page_token_key.get_secret_value()),
            patience=Patience(
                lease=timedelta(seconds=config.lease_seconds), mutex_seconds=config.lease_seconds
            ),
        )
        maintenance_pb2_grpc.add_MaintenanceServicer_to_server(cron, server)
        await stack.enter_async_context(cron.measured())
        await serve(server, [SERVICE], config, on_stop=cron.stop)


if __name__ == "__main__":
    asyncio.run(main())
