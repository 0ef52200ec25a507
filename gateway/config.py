"""What the gateway needs to know, from `GATEWAY_…` in the environment."""

from pydantic_settings import SettingsConfigDict

from common.config import ProcessConfig


class GatewayConfig(ProcessConfig):
    """Where the gateway listens, and where the services are."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    ingest_address: str
    """Host and port, as those that follow."""
    query_address: str
    keys_address: str
    maintenance_address: str
    keys_stale_seconds: float = 300.0
    """How long a key that worked goes on working while Keys can't be asked."""

    def service_addresses(self) -> dict[str, str]:
        """Where each service is, by its name."""
        return {
            "ingest": self.ingest_address,
            "query": self.query_address,
            "keys": self.keys_address,
            "maintenance": self.maintenance_address,
        }
