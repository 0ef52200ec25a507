"""Makes the secrets of a mesh on a single server: python -m deploy.docker.secrets > .env

They are letters and digits, so that they fit into URLs. Run it once: another run makes others,
which MySQL's data directory doesn't know.
"""

import secrets
import sys

SERVICES = ("ingest", "query", "keys", "maintenance")


def make_secrets() -> dict[str, str]:
    """A value for each variable that compose.yaml asks for."""
    made = {
        "MYSQL_ROOT_PASSWORD": secrets.token_hex(16),
        "KEYS_PEPPERS": f"1:{_key()}",
        "GATEWAY_SESSION_KEY": _key(),
        "INGEST_SUBJECT_KEY": _key(),
        "MAINTENANCE_SUBJECT_KEY": _key(),
        "MAINTENANCE_RECEIPT_KEY": _key(),
    }
    for service in SERVICES:
        for kind in ("DATABASE_PASSWORD", "MIGRATION_PASSWORD", "REDIS_PASSWORD"):
            made[f"{service.upper()}_{kind}"] = secrets.token_hex(16)
        made[f"{service.upper()}_PAGE_TOKEN_KEY"] = _key()
    return made


def _key() -> str:
    return secrets.token_hex(32)


if __name__ == "__main__":
    sys.stdout.writelines(f"{name}={value}\n" for name, value in make_secrets().items())
