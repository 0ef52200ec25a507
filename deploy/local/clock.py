"""Calls every service's jobs at their scheduled times, as Kubernetes does elsewhere."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from deploy.local.gateway_client import GatewayClient, GatewayUnreachableError

log = logging.getLogger(__name__)

# Jobs may be added, and laptops sleep: the timetable is read again at least that often.
_LONGEST_WAIT = timedelta(minutes=1)
_SHORTEST_WAIT_SECONDS = 1.0
_RETRY = timedelta(seconds=5)
_DONE = ("RUN_STATE_SUCCEEDED", "RUN_STATE_SUPERSEDED")


class Clock:
    """Calls each job once its scheduled time has come, until it says that it is done.

    It remembers nothing: what has run is read from the services, and a call too many does
    nothing there.
    """

    def __init__(
        self,
        gateway: GatewayClient,
        *,
        cron_key: str,
        services: Sequence[str],
        now: Callable[[], datetime],
    ) -> None:
        self._gateway = gateway
        self._cron_key = cron_key
        self._services = services
        self._now = now

    async def run(self) -> None:
        """Call jobs until cancelled. A latest scheduled time without a run is made up for."""
        while True:
            wait = await self.call_due_jobs() - self._now()
            await asyncio.sleep(max(wait.total_seconds(), _SHORTEST_WAIT_SECONDS))

    async def call_due_jobs(self) -> datetime:
        """Call each job that is due, once; returns when to do so again."""
        return min([await self._call_jobs_of(service) for service in self._services])

    async def _call_jobs_of(self, service: str) -> datetime:
        try:
            answer = await self._gateway.get(f"/v1/cron/{service}/jobs", key=self._cron_key)
            if answer.status != 200:
                log.warning("jobs not listed", extra={"service": service, "status": answer.status})
                return self._now() + _RETRY
            next_time = self._now() + _LONGEST_WAIT
            for job in answer.body["jobs"]:
                finished = _is_done(job) or await self._call_job(service, job["name"])
                scheduled = datetime.fromisoformat(job["next_scheduled_time"])
                next_time = min(next_time, scheduled if finished else self._now() + _RETRY)
            return next_time
        except GatewayUnreachableError:
            return self._now() + _RETRY

    async def _call_job(self, service: str, job: str) -> bool:
        """Calls the job for its latest scheduled time; whether that is now done."""
        answer = await self._gateway.post(f"/v1/cron/{service}/{job}:run", key=self._cron_key)
        if answer.status != 200:
            log.warning(
                "job failed", extra={"service": service, "job": job, "status": answer.status}
            )
            return False
        return answer.body["outcome"] in ("RUN_CRON_OUTCOME_RAN", "RUN_CRON_OUTCOME_ALREADY_RAN")


def _is_done(job: dict[str, Any]) -> bool:
    """Whether the job's latest scheduled time has a run that needs no more calls."""
    run = job.get("last_run")
    if run is None or run["state"] not in _DONE:
        return False
    period = timedelta(seconds=float(job["period"].removesuffix("s")))
    latest = datetime.fromisoformat(job["next_scheduled_time"]) - period
    return datetime.fromisoformat(run["scheduled_time"]) >= latest
