"""What is due, what ran last and what nobody called, by the ledger, for people and for alarms."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import Gauge
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron import ledger
from common.cron.job import Job
from common.cron.ledger import Run
from common.db import Database, database_now
from common.log import describe_failure

log = logging.getLogger(__name__)

_LAST_SUCCESS = Gauge(
    "cron_last_success_timestamp_seconds",
    "The latest scheduled time of the job whose run succeeded, on whatever replica.",
    ["job"],
)
_OVERDUE = Gauge(
    "cron_overdue", "1 if the job's last two scheduled times have no run that succeeded.", ["job"]
)


@dataclass(frozen=True, slots=True)
class Entry:
    """How a job stands."""

    job: Job
    next_scheduled_time: datetime
    last_run: Run | None
    last_success_time: datetime | None
    """The latest scheduled time whose run succeeded."""
    overdue: bool


class Timetable:
    """Reads from the ledger how a service's jobs stand."""

    def __init__(self, jobs: Sequence[Job], *, database: Database) -> None:
        self._jobs = jobs
        self._database = database
        self._known_since: datetime | None = None

    async def read(self, snapshot: AsyncConnection) -> list[Entry]:
        """An entry for each job.

        A job that never succeeded is overdue once two scheduled times have passed
        since it was first asked for here, and not from its first moment.
        """
        now = await database_now(snapshot)
        self._known_since = self._known_since or now
        entries = []
        for job in self._jobs:
            succeeded = await ledger.last_success_time(snapshot, job.name)
            latest = job.latest_scheduled_time(now)
            entries.append(
                Entry(
                    job,
                    next_scheduled_time=latest + job.period,
                    last_run=await ledger.last_run(snapshot, job.name),
                    last_success_time=succeeded,
                    overdue=(succeeded or self._known_since) < latest - job.period,
                )
            )
        return entries

    @asynccontextmanager
    async def measured(self, *, every_seconds: float) -> AsyncIterator[None]:
        """Keep the metrics of last success and overdue true for the block.

        They are read from the ledger, since what matters most is what this replica
        was never called for.
        """
        measuring = asyncio.create_task(self._keep_measuring(every_seconds))
        try:
            yield
        finally:
            measuring.cancel()
            await asyncio.wait([measuring])

    async def _keep_measuring(self, every_seconds: float) -> None:
        while True:
            try:
                async with self._database.read() as snapshot:
                    entries = await self.read(snapshot)
            except (SQLAlchemyError, OSError) as error:
                log.warning("timetable not read", extra=describe_failure(error))
            else:
                for entry in entries:
                    _OVERDUE.labels(entry.job.name).set(entry.overdue)
                    if entry.last_success_time:
                        succeeded = entry.last_success_time.timestamp()
                        _LAST_SUCCESS.labels(entry.job.name).set(succeeded)
            await asyncio.sleep(every_seconds)
