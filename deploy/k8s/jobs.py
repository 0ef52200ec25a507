"""What runs at times: migrations before a release, and the calls of scheduled tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from common.cron.call import Exit
from common.cron.job import Job
from deploy.calls import SERVICES
from deploy.k8s.parts import (
    IMAGE,
    TLS_MOUNT,
    Manifest,
    container,
    labels,
    manifest,
    pod,
    tls_variables,
    tls_volume,
)
from services.ingest.jobs import ingest_jobs
from services.ingest.subjects import SubjectDigests
from services.keys.jobs import all_jobs as keys_jobs
from services.keys.peppers import Pepper
from services.maintenance.jobs import maintenance_jobs
from services.query.jobs import query_jobs

CRON = "cron"
MIGRATION = "migration"
# Whom the jobs would ask if they ran here.
_NOBODY: Any = None
_JOB_NAME = "metadata.labels['batch.kubernetes.io/job-name']"
# Kubernetes appends a dash and ten or eleven digits to make the name of a Job.
_LONGEST_NAME = 52
_LONGEST_WORK = timedelta(minutes=30)
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


def jobs_of_services() -> dict[str, list[Job]]:
    """All jobs, by service. Keys that some want to make theirs are used in none here."""
    return {
        "ingest": list(ingest_jobs(SubjectDigests(bytes(32)), _NOBODY)),
        "query": list(query_jobs(_NOBODY)),
        "keys": list(keys_jobs([Pepper(version=1, secret=bytes(32))])),
        "maintenance": list(maintenance_jobs(_NOBODY)),
    }


def schedule_of(period: timedelta) -> str:
    """The times that are multiples of the period since 1970, in UTC, as cron writes them.

    Raises `ValueError` for a period that cron has no words for.
    """
    minutes, rest = divmod(period, timedelta(minutes=1))
    if not rest and minutes and _HOUR % period == timedelta():
        return "0 * * * *" if period == _HOUR else f"*/{minutes} * * * *"
    hours, rest = divmod(period, _HOUR)
    if not rest and hours and _DAY % period == timedelta():
        return "0 0 * * *" if period == _DAY else f"0 */{hours} * * *"
    raise ValueError(f"a period of {period} divides neither an hour nor a day")


def cron_jobs() -> list[Manifest]:
    """A CronJob for each job, and the account that they run as."""
    account = manifest("v1", "ServiceAccount", CRON, automountServiceAccountToken=False)
    return [
        account,
        *(_cron_job(service, job) for service, jobs in jobs_of_services().items() for job in jobs),
    ]


def _cron_job(service: str, job: Job) -> Manifest:
    name = f"{service}-{job.name}"
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"{name} is too long for a CronJob")
    work = min(job.period * 0.9, _LONGEST_WORK)
    call = container(
        "call",
        IMAGE,
        ["common.cron.call", "run", service, job.name],
        cpu="50m",
        memory="128Mi",
        env=[
            # The scheduled minute stands in it, whenever the pod comes to run.
            {"name": "CRON_JOB_NAME", "valueFrom": {"fieldRef": {"fieldPath": _JOB_NAME}}},
            {"name": "CRON_SECONDS", "value": f"{work.total_seconds() * 0.9:.0f}"},
            *tls_variables("CRON"),
        ],
        volumeMounts=[TLS_MOUNT],
    )
    template = pod(
        CRON,
        labels=labels(CRON),
        restartPolicy="Never",
        containers=[call],
        volumes=[tls_volume(CRON)],
    )
    return manifest(
        "batch/v1",
        "CronJob",
        name,
        spec={
            "schedule": schedule_of(job.period),
            "timeZone": "Etc/UTC",
            # The ledger would sort it out; a second pod would only wait.
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": max(int(job.period.total_seconds() * 0.8), 10),
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": 3,
                    "activeDeadlineSeconds": int(work.total_seconds()),
                    "ttlSecondsAfterFinished": 86_400,
                    "podFailurePolicy": {
                        "rules": [
                            {
                                "action": "FailJob",
                                "onExitCodes": {
                                    "containerName": "call",
                                    "operator": "In",
                                    "values": [int(Exit.WRONG)],
                                },
                            },
                            {
                                "action": "Ignore",
                                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                            },
                        ]
                    },
                    "template": template,
                }
            },
        },
    )


def migrations() -> list[Manifest]:
    """A Job for each service, with the user that may change tables, which services haven't."""
    account = manifest("v1", "ServiceAccount", MIGRATION, automountServiceAccountToken=False)
    return [account, *(_migration(service) for service in SERVICES)]


def _migration(service: str) -> Manifest:
    migrate = container(
        "migrate",
        IMAGE,
        ["common.migrate", service],
        cpu="100m",
        memory="256Mi",
        # PlanetScale's users can't be granted single tables: there, an overlay empties it.
        env=[{"name": f"{service.upper()}_GRANT_TO", "value": f"'{service}'@'%'"}],
        envFrom=[{"secretRef": {"name": f"{service}-migration"}}],
    )
    # Not the service's own labels: its Service and its budget must not find it.
    template = pod(
        MIGRATION,
        labels={**labels(MIGRATION), "shoptrail/migrates": service},
        restartPolicy="Never",
        containers=[migrate],
    )
    return manifest(
        "batch/v1",
        "Job",
        f"migrate-{service}",
        spec={
            "backoffLimit": 3,
            "activeDeadlineSeconds": 3600,
            # The next release makes it anew, under the same name.
            "ttlSecondsAfterFinished": 600,
            "template": template,
        },
    )
