"""Query's configuration."""

from common.config import ServiceConfig


class QueryConfig(ServiceConfig, env_prefix="QUERY_"):
    """The variables that begin with `QUERY_`."""

    ingest_address: str
    """Host and port of Ingest, whose log Query follows."""
