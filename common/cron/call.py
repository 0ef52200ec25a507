"""Calls scheduled tasks over gRPC, as the identity `cron`.

    python -m common.cron.call run ingest trim-runs

calls one, as a CronJob does: the scheduled time is the minute behind the last dash of
`CRON_JOB_NAME`, the name that Kubernetes gave the Job. Ends with 0 once the work is done, by
whomever; with 64 if it can't be, as there is no such job; with 1 if the job failed; with 75 if it
was not done in time, and calling again will go on with it.

    python -m common.cron.call follow ingest query keys maintenance

calls whatever is due of all their jobs, until told to stop: for a single server, which has no
CronJobs.
"""

from __future__ import annotations

import argparse
import asyncio
import enum
import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

import grpc
from pydantic_settings import SettingsConfigDict

from common.client import open_channel
from common.config import TlsConfig, read_config
from common.log import start_logging
from common.server import told_to_stop
from common.tls import Certificates, read_certificates
from shoptrail.maintenance.v1 import job_pb2, maintenance_pb2, maintenance_pb2_grpc

log = logging.getLogger(__name__)

_CONTRACT = "shoptrail.maintenance.v1.Maintenance"
_CALL_SECONDS = 55.0
_LIST_SECONDS = 5.0
_LOOK_SECONDS = 5.0
_DONE = (
    maintenance_pb2.RUN_CRON_OUTCOME_RAN,
    maintenance_pb2.RUN_CRON_OUTCOME_ALREADY_RAN,
)
_FINISHED = (job_pb2.RUN_STATE_SUCCEEDED, job_pb2.RUN_STATE_SUPERSEDED)
_WRONG = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
)


class CallConfig(TlsConfig):
    """The variables that begin with `CRON_`."""

    model_config = SettingsConfigDict(env_prefix="CRON_")

    address: str = "{service}:7443"
    """Host and port of a service, whose name stands in for `{service}`."""
    job_name: str = ""
    """The name of the Kubernetes Job, such as `ingest-trim-runs-29401320`. If empty, the job's
    latest scheduled time is meant."""
    seconds: float = 240.0
    """How long to go on calling a job that is not done yet."""
    pause_seconds: float = 2.0
    """How long to wait between two calls."""


class Exit(enum.IntEnum):
    """What a CronJob's pod ends with."""

    DONE = 0
    FAILED = 1
    WRONG = os.EX_USAGE
    NOT_DONE = os.EX_TEMPFAIL


async def call_job(
    maintenance: maintenance_pb2_grpc.MaintenanceAsyncStub, job: str, config: CallConfig
) -> Exit:
    """Call the job until it is done, or the time is up."""
    request = maintenance_pb2.RunCronRequest(job=job)
    if config.job_name:
        minute = config.job_name.rpartition("-")[2]
        if not minute.isdecimal():
            log.error("no scheduled minute", extra={"job_name": config.job_name})
            return Exit.WRONG
        request.scheduled_minute = int(minute)
    with suppress(TimeoutError):
        async with asyncio.timeout(config.seconds):
            while True:
                exit_code = await _call_once(maintenance, request)
                if exit_code is not Exit.NOT_DONE:
                    return exit_code
                await asyncio.sleep(config.pause_seconds)
    return Exit.NOT_DONE


async def _call_once(
    maintenance: maintenance_pb2_grpc.MaintenanceAsyncStub, request: maintenance_pb2.RunCronRequest
) -> Exit:
    try:
        answer = await maintenance.RunCron(request, timeout=_CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        log.warning("job not run", extra={"job": request.job, "code": error.code().name})
        if error.code() in _WRONG:
            return Exit.WRONG
        return Exit.FAILED if error.code() is grpc.StatusCode.INTERNAL else Exit.NOT_DONE
    outcome = maintenance_pb2.RunCronOutcome.Name(answer.outcome)
    log.info("job called", extra={"job": request.job, "outcome": outcome})
    return Exit.DONE if answer.outcome in _DONE else Exit.NOT_DONE


async def call_due_jobs(maintenance: maintenance_pb2_grpc.MaintenanceAsyncStub) -> None:
    """Call each of a service's jobs, once, whose latest scheduled time is not done."""
    try:
        listed = await maintenance.ListJobs(
            maintenance_pb2.ListJobsRequest(), timeout=_LIST_SECONDS
        )
    except grpc.aio.AioRpcError as error:
        log.warning("jobs not listed", extra={"code": error.code().name})
        return
    for job in listed.jobs:
        if not _is_done(job):
            await _call_once(maintenance, maintenance_pb2.RunCronRequest(job=job.name))


def _is_done(job: job_pb2.Job) -> bool:
    if job.last_run.state not in _FINISHED:
        return False
    period: timedelta = job.period.ToTimedelta()
    next_time: datetime = job.next_scheduled_time.ToDatetime()
    last_time: datetime = job.last_run.scheduled_time.ToDatetime()
    return last_time >= next_time - period


@asynccontextmanager
async def _connected(
    service: str, config: CallConfig, certificates: Certificates
) -> AsyncIterator[maintenance_pb2_grpc.MaintenanceAsyncStub]:
    address = config.address.format(service=service)
    async with open_channel(address, _CONTRACT, service, certificates) as channel:
        yield maintenance_pb2_grpc.MaintenanceStub(channel)


async def _keep_calling(service: str, config: CallConfig, certificates: Certificates) -> None:
    async with _connected(service, config, certificates) as maintenance:
        while True:
            await call_due_jobs(maintenance)
            await asyncio.sleep(_LOOK_SECONDS)


async def _run(service: str, job: str) -> Exit:
    config = read_config(CallConfig)
    async with _connected(service, config, read_certificates(config)) as maintenance:
        return await call_job(maintenance, job, config)


async def _follow(services: Sequence[str]) -> Exit:
    config = read_config(CallConfig)
    certificates = read_certificates(config)
    calling = [
        asyncio.create_task(_keep_calling(service, config, certificates)) for service in services
    ]
    await told_to_stop()
    for task in calling:
        task.cancel()
    await asyncio.wait(calling)
    return Exit.DONE


def main() -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m common.cron.call")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="call a job until it is done")
    run.add_argument("service")
    run.add_argument("job")
    follow = commands.add_parser("follow", help="call all that is due, until told to stop")
    follow.add_argument("services", nargs="+")
    arguments = parser.parse_args()
    start_logging("cron", "info")
    if arguments.command == "run":
        return asyncio.run(_run(arguments.service, arguments.job))
    return asyncio.run(_follow(arguments.services))


if __name__ == "__main__":
    sys.exit(main())
