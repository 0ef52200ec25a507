"""Maintenance's configuration."""

from pydantic import Field

from common.config import SecretKey, ServiceConfig


class MaintenanceConfig(ServiceConfig, env_prefix="MAINTENANCE_"):
    """The variables that begin with `MAINTENANCE_`."""

    ingest_address: str
    """Host and port of Ingest, which keeps events."""
    query_address: str
    """Host and port of Query, which works figures out of them."""
    keys_address: str
    """Host and port of Keys, which knows what stores there are."""
    subject_key: SecretKey
    """64 hex digits: seals the ids of people while a case is at work, and hashes them."""
    receipt_key: SecretKey
    """64 hex digits: the seed of the Ed25519 key that signs receipts of erasures."""
    older_receipt_keys: str = Field(default="", pattern=r"^([0-9a-f]{64}(,[0-9a-f]{64})*)?$")
    """The public keys of before, in hex and with commas, so that their receipts can be verified."""

    def older_public_keys(self) -> tuple[bytes, ...]:
        """The public keys of before."""
        return tuple(bytes.fromhex(key) for key in self.older_receipt_keys.split(",") if key)
