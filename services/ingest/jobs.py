"""Ingest's own jobs."""

from common.cron.job import Job
from common.cron.trim_runs import trim_runs_job


def ingest_jobs() -> list[Job]:
    """All jobs that Ingest runs."""
    return [trim_runs_job()]
