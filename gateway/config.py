"""What the gateway needs to know, from `GATEWAY_…` in the environment."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    DirectoryPath,
    Field,
    IPvAnyNetwork,
    NonNegativeFloat,
)
from pydantic_settings import NoDecode, SettingsConfigDict

from common.config import ProcessConfig, SecretKey


def _split(listed: Any) -> Any:
    if isinstance(listed, str):
        return [part.strip() for part in listed.split(",") if part.strip()]
    return listed


def _make_key() -> Any:
    """A key as it would stand in the environment."""
    return os.urandom(32).hex()


class Settings(BaseModel):
    """What an operator may change about how requests are treated."""

    keys_stale_seconds: float = 300.0
    """How long a key that worked goes on working while Keys can't be asked."""
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_split)] = ()
    """Networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed, with commas."""
    public_url: str = Field(default="", pattern=r"^(https?://[^/\s]+/?)?$")
    """Where browsers find the gateway. If empty, where they just found it."""
    analytics_js_directory: DirectoryPath | None = None
    """`dist/umd` of `@segment/analytics-next`, for pages that load it by Segment's snippet."""
    demo_shop: Path | None = None
    """A file with the keys of the store whose demo shop stands at `/demo`. If unset, none does."""
    key_events_per_second: NonNegativeFloat = 50_000.0
    """How many events a key may send to this process, for ever. 0 is no limit."""
    key_event_burst: NonNegativeFloat = 500_000.0
    """How many it may send at once."""
    session_key: SecretKey = Field(default_factory=_make_key, validate_default=True)
    """64 hex digits: the key that seals the dashboard's sessions, the same on all replicas.

    If unset, one that ends with this process, and all sessions with it.
    """
    session_hours: float = Field(default=12.0, gt=0, le=24 * 31)
    """How long a session lasts."""
    dashboard_directory: Path = Path(__file__).parent / "web" / "dashboard" / "dist"
    """What `make web-dashboard` built."""
    head_seconds: float = Field(default=10.0, gt=0)
    """How long the head of a request may take."""
    body_seconds: float = Field(default=30.0, gt=0)
    """How long the body of a request may take."""


class GatewayConfig(ProcessConfig, Settings):
    """Where the gateway listens, and where the services are."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    ingest_address: str
    """Host and port, as those that follow."""
    query_address: str
    keys_address: str
    maintenance_address: str

    def service_addresses(self) -> dict[str, str]:
        """Where each service is, by its name."""
        return {
            "ingest": self.ingest_address,
            "query": self.query_address,
            "keys": self.keys_address,
            "maintenance": self.maintenance_address,
        }
