"""Query's configuration."""

from common.config import KeyringConfig, ServiceConfig


class QueryConfig(ServiceConfig, KeyringConfig, env_prefix="QUERY_"):
    """The variables that begin with `QUERY_`."""

    ingest_address: str
    """Host and port of Ingest, whose log Query follows."""

    columns_path: str = ""
    """The file that the columns are kept in, which no other process may use.

    If empty, memory: then they are made anew after each start, which takes a while.
    """
