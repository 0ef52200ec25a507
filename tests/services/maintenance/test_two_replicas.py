"""Two real processes, called at the same time for the same scheduled time: one runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select

from common.client import open_channel
from common.cron import servicer as cron
from common.cron.tables import cron_runs
from common.db import Database, open_database
from common.migrate import upgrade
from common.tls import Certificates
from common.uid import new_uid
from deploy.local import ports
from deploy.local.certificates import issue_certificates
from deploy.local.mariadb import MariadbServer
from shoptrail.maintenance.v1 import maintenance_pb2, maintenance_pb2_grpc

RAN = maintenance_pb2.RUN_CRON_OUTCOME_RAN
ALREADY_RAN = maintenance_pb2.RUN_CRON_OUTCOME_ALREADY_RAN
ALREADY_RUNNING = maintenance_pb2.RUN_CRON_OUTCOME_ALREADY_RUNNING
OLD_RUNS = 3000
ROUNDS = 4


@asynccontextmanager
async def replica(
    variables: Mapping[str, str], certificates: Certificates
) -> AsyncIterator[maintenance_pb2_grpc.MaintenanceAsyncStub]:
    """A process of Maintenance that serves; ended by SIGTERM."""
    with ports.reserved(2) as (port, metrics_port):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "services.maintenance"),
            env={
                **os.environ,
                **variables,
                "MAINTENANCE_LISTEN_ADDRESS": f"127.0.0.1:{port}",
                "MAINTENANCE_METRICS_ADDRESS": f"127.0.0.1:{metrics_port}",
            },
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with open_channel(
            f"127.0.0.1:{port}", cron.SERVICE, "localhost", certificates
        ) as channel:
            jobs = maintenance_pb2_grpc.MaintenanceStub(channel)
            await jobs.ListJobs(maintenance_pb2.ListJobsRequest(), timeout=20, wait_for_ready=True)
            yield jobs
        process.terminate()
        assert await process.wait() == 0


async def add_old_runs(database: Database) -> None:
    old = datetime.now(UTC) - timedelta(days=100)
    run = {
        "job": "work",
        "state": 2,
        "fence": 1,
        "lease_time": old,
        "attempt_count": 1,
        "row_count": 0,
        "progress": "",
        "caller": "cron",
        "start_time": old,
    }
    async with database.begin() as transaction:
        await transaction.execute(
            insert(cron_runs),
            [
                {**run, "uid": new_uid("run"), "scheduled_time": old + timedelta(seconds=number)}
                for number in range(OLD_RUNS)
            ],
        )


@pytest.fixture(params=["sqlite", "mariadb"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'maintenance.db'}"
    server: MariadbServer = request.getfixturevalue("mariadb_server")
    return server.url("maintenance")


async def test_one_of_two_replicas_runs_a_scheduled_time_and_the_other_is_told(
    database_url: str,
    redis_urls: Mapping[str, str],
    certificates: Mapping[str, Certificates],
    scratch: Path,
) -> None:
    files = issue_certificates(scratch / "tls", ["maintenance"], now=datetime.now(UTC))
    variables = {
        "MAINTENANCE_DATABASE_URL": database_url,
        "MAINTENANCE_REDIS_URL": redis_urls["maintenance"],
        "MAINTENANCE_PAGE_TOKEN_KEY": "00" * 32,
        "MAINTENANCE_SUBJECT_KEY": "00" * 32,
        "MAINTENANCE_RECEIPT_KEY": "00" * 32,
        "MAINTENANCE_INGEST_ADDRESS": "127.0.0.1:1",
        "MAINTENANCE_QUERY_ADDRESS": "127.0.0.1:1",
        "MAINTENANCE_KEYS_ADDRESS": "127.0.0.1:1",
        "MAINTENANCE_TLS_CERTIFICATE": str(files["maintenance"].certificate),
        "MAINTENANCE_TLS_KEY": str(files["maintenance"].key),
        "MAINTENANCE_TLS_AUTHORITY": str(files["maintenance"].authority),
        "MAINTENANCE_DRAIN_SECONDS": "0",
    }
    if database_url.startswith("sqlite"):
        await upgrade("maintenance", database_url)
    database = open_database(database_url)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.dispose)
        one, other = [
            await stack.enter_async_context(replica(variables, certificates["cron"]))
            for _ in range(2)
        ]
        for days in range(ROUNDS):
            await add_old_runs(database)
            request = maintenance_pb2.RunCronRequest(job="trim-runs")
            request.scheduled_time.FromDatetime(today - timedelta(days=days))

            answers = await asyncio.gather(
                one.RunCron(request, timeout=30), other.RunCron(request, timeout=30)
            )

            outcomes = sorted(answer.outcome for answer in answers)
            assert outcomes in ([RAN, ALREADY_RAN], [RAN, ALREADY_RUNNING])
            afterwards = await one.RunCron(request, timeout=30)
            assert afterwards.outcome == ALREADY_RAN
            assert afterwards.run.row_count == OLD_RUNS

        async with database.begin() as transaction:
            states = (
                await transaction.execute(
                    select(cron_runs.c.state, func.count()).group_by(cron_runs.c.state)
                )
            ).all()
            assert [tuple(row) for row in states] == [(2, ROUNDS)]
            await transaction.execute(cron_runs.delete())
