"""Who the mesh's processes are, and what each of them is told."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.local.certificates import CertificateFiles
from deploy.local.private_files import write_private

SERVICES = ("ingest", "query", "keys", "maintenance")
# The last three are for programs of others that call the services directly.
IDENTITIES = (*SERVICES, "gateway", "cron", "operator", "order-service", "back-office", "client")

# Nobody needs to hear that a process is about to stop: the launcher stops them in order.
_DRAIN_SECONDS = "0"
_GRACE_SECONDS = "2"


@dataclass(frozen=True, slots=True)
class Secrets:
    """What only the processes of this mesh may know. By service, but for the peppers."""

    redis_passwords: dict[str, str]
    database_passwords: dict[str, str]
    migration_passwords: dict[str, str]
    page_token_keys: dict[str, str]
    peppers: str
    subject_keys: dict[str, str]
    receipt_key: str


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the processes listen, as host and port. By service, but for the gateway's."""

    gateway: str
    grpc: Mapping[str, str]
    metrics: Mapping[str, str]


def keep_secrets(path: Path) -> Secrets:
    """The secrets in the file, mode 0600; those that it doesn't have yet are made."""
    made = asdict(
        Secrets(
            redis_passwords={service: secrets.token_hex(16) for service in SERVICES},
            database_passwords={service: secrets.token_hex(16) for service in SERVICES},
            migration_passwords={service: secrets.token_hex(16) for service in SERVICES},
            page_token_keys={service: secrets.token_hex(32) for service in SERVICES},
            peppers=f"1:{secrets.token_hex(32)}",
            subject_keys={service: secrets.token_hex(32) for service in ("ingest", "maintenance")},
            receipt_key=secrets.token_hex(32),
        )
    )
    try:
        kept = json.loads(path.read_bytes())
    except FileNotFoundError:
        kept = {}
    if kept.keys() != made.keys():
        kept = made | kept
        write_private(path, json.dumps(kept, indent=2).encode())
    return Secrets(**kept)


def of_service(
    service: str,
    *,
    addresses: Addresses,
    certificates: CertificateFiles,
    database_url: str,
    redis_url: str,
    secrets: Secrets,
) -> dict[str, str]:
    """The environment of a service."""
    variables = {
        "LISTEN_ADDRESS": addresses.grpc[service],
        "METRICS_ADDRESS": addresses.metrics[service],
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "PAGE_TOKEN_KEY": secrets.page_token_keys[service],
        **_of_any_process(certificates),
    }
    if service == "keys":
        variables["PEPPERS"] = secrets.peppers
    if service in ("ingest", "query"):
        variables["KEYS_ADDRESS"] = addresses.grpc["keys"]
    if service in ("query", "maintenance"):
        variables["INGEST_ADDRESS"] = addresses.grpc["ingest"]
    if service in ("ingest", "maintenance"):
        variables["SUBJECT_KEY"] = secrets.subject_keys[service]
    if service == "maintenance":
        variables["QUERY_ADDRESS"] = addresses.grpc["query"]
        variables["RECEIPT_KEY"] = secrets.receipt_key
    return _prefixed(service, variables)


def of_gateway(addresses: Addresses, certificates: CertificateFiles) -> dict[str, str]:
    """The environment of the gateway."""
    upstreams = {f"{service.upper()}_ADDRESS": addresses.grpc[service] for service in SERVICES}
    variables = {
        "LISTEN_ADDRESS": addresses.gateway,
        **upstreams,
        **_of_any_process(certificates),
    }
    return _prefixed("gateway", variables)


def _of_any_process(certificates: CertificateFiles) -> dict[str, str]:
    return {
        "TLS_CERTIFICATE": str(certificates.certificate),
        "TLS_KEY": str(certificates.key),
        "TLS_AUTHORITY": str(certificates.authority),
        "DRAIN_SECONDS": _DRAIN_SECONDS,
        "GRACE_SECONDS": _GRACE_SECONDS,
    }


def _prefixed(process: str, variables: Mapping[str, str]) -> dict[str, str]:
    return {f"{process.upper()}_{name}": value for name, value in variables.items()}
