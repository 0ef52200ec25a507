"""Writes the manifests in YAML, where kustomize finds them."""

from __future__ import annotations

from pathlib import Path

from deploy.envoy.render import HEAD, to_yaml
from deploy.k8s import aws
from deploy.k8s.jobs import cron_jobs, migrations
from deploy.k8s.network import policies
from deploy.k8s.secrets import certificates, external_secrets, migration_secrets
from deploy.k8s.workloads import workloads

DIRECTORY = Path(__file__).parent


def files() -> dict[Path, str]:
    """What each file holds."""
    base = DIRECTORY / "base" / "rendered"
    on_aws = DIRECTORY / "overlays" / "aws"
    contents = {
        base / "workloads.yaml": workloads(),
        base / "cron-jobs.yaml": cron_jobs(),
        base / "network-policies.yaml": policies(),
        base / "certificates.yaml": certificates(),
        base / "secrets.yaml": external_secrets(),
        DIRECTORY / "migrations" / "rendered" / "jobs.yaml": migrations(),
        DIRECTORY / "migrations" / "rendered" / "secrets.yaml": migration_secrets(),
        on_aws / "rendered" / "secrets.yaml": aws.secrets_of_processes(),
        on_aws / "migrations" / "rendered" / "secrets.yaml": aws.secrets_of_migrations(),
    }
    return {path: HEAD + to_yaml(*manifests) for path, manifests in contents.items()}
