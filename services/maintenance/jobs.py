"""Maintenance's own jobs."""

from common.cron.job import Job
from common.cron.trim_runs import trim_runs_job


def maintenance_jobs() -> list[Job]:
    """All jobs that Maintenance runs."""
    return [trim_runs_job()]
