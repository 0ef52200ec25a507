"""Where secrets come from: certificates from cert-manager, the rest from an external store."""

from __future__ import annotations

from deploy.calls import EDGE, GATEWAY, PROCESSES, SERVICES, spiffe_id
from deploy.k8s.jobs import CRON
from deploy.k8s.parts import Manifest, manifest


def certificates() -> list[Manifest]:
    """A certificate for each identity that runs here, renewed long before it ends."""
    return [_certificate(identity) for identity in (EDGE, CRON, *PROCESSES)]


def _certificate(identity: str) -> Manifest:
    return manifest(
        "cert-manager.io/v1",
        "Certificate",
        identity,
        spec={
            "secretName": f"{identity}-tls",
            "duration": "24h",
            "renewBefore": "16h",
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "usages": ["digital signature", "server auth", "client auth"],
            "uris": [spiffe_id(identity)],
            "dnsNames": [identity],
            "issuerRef": {"name": "mesh", "kind": "Issuer"},
        },
    )


def external_secrets() -> list[Manifest]:
    """Each process's own secrets, which no other may read."""
    return [
        _external_secret(GATEWAY, ["GATEWAY_SESSION_KEY"]),
        *(_external_secret(service, _variables(service)) for service in SERVICES),
    ]


def migration_secrets() -> list[Manifest]:
    """The users that may change tables, for migrations only."""
    return [
        _external_secret(
            service, [f"{service.upper()}_MIGRATION_DATABASE_URL"], name=f"{service}-migration"
        )
        for service in SERVICES
    ]


def _variables(service: str) -> list[str]:
    names = ["DATABASE_URL", "REDIS_URL", "PAGE_TOKEN_KEY"]
    if service == "keys":
        names.append("PEPPERS")
    if service in ("ingest", "maintenance"):
        names.append("SUBJECT_KEY")
    if service == "maintenance":
        names.append("RECEIPT_KEY")
    return [f"{service.upper()}_{name}" for name in names]


def _external_secret(service: str, variables: list[str], *, name: str = "") -> Manifest:
    name = name or service
    return manifest(
        "external-secrets.io/v1",
        "ExternalSecret",
        name,
        spec={
            "refreshInterval": "1h",
            "secretStoreRef": {"kind": "SecretStore", "name": "shoptrail"},
            "target": {"name": name, "creationPolicy": "Owner"},
            "data": [
                {
                    "secretKey": variable,
                    "remoteRef": {"key": f"shoptrail/{name}", "property": variable},
                }
                for variable in variables
            ],
        },
    )
