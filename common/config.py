"""Configuration from environment variables, each with its process's prefix."""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field, SecretBytes, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

_KEY_BYTES = 32


def _read_key(text: str) -> bytes:
    """The key in 64 hex digits; raises `ValueError`, which shows nothing of it."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ValueError("must be 64 hex digits")
    return key


SecretKey = Annotated[SecretBytes, BeforeValidator(_read_key)]
"""A key of 256 bits, in 64 hex digits."""


class TlsConfig(BaseSettings):
    """The certificate that says who this process is, and the authority that it trusts."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    tls_certificate: Path
    """A PEM file, with the identity as a URI: `spiffe://shoptrail/<identity>`."""
    tls_key: Path
    """A PEM file, the certificate's private key."""
    tls_authority: Path
    """A PEM file, the certificates of the authority that signed every process's certificate."""


class TracingConfig(BaseSettings):
    """Where traces go."""

    traces_endpoint: str = ""
    """The URL of a collector that takes OTLP over gRPC, such as `http://127.0.0.1:4317`; by
    `https:` over TLS. If empty, no traces are made."""
    traces_sampled: float = Field(default=0.01, ge=0, le=1)
    """How many of the requests that nobody has decided about are traced."""


class ProcessConfig(TlsConfig, TracingConfig):
    """What every process of the mesh needs to know."""

    listen_address: str
    """Host and port."""
    behind_proxy: bool = False
    """Whether the addresses of services are those of this process's own Envoy, which shows this
    process's certificate, checks the service's, and repeats what fails."""
    drain_seconds: float = 5.0
    """How long to serve on after the news that the process stops: two health checks of Envoy."""
    grace_seconds: float = 5.0
    """How long calls may take to finish once no more are taken."""
    log_level: str = "info"


class ServiceConfig(ProcessConfig):
    """What every service needs to know."""

    metrics_address: str
    """Host and port where Prometheus reads the metrics."""
    database_url: SecretStr
    """As SQLAlchemy writes it, with the driver aiomysql or aiosqlite."""
    redis_url: SecretStr
    page_token_key: SecretKey
    """64 hex digits: the key that seals page tokens, the same on all replicas."""


class KeyringConfig(BaseSettings):
    """What a process needs to know that is shown keys."""

    keys_address: str
    """Host and port of Keys, which tells whether a key works."""
    keys_stale_seconds: float = 300.0
    """How long a key that worked goes on working while Keys can't be asked."""


_Config = TypeVar("_Config", bound=BaseSettings)


def read_config(config: type[_Config]) -> _Config:
    """The configuration in this process's environment.

    Ends the process, naming every variable that is missing or malformed at once.
    """
    try:
        return config()
    except ValidationError as error:
        prefix = config.model_config.get("env_prefix", "")
        faults = [
            f"  {prefix}{'_'.join(str(part) for part in fault['loc'])}".upper()
            + f": {fault['msg']}"
            for fault in error.errors()
        ]
        raise SystemExit("\n".join(["The environment is not complete:", *faults])) from None
