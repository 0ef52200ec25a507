"""Query's configuration."""

from pydantic import Field

from common.config import KeyringConfig, ServiceConfig


class QueryConfig(ServiceConfig, KeyringConfig, env_prefix="QUERY_"):
    """The variables that begin with `QUERY_`."""

    ingest_address: str
    """Host and port of Ingest, whose log Query follows."""

    columns_path: str = ""
    """The file that the columns are kept in, which no other process may use.

    If empty, memory: it grows with the events, and they are made anew after each start.
    """

    columns_memory_mib: int = Field(default=512, ge=64)
    """How much memory the columns take at most, if they are kept in a file."""
