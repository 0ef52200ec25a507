"""Ingest's configuration."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from common.config import KeyringConfig, ServiceConfig


class IngestConfig(ServiceConfig, KeyringConfig, env_prefix="INGEST_"):
    """The variables that begin with `INGEST_`."""

    shard_count: int = Field(default=1, ge=1, le=1024)
    """How many writers the log has side by side. A store belongs to one shard. Read by all
    replicas alike; a change takes effect when all of them have been started anew."""
    event_bytes: int = Field(default=32 * 1024, ge=1024, le=1024 * 1024)
    """The size of an event, as JSON, above which it is rejected."""
    journal_directory: Annotated[Path | None, BeforeValidator(lambda text: text or None)] = None
    """Where events are kept while the database is away, on a disk that outlives the process.
    Each replica needs one of its own. Without one, events are refused meanwhile."""
    journal_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """How much of that disk they may take."""
