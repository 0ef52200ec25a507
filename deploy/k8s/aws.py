"""What differs on AWS: where secrets come from, and TLS to the database and the cache."""

from __future__ import annotations

from deploy.calls import GATEWAY, SERVICES
from deploy.k8s.parts import Manifest, manifest

AUTHORITY = "/etc/shoptrail/database"
_CA = f"{AUTHORITY}/ca.pem"


def secrets_of_processes() -> list[Manifest]:
    """Where each value is in Secrets Manager, which has one secret for each."""
    gateway = _secret(
        GATEWAY,
        {"session_key": ("gateway/session-key", "")},
        {"GATEWAY_SESSION_KEY": "{{ .session_key }}"},
    )
    return [gateway, *(_of_service(service) for service in SERVICES)]


def secrets_of_migrations() -> list[Manifest]:
    """The same, of the users that may change tables."""
    return [
        _secret(
            f"{service}-migration",
            {
                "password": (f"{service}/migration", "password"),
                "database": ("places", "database"),
            },
            {
                f"{service.upper()}_MIGRATION_DATABASE_URL": _database_url(
                    f"{service}_migration", service
                )
            },
        )
        for service in SERVICES
    ]


def _of_service(service: str) -> Manifest:
    prefix = service.upper()
    values = {
        "password": (f"{service}/database", "password"),
        "cache_password": (f"{service}/cache", "password"),
        "database": ("places", "database"),
        "cache": ("places", "cache"),
        "page_token_key": (f"{service}/page-token-key", ""),
    }
    variables = {
        f"{prefix}_DATABASE_URL": _database_url(service, service),
        f"{prefix}_REDIS_URL": (
            f"rediss://{service}:{{{{ .cache_password }}}}@{{{{ .cache }}}}:6379/0"
        ),
        f"{prefix}_PAGE_TOKEN_KEY": "{{ .page_token_key }}",
    }
    if service == "keys":
        values["pepper"] = ("keys/pepper-1", "")
        variables["KEYS_PEPPERS"] = "1:{{ .pepper }}"
    if service in ("ingest", "maintenance"):
        values["subject_key"] = (f"{service}/subject-key", "")
        variables[f"{prefix}_SUBJECT_KEY"] = "{{ .subject_key }}"
    if service == "maintenance":
        values["receipt_key"] = ("maintenance/receipt-key", "")
        variables["MAINTENANCE_RECEIPT_KEY"] = "{{ .receipt_key }}"
    return _secret(service, values, variables)


def _database_url(user: str, schema: str) -> str:
    # Passwords are letters and digits, so they stand in URLs as they are.
    return (
        f"mysql+aiomysql://{user}:{{{{ .password }}}}@{{{{ .database }}}}/{schema}"
        f"?charset=utf8mb4&ssl_ca={_CA}"
    )


def _secret(name: str, values: dict[str, tuple[str, str]], variables: dict[str, str]) -> Manifest:
    return manifest(
        "external-secrets.io/v1",
        "ExternalSecret",
        name,
        spec={
            "target": {"template": {"engineVersion": "v2", "data": variables}},
            "data": [
                {
                    "secretKey": value,
                    "remoteRef": {
                        "key": f"shoptrail/{key}",
                        **({"property": member} if member else {}),
                    },
                }
                for value, (key, member) in values.items()
            ],
        },
    )
