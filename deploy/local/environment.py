"""Who the mesh's processes are, and what each of them is told."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from deploy.local.certificates import CertificateFiles
from deploy.local.private_files import write_private

SERVICES = ("ingest", "query", "keys", "maintenance")
# The last three are for programs of others that call the services directly.
IDENTITIES = (*SERVICES, "gateway", "cron", "operator", "order-service", "back-office", "client")

# What services keep beside their databases, in the data directory.
JOURNAL = "journal"
COLUMNS = "columns.duckdb"

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
    session_key: str = field(default_factory=lambda: secrets.token_hex(32))
    subject_keys: dict[str, str] = field(
        default_factory=lambda: {
            service: secrets.token_hex(32) for service in ("ingest", "maintenance")
        }
    )
    receipt_key: str = field(default_factory=lambda: secrets.token_hex(32))


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the processes listen, as host and port. By service, but for the gateway's."""

    gateway: str
    grpc: Mapping[str, str]
    metrics: Mapping[str, str]


def keep_secrets(path: Path) -> Secrets:
    """The secrets in the file, which is made, mode 0600, if there is none."""
    kept = None
    try:
        kept = json.loads(path.read_bytes())
        made = Secrets(**kept)
    except FileNotFoundError:
        made = Secrets(
            redis_passwords={service: secrets.token_hex(16) for service in SERVICES},
            database_passwords={service: secrets.token_hex(16) for service in SERVICES},
            migration_passwords={service: secrets.token_hex(16) for service in SERVICES},
            page_token_keys={service: secrets.token_hex(32) for service in SERVICES},
            peppers=f"1:{secrets.token_hex(32)}",
            subject_keys={service: secrets.token_hex(32) for service in ("ingest", "maintenance")},
            receipt_key=secrets.token_hex(32),
        )
    if asdict(made) != kept:  # The file may be older than one of them.
        write_private(path, json.dumps(asdict(made), indent=2).encode())
    return made


def of_service(
    service: str,
    *,
    addresses: Addresses,
    certificates: CertificateFiles,
    database_url: str,
    redis_url: str,
    data_directory: Path,
    secrets: Secrets,
) -> dict[str, str]:
    """The environment of a service, which may keep files of its own in the data directory."""
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
    if service == "ingest":
        variables["JOURNAL_DIRECTORY"] = str(data_directory / JOURNAL)
    if service == "query":
        variables["COLUMNS_PATH"] = str(data_directory / COLUMNS)
    if service != "keys":
        variables["KEYS_ADDRESS"] = addresses.grpc["keys"]
    if service in ("query", "maintenance"):
        variables["INGEST_ADDRESS"] = addresses.grpc["ingest"]
    if service in ("ingest", "maintenance"):
        variables["SUBJECT_KEY"] = secrets.subject_keys[service]
    if service == "maintenance":
        variables["QUERY_ADDRESS"] = addresses.grpc["query"]
        variables["RECEIPT_KEY"] = secrets.receipt_key
    return _prefixed(service, variables)


def of_gateway(
    addresses: Addresses,
    certificates: CertificateFiles,
    *,
    demo_shop: Path,
    secrets: Secrets,
) -> dict[str, str]:
    """The environment of the gateway, which serves the shop of the store in `demo_shop`."""
    upstreams = {f"{service.upper()}_ADDRESS": addresses.grpc[service] for service in SERVICES}
    variables = {
        "LISTEN_ADDRESS": addresses.gateway,
        "DEMO_SHOP": str(demo_shop),
        "SESSION_KEY": secrets.session_key,
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
